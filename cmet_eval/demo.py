"""For `demo` and `run`: creates the embedded corpus, its shards and the models trained on it, if they are absent."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from cmet_eval.protocol.draw import Draw
from cmet_eval.runs.metrics import Scoring
from cmet_pipelines.preprocess import PreprocessSummary, preprocess
from cmet_pipelines.processing import ProcessingSettings
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import CorpusSummary, write_corpus
from talking_face.execution.options import RunOptions
from talking_face.execution.processes import GuardedProcess
from talking_face.packages import require
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.sealed import Damaged
from talking_face.threads import limit_threads

FOLDER = Path("work/demo")
# Twenty speakers with eight short clips each: the time of every step of the demo is proportional to the length of all
# clips, and networks learn more from twelve training speakers than from more clips of four. In pictures of 288 px, the
# crop around a face has 240 px; the shards have 256 px. Pictures of MEAD's shape would show more background only.
PLAN = CorpusPlan("mead", speakers=20, size="320x288", seconds=1.0, clips="one-sentence", detail=180)
SPLIT = "embedded-24"  # with 20 speakers: 12 for training, 8 held out
PAIRS = 64  # pairs per setting in a `run` without --data; with one seed, the run takes a quarter of an hour
# The landmark distances use MediaPipe's landmarks (`eat-mp`). The variant `eat` runs dlib's detector twice per frame
# and takes five times as long. In the tight 128 px crop of `eat`, dlib does not find a third of the drawn faces.
# `csim:dlib` is left out: its eight faces per clip take as long as all other metrics together.
# `ea:fer` is a second judge of emotion, with which nothing was tuned; it is weak on drawn faces.
FIRST_METRICS = ("psnr:frame-mean", "m_lmd:eat-mp", "f_lmd:eat-mp")
# The metrics that the first board does not have: the evaluators of `:corpus` are trained after it, and FER's network
# and SSIM would delay it by 8 s and 5 s.
LATER_METRICS = ("ssim:wang2004", "ea:fer", "lse_c:corpus", "ea:corpus", "emotion_leak:corpus")
METRICS = (*FIRST_METRICS, *LATER_METRICS)
# The settings of the demo's training: fewer steps than `demo`, because the clips are fewer and shorter.
TRAINING = {
    "cmet": str(Path(__file__).with_name("demo_cmet.toml")),
    "cem-net": str(Path(__file__).with_name("demo_cem_net.toml")),
}
# Method -> the stages of `cmet-eval train` whose checkpoints the method needs, in training order. The mesh renderer
# uses `appearance` and `skin`.
STAGES: dict[str, tuple[str, ...]] = {
    "cmet": ("audio2mouth", "cmet", "appearance", "skin"),
    "cem-net": ("audio2mouth", "aee", "ebm", "appearance", "skin"),
    "label-lookup": ("audio2mouth", "aee", "ebm", "appearance", "skin"),
    "ground-truth-face": ("appearance", "skin"),
}
# The stages that the second process of `train_networks` trains, after the evaluators. No other stage is built on them.
# On two quiet cores, the first process then takes about 80 s and the second 90 s.
ON_SECOND_CORE = ("appearance", "skin")


def default_run(
    methods: Sequence[str], draw: Draw, scoring: Scoring, options: RunOptions
) -> tuple[Path, Draw, Scoring]:
    """Returns the data, draw and metrics of a `run` without --data.

    If the corpus, its shards or its models are absent, the function creates them. Options that the user gave are kept.
    The other options get the demo's values; with these values, the run takes a quarter of an hour.
    """
    print(f"no --data: using the embedded corpus in {FOLDER}, made first where it is absent")
    print(make_corpus(FOLDER, options))
    print(make_shards(FOLDER, options))
    for line in train_networks(FOLDER, methods, options):
        print(line)
    draw = replace(draw, max_pairs=draw.max_pairs or PAIRS, seeds=draw.seeds or 1)
    print(f"{draw.max_pairs} pairs of each setting, seeds: {draw.seeds}; --max-pairs and --seeds take others")
    if not scoring.metrics and not scoring.profile:
        scoring = replace(scoring, metrics=METRICS)
    return FOLDER / "shards", draw, scoring


def make_corpus(folder: Path, options: RunOptions) -> CorpusSummary:
    """Writes the embedded corpus into `folder`/corpus, in the layout of MEAD. Existing files are kept."""
    return write_corpus(PLAN, folder / "corpus", workers=options.workers, quiet=options.quiet)


def make_shards(folder: Path, options: RunOptions) -> PreprocessSummary:
    """Preprocesses `folder`/corpus into `folder`/shards; existing shards are kept."""
    return preprocess(
        "mead",
        folder / "corpus",
        folder / "shards",
        ProcessingSettings(split=SPLIT),
        run=RunOptions(options.workers, quiet=options.quiet),
    )


def train_networks(folder: Path, methods: Iterable[str], options: RunOptions) -> Iterator[str]:
    """Trains the methods' checkpoints and the evaluators.

    With two or more workers, a second process trains the evaluators and the stages of `ON_SECOND_CORE` in parallel.

    Yields lines of text about the checkpoints and one line about the evaluators. Raises the same errors as
    `train_checkpoints` and `train_evaluators`.
    """
    wanted = stages_of(methods)
    theirs = tuple(name for name in ON_SECOND_CORE if name in wanted) if options.workers > 1 else ()
    with ExitStack() as ended:
        if options.workers > 1:
            words = [sys.executable, "-P", "-m", "cmet_eval.demo", str(folder), *theirs]
            second = GuardedProcess(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            ended.callback(second.end)
        if line := train_checkpoints(folder, [name for name in wanted if name not in theirs], options.quiet):
            yield line
        if options.workers > 1:
            if theirs and second.process.poll() is None:
                yield f"waiting for the second process, which trains {', '.join(('the evaluators', *theirs))}"
            second.process.wait()
    # If the second process failed, the next two calls train, or raise the error.
    if theirs and (line := train_checkpoints(folder, theirs, options.quiet)):
        yield line
    yield train_evaluators(folder, options.quiet)


def stages_of(methods: Iterable[str]) -> tuple[str, ...]:
    """The stages whose checkpoints the methods need, in training order."""
    return tuple(dict.fromkeys(stage for method in methods for stage in STAGES.get(method, ())))


def _on_the_second_core(folder: Path, stages: Sequence[str]) -> None:
    """Trains the evaluators, then the stages. An error is not printed: the first process gets the same error."""
    limit_threads(1)
    train_evaluators(folder, quiet=True)
    train_checkpoints(folder, stages, quiet=True)


def train_evaluators(folder: Path, quiet: bool = False) -> str:
    """Trains the evaluators of the `:corpus` metrics on `folder`/shards.

    If evaluators were trained on these shards before, these evaluators are kept. If CMET_EVAL_WEIGHTS names other
    evaluators, these other evaluators are used, and nothing is trained.

    Returns a line of text that names the evaluators in use.
    """
    from cmet_pipelines.shards import ShardSet
    from talking_face.pretrained import trained_evaluators

    shards = folder / "shards"
    files = ModelFiles.from_environment(shards)
    try:
        found = [trained_evaluators.find(kind, files) for kind in trained_evaluators.FILES]
        if all(evaluator.path.parent != shards / trained_evaluators.FOLDER for evaluator in found):
            return f"named by CMET_EVAL_WEIGHTS: {', '.join(evaluator.tag for evaluator in found)}"
        if {evaluator.trained_on.data for evaluator in found} == {ShardSet(shards).digest}:
            return f"trained before: {', '.join(evaluator.tag for evaluator in found)}"
    except (trained_evaluators.MissingWeights, UserError):
        pass  # train, because the evaluators are absent or were written by an earlier version
    require("torch", "training", "reference")
    from cmet_reference.evaluators import train

    # 300 steps of 40 frames are meant for clips of 2 s and longer.
    settings = train.EvaluatorSettings(syncnet_steps=120, syncnet_frames=23)
    cards = train.train_evaluators(shards, settings=settings, quiet=quiet)
    times = ", ".join(f"{kind} in {card['seconds']:.0f} s" for kind, card in cards.items())
    return f"trained: {times}"


def train_checkpoints(folder: Path, stages: Sequence[str], quiet: bool = False) -> str:
    """Trains, on `folder`/shards and with the demo settings, the checkpoints of the stages, in this order.

    If a checkpoint was trained on these shards before, the checkpoint is kept. Returns a line of text that states what
    was trained; the text is empty if `stages` is empty.

    Raises:
        UserError: a package that training needs is absent, or training fails.
    """
    if not stages:
        return ""
    require("torch", "training", "reference")
    from cmet_pipelines.shards import ShardSet
    from cmet_reference.training import checkpoints, config
    from cmet_reference.training.models import PACKAGES, train_model
    from cmet_reference.training.options import TrainOptions

    shards = folder / "shards"
    out, digest = shards / checkpoints.FOLDER, ShardSet(shards).digest
    trained: list[str] = []
    for stage in stages:
        model, path = checkpoints.model_of(stage), out / f"{stage}.safetensors"
        settings = config.load(PACKAGES[model], TRAINING[model])
        fresh = False
        try:
            if path.is_file() and _is_trained(path, settings.get(stage, settings), digest):
                continue
        except Damaged as error:
            fresh = True
            print(f"{path} is damaged ({error.problem}); {stage} is trained again", flush=True)
        print(f"training {stage} of {model} with its demo settings, once: {path}", flush=True)
        options = TrainOptions(quiet=quiet, resume=not fresh)
        card = train_model(model, {"main": shards}, settings=TRAINING[model], only=stage, options=options)[stage]
        trained.append(f"{stage} in {card['seconds']:.0f} s")
    names = ", ".join(stages)
    return f"trained on the embedded corpus: {', '.join(trained)}" if trained else f"trained before: {names} in {out}"


def build_board(folder: Path) -> Path:
    """Builds the board of all result rows in `folder`/results, and replaces an earlier board. Returns its page."""
    from cmet_baselines.published import published_rows
    from cmet_eval.reports.gallery import gallery
    from cmet_eval.reports.method_videos import MethodVideos
    from cmet_eval.reports.pair_videos import pair_videos
    from cmet_leaderboards.bands import load_bands
    from cmet_leaderboards.board import build
    from cmet_leaderboards.results import read_results

    rows, videos, out = read_results(folder / "results"), MethodVideos(folder / "videos"), folder / "leaderboard"
    return build(rows, out, load_bands(), gallery(rows, videos), published_rows(), pair_videos(rows, videos, out))


def _is_trained(path: Path, settings: object, digest: str) -> bool:
    """Whether a checkpoint was trained with these settings, on these shards, and on the present earlier checkpoints.

    Raises Damaged if one of the files is damaged.
    """
    from cmet_reference.training import checkpoints

    known = checkpoints.trained_on(path)
    if known["config"] != settings or digest not in known["data"].values():
        return False
    earlier = ((path.with_name(f"{name}.safetensors"), wanted) for name, wanted in known.get("built_on", {}).items())
    return all(file.is_file() and checkpoints.revision(file) == wanted for file, wanted in earlier)


if __name__ == "__main__":  # the second process of `train_networks`
    _on_the_second_core(Path(sys.argv[1]), sys.argv[2:])
