"""Plans a run: draws the pairs of every setting, and lists the videos that have to be generated."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmet_baselines.adapters.videos import VideosMethod
from cmet_baselines.method import Method
from cmet_baselines.registry import describe, get_method, shown
from cmet_eval.measuring.treatment import Treatment
from cmet_eval.protocol.draw import Draw, draw_from_shards
from cmet_eval.protocol.pair_files import write_pairs
from cmet_eval.protocol.pairs import PairList
from cmet_eval.protocol.setting import Setting, get_setting
from cmet_eval.runs.generate import GenerationJob, generation_key
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.records import usable_generation
from cmet_eval.runs.score import frame_counts
from cmet_eval.runs.submissions import RULES, Submission
from cmet_metrics.base import Metric
from cmet_pipelines.shards import ShardSet
from talking_face.execution.workers import Task
from talking_face.files import STRAY, sha256_of
from talking_face.names import file_name_of, inside
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

_DEADLINE_S = 300.0  # for one video; the simplest methods take 0.2 s
_S_PER_FRAME = 2.0  # s, added to the deadline; the reference models take 0.05 s per frame
# Inputs that are parts of the ground truth. A setting shows them if its `visible` is upper-half or all. Ceilings and
# controls see the whole ground truth, and run in every setting.
_OF_TRUTH = frozenset({"upper-half", "ground-truth-pose"})
_MARGIN_S = 60.0  # added to a method's own deadline to get the deadline of the task


@dataclass(frozen=True)
class Request:
    """The methods, settings and metrics of a run, after all names were checked."""

    methods: Mapping[str, Method]  # name that the user gave -> method
    settings: tuple[Setting, ...]
    metrics: Mapping[str, Sequence[Metric]]  # name of a setting -> the metrics that are valid in this setting
    files: ModelFiles


@dataclass(frozen=True)
class Plan:
    """The work of a run."""

    submissions: tuple[Submission, ...]  # one per method and setting
    tasks: tuple[Task, ...]  # calls of `generate_pair`; the name of a task is its `Submission.key`
    pairs: int  # number of pairs in all settings
    kept: int  # number of videos of an earlier run that are still valid


def check_request(methods: Sequence[str], settings: Sequence[str], scoring: Scoring, files: ModelFiles) -> Request:
    """Finds the method, setting or metric of every name.

    Raises UserError if a name is unknown, if no method or no setting is given, if two methods have the same name, or if
    a method needs a part of the ground truth that a setting does not show.
    """
    rules = tuple(get_setting(name) for name in dict.fromkeys(settings))
    chosen = {name: get_method(name, files) for name in dict.fromkeys(methods)}
    if not chosen or not rules:
        raise UserError("name at least one --method and one --setting")
    if len({method.name for method in chosen.values()}) != len(chosen):
        raise UserError("two of the methods have the same name; give one of them another")
    for name, method in chosen.items():
        for setting in rules:
            if setting.visible == "none" and (hidden := sorted(_OF_TRUTH & method.sees)):
                raise UserError(
                    f"{name} sees {', '.join(hidden)}, and the setting {setting.name} shows no part of the ground "
                    "truth; take cross-emotion-paper or another setting with visible = 'upper-half'"
                )
    metrics = {setting.name: scoring.in_setting(setting, files) for setting in rules}
    return Request(chosen, rules, metrics, files)


def plan_run(
    request: Request,
    shards: ShardSet,
    draw: Draw,
    out: Path,
    *,
    fresh: bool,
    side_by_side: int,
    deadline_s: float | None = None,
) -> Plan:
    """Draws and writes the pair lists, and lists the videos that are absent or out of date.

    Args:
        out: the run's folder. If an earlier run was killed, its half-written files are removed.
        fresh: also list the videos that are still valid, so that they are generated again.
        side_by_side: number of processes that can generate at the same time; 0: unknown.
        deadline_s: time for one video; None: a time that follows from its length and from the method's own deadline.
    """
    submissions: list[Submission] = []
    tasks: list[Task] = []
    n_pairs = kept = 0
    for setting in request.settings:
        pair_list = draw_from_shards(shards, setting, draw)
        n_pairs += len(pair_list.pairs)
        _write_lists(pair_list, out / "pairs")
        for given, method in request.methods.items():
            record = describe(given, request.files)
            submission = _submission(record, method, setting, pair_list, out)
            submission = replace(submission, command=_command(given, setting, draw))
            submissions.append(submission)
            _remove_strays(submission)
            jobs = _jobs(submission, given, method, shards, request.files, side_by_side)
            todo = [job for job in jobs if not _is_current(job) or fresh]
            kept += len(jobs) - len(todo)
            own = getattr(method, "deadline_s", 0.0)
            tasks += [
                Task(submission.key(job.pair), (job,), deadline_s or _deadline(job.n_frames, own)) for job in todo
            ]
    return Plan(tuple(submissions), tuple(tasks), n_pairs, kept)


def _deadline(n_frames: int, own_s: float) -> float:
    """Seconds for one video. Later than the method's own deadline, so that the method can report its own message."""
    return max(_DEADLINE_S + _S_PER_FRAME * n_frames, _MARGIN_S + own_s)


