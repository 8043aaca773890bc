"""The embedded corpus as shards, and the models trained on it, made when they are not there: for `demo` and `run`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import suppress
from multiprocessing import get_context
from pathlib import Path

from cmet_pipelines.preprocess import PreprocessSummary, preprocess
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import CorpusSummary, write_corpus
from talking_face.execution.options import RunOptions
from talking_face.reasons import UserError
from talking_face.threads import limit_threads

FOLDER = Path("work/demo")
PAIRS = 64  # of a setting that `run` without data takes, with one seed: a quarter of an hour
# Landmark distances on MediaPipe's points: dlib's finder, which `eat` needs twice a frame, costs five times as much and
# loses a third of the drawn faces in its own tight 128 px crop (docs/embedded_corpus.md).
METRICS = (
    *("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat-mp", "f_lmd:eat-mp", "lse_c:corpus", "ea:corpus"),
    *("emotion_leak:corpus", "csim:dlib"),
)
# What each method's checkpoints are: stages of `cmet-eval train`, in training order; the last two are what the
# mesh renderer learns.
STAGES: dict[str, tuple[str, ...]] = {
    "cmet": ("audio2mouth", "cmet", "appearance", "skin"),
    "cem-net": ("audio2mouth", "aee", "ebm", "appearance", "skin"),
    "ground-truth-face": ("appearance", "skin"),
}


def embedded_corpus(folder: Path = FOLDER, workers: int = 2, quiet: bool = False) -> CorpusSummary:
    """Write the corpus into `folder`/corpus in MEAD's layout; what is there is kept."""
    return write_corpus(CorpusPlan("mead"), folder / "corpus", workers=workers, quiet=quiet)


def embedded_shards(folder: Path = FOLDER, workers: int = 2, quiet: bool = False) -> PreprocessSummary:
    """Preprocess `folder`/corpus into `folder`/shards; what is there is kept."""
    return preprocess("mead", folder / "corpus", folder / "shards", run=RunOptions(workers, quiet=quiet))


def embedded_evaluators(folder: Path = FOLDER, quiet: bool = False) -> str:
    """Train the evaluators of the `:corpus` metrics on `folder`/shards; those that were trained on them are kept, and
    where CMET_EVAL_WEIGHTS names others, these judge.

    Returns what was done, in words.
    """
    from cmet_pipelines.shards import ShardSet
    from talking_face.pretrained import corpus_nets

    shards = folder / "shards"
    corpus_nets.look_beside(shards)
    try:
        found = [corpus_nets.find(kind) for kind in corpus_nets.FILES]
        if all(evaluator.path.parent != shards / corpus_nets.FOLDER for evaluator in found):
            return f"named by CMET_EVAL_WEIGHTS: {', '.join(evaluator.tag for evaluator in found)}"
        if {evaluator.trained_on.data for evaluator in found} == {ShardSet(shards).digest}:
            return f"trained before: {', '.join(evaluator.tag for evaluator in found)}"
    except (corpus_nets.MissingWeights, UserError):
        pass  # not there, or of an earlier version
    from cmet_reference.evaluators.train import train_evaluators

    cards = train_evaluators(shards, quiet=quiet)
    times = ", ".join(f"{kind} in {card['seconds']:.0f} s" for kind, card in cards.items())
    return f"trained: {times}"


def embedded_networks(
    folder: Path = FOLDER, methods: Iterable[str] = ("cmet", "cem-net"), workers: int = 2, quiet: bool = False
) -> Iterator[str]:
    """Both of the above and below, side by side where there are two workers.

    Yields what was done, in words. Raises as they do.
    """
    beside = get_context("spawn").Process(target=_evaluators_on_one_core, args=(folder,), daemon=True)
    if workers > 1:
        beside.start()
    try:
        if told := embedded_checkpoints(folder, methods, quiet):
            yield told
        if workers > 1:
            beside.join()
    finally:
        if beside.is_alive():
            beside.terminate()
            beside.join()
    yield embedded_evaluators(folder, quiet)  # what the process beside could not do is done here, or said


def _evaluators_on_one_core(folder: Path) -> None:
    limit_threads(1)
    with suppress(UserError):  # the other process will meet it, and tell it
        embedded_evaluators(folder, quiet=True)


def embedded_checkpoints(
    folder: Path = FOLDER, methods: Iterable[str] = ("cmet", "cem-net"), quiet: bool = False
) -> str:
    """Train the demo checkpoints that the methods need on `folder`/shards; what was trained on them is kept.

    Returns what was done, in words; nothing where no method needs any.

    Raises:
        UserError: what training needs is not installed, or fails.
    """
    wanted = list(dict.fromkeys(stage for method in methods for stage in STAGES.get(method, ())))
    if not wanted:
        return ""
    from cmet_pipelines.shards import ShardSet
    from cmet_reference.training import checkpoints, config
    from cmet_reference.training.models import PACKAGES, train_model
    from cmet_reference.training.options import TrainOptions

    shards = folder / "shards"
    out, digest = shards / checkpoints.FOLDER, ShardSet(shards).digest
    trained: list[str] = []
    for stage in wanted:
        model, path = checkpoints.model_of(stage), out / f"{stage}.safetensors"
        settings = config.load(PACKAGES[model], "demo")
        if path.is_file():
            known = checkpoints.trained_on(path)
            same = known["config"] == settings.get(stage, settings) and digest in known["data"].values()
            earlier = ((out / f"{name}.safetensors", wanted) for name, wanted in known.get("built_on", {}).items())
            if same and all(file.is_file() and checkpoints.revision(file) == wanted for file, wanted in earlier):
                continue
        print(f"training {stage} of {model} with its demo settings, once, for a minute or two: {path}", flush=True)
        try:
            card = train_model(model, {"main": shards}, settings="demo", only=stage, options=TrainOptions(quiet=quiet))[
                stage
            ]
        except ImportError as error:
            raise UserError(f"{model} needs {error.name}; run `pip install 'cmet-eval[reference]'`") from None
        trained.append(f"{stage} in {card['seconds']:.0f} s")
    names = ", ".join(wanted)
    return f"trained on the embedded corpus: {', '.join(trained)}" if trained else f"trained before: {names} in {out}"