def _write_lists(pair_list: PairList, folder: Path) -> None:
    name = file_name_of(pair_list.setting)
    write_pairs(pair_list, inside(folder, f"{name}.parquet"))
    # The pair lists of earlier draws are kept; each file name contains the digest. So result rows of an earlier draw
    # can still be verified.
    write_pairs(pair_list, inside(folder, "drawn", f"{name}-{pair_list.digest}.parquet"))


def _submission(
    record: Mapping[str, object], method: Method, setting: Setting, pairs: PairList, out: Path
) -> Submission:
    names = file_name_of(method.name), file_name_of(setting.name)
    videos, records = inside(out / "videos", *names), inside(out / "records", *names)
    return Submission(record, setting, pairs, videos=videos, records=records, rules=_rules(method))


def _rules(method: Method) -> Treatment:
    """The treatment of a method's videos: the rules of a folder of videos, as far as they give no new videos."""
    if not isinstance(method, VideosMethod):
        return RULES
    size, length = method.run.size, method.run.length
    return replace(
        RULES,
        size=size if size != "landmark-similarity" else "as-is",
        length=length if length == "shorter" or length == "linspace" else "exact",
    )


def _command(method: str, setting: Setting, draw: Draw) -> str:
    """The command that reproduces the results, without folders of this machine.

    DATA is a placeholder, because the path of the data has no influence.
    """
    parts = ["cmet-eval", "run", "--method", shown(method), "--setting", setting.name, "--data", "DATA"]
    for option, value in (("--max-pairs", draw.max_pairs), ("--seeds", draw.seeds), ("--split", draw.split)):
        parts += [option, str(value)] if value is not None else []
    return shlex.join(parts)


def _remove_strays(submission: Submission) -> None:
    """Removes half-written files of a killed process. This is safe, because no other run writes into these folders."""
    assert submission.records is not None
    for folder in (submission.videos, submission.records):
        for stray in folder.glob(STRAY):
            stray.unlink(missing_ok=True)


def _jobs(
    submission: Submission, given: str, method: Method, shards: ShardSet, files: ModelFiles, side_by_side: int
) -> list[GenerationJob]:
    """The generation jobs of a submission, one per pair."""
    n_frames = frame_counts(shards)
    return [
        GenerationJob(
            method=given,
            pair=pair,
            data=str(shards.folder),
            n_frames=n_frames[pair.driving_clip],
            video=str(submission.video(pair)),
            record=str(submission.record(pair)),
            key=generation_key(method, pair, shards.digest),
            files=files,
            workers=side_by_side,
        )
        for pair in submission.pairs.pairs
    ]


def _is_current(job: GenerationJob) -> bool:
    """Whether the job's video exists and was generated from the same inputs."""
    record, video = usable_generation(Path(job.record)), Path(job.video)
    return record is not None and record.key == job.key and video.exists() and sha256_of(video) == record.video_sha256
