"""Measures video files against video files: finds the cases, scores them in worker processes, and makes result rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.measuring.cases import Case, Cases, find_cases
from cmet_eval.measuring.job import MeasureJob, file_sha256
from cmet_eval.measuring.protocol_files import Protocol, get_protocol
from cmet_eval.measuring.result import Measured
from cmet_eval.measuring.rows import Outcome, SharedFields, score_fields, score_of
from cmet_eval.measuring.score_records import StoredScore, VideoScores
from cmet_eval.measuring.treatment import LengthRule, RateRule, SizeRule, Treatment
from cmet_leaderboards.row import ResultRow
from cmet_metrics.base import Metric
from cmet_metrics.registry import Profile, check_packages, common_profile, get_metric, in_profile, quick_metrics
from talking_face.execution.options import RunOptions
from talking_face.execution.workers import Task, TaskResult, run_tasks
from talking_face.names import check_label, check_name
from talking_face.packages import suite_version
from talking_face.pretrained.model_files import ModelFiles
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.signature import digest

SETTING = "measure"  # name of the setting in result rows
_OPENING_S = 600.0  # s of a deadline until the headers are read: a network disk hashes 8 GB at 20 MB/s in 400 s


@dataclass(frozen=True)
class Request:
    """What to measure, and how.

    Attributes:
        metrics: keys of metrics, `name:variant`; None: the metrics of the profile, or else `quick_metrics`, as far as
            the files allow.
        profile: all metrics of this profile; not together with `metrics`.
        rules: the treatment of the files.
        name: the name of the method in result rows; None: the name of the folder or file.
        revision: the version of the method.
        protocol: the protocol that set `metrics` and `rules`.
    """

    metrics: Sequence[str] | None = None
    profile: Profile | None = None
    rules: Treatment = Treatment()  # noqa: RUF009 - frozen
    name: str | None = None
    revision: str = "unversioned"
    protocol: Protocol | None = None

    @property
    def setting(self) -> str:
        """The name of the setting in result rows: `measure`, or `measure-NAME` under the protocol NAME."""
        return SETTING if self.protocol is None else f"{SETTING}-{self.protocol.name}"


@dataclass(frozen=True)
class Given:
    """The options about metrics and rules as the user wrote them; None: not written."""

    metrics: Sequence[str] | None = None
    profile: Profile | None = None
    rate: RateRule | None = None
    size: SizeRule | None = None
    length: LengthRule | None = None
    start: int | None = None

    def request(self, protocol: str | None, name: str | None, revision: str) -> Request:
        """The request for these options, or for a protocol: its name, or the path of its file.

        Raises UserError if the protocol is unknown, or if an option is written that the protocol sets.
        """
        if protocol is None:
            rules = Treatment(self.rate or "as-is", self.size or "as-is", self.length or "exact", self.start or 0)
            return Request(self.metrics, self.profile, rules, name, revision)
        published = get_protocol(protocol)
        for option, value in vars(self).items():
            if value not in (None, [], ()):
                raise UserError(
                    f"--protocol {published.name} sets --{option}: leave --{option} out, or write options without "
                    "--protocol"
                )
        return Request(published.metrics, None, published.rules, name, revision, published)


@dataclass(frozen=True)
class Work:
    """What is measured, after all names and paths were checked."""

    cases: Cases
    metrics: tuple[Metric, ...]
    request: Request
    files: ModelFiles
    method: str  # the name of the method in result rows
    profile: Profile


def plan(
    pred: Path,
    target: Path | None = None,
    audio: Path | None = None,
    *,
    request: Request,
    files: ModelFiles | None = None,
) -> Work:
    """Checks what is to be measured, and lists the cases. Names are checked before a folder is searched.

    Args:
        pred, target, audio: see `cmet_eval.measuring.cases.find_cases`.
        request: metrics and rules.
        files: where model files are searched for; None: the folders in the environment variables.

    Raises:
        UserError: a path, a name or an option is wrong.
    """
    files = files or ModelFiles.from_environment()
    named = named_metrics(request, files)
    method = None if request.name is None else _valid("--name", request.name, check_name)
    _valid("--revision", request.revision, check_label)
    cases = find_cases(pred, target, audio)
    metrics = chosen_metrics(request, named, cases, files)
    profile = common_profile((metric.key for metric in metrics), request.profile)
    return Work(cases, tuple(metrics), request, files, method or _valid("--name", cases.name, check_name), profile)


def measure_files(work: Work, *, out: Path | None = None, options: RunOptions | None = None) -> Measured:
    """Measures a video, a folder of videos, or the videos of a CSV file. A fault of one video is a row with a reason.

    Args:
        work: see `plan`.
        out: a folder. Scores are stored in `out`/scores, so that a stopped command can be continued. None: nothing is
            stored.
        options: workers and progress.
    """
    cases, metrics, request = work.cases, work.metrics, work.request
    suite = suite_version()
    keys = tuple(metric.key for metric in metrics)
    store = None if out is None else out / "scores"
    protocol = "" if request.protocol is None else request.protocol.name
    jobs = {
        case.id: MeasureJob(case, keys, request.rules, store, suite, protocol)
        for case in cases.cases
        if case.lost is None
    }
    outcomes = _run(jobs, work.files, options or RunOptions())
    maker = _RowMaker(metrics, request, _shared(work, suite))
    return Measured(
        rows=tuple(row for case in cases.cases for row in maker.rows(case, outcomes.get(case.id))),
        metrics=metrics,
        method=work.method,
        target=cases.target,
        notes=cases.notes,
        protocol=request.protocol,
    )


def named_metrics(request: Request, files: ModelFiles) -> list[Metric]:
    """The metrics that the user named, without repetitions.

    Raises:
        UserError: a name is unknown; a metric needs a package that is not installed; the metrics have no profile in
            common; or both `metrics` and `profile` are given.
    """
    if request.metrics and request.profile:
        raise UserError("--metrics and --profile exclude each other: name metrics, or take all of a profile")
    named = list(dict.fromkeys(get_metric(key, files) for key in request.metrics or ()))
    for metric in named:
        check_packages(metric)
    common_profile((metric.key for metric in named), request.profile)
    return named


def chosen_metrics(request: Request, named: Sequence[Metric], cases: Cases, files: ModelFiles) -> list[Metric]:
    """The metrics to compute: all that the user named, or else those for which some case has what the metric needs.

    Raises:
        UserError: a named metric needs a ground truth, labels or references that no case has.
    """
    for metric in named:
        if lacking := _lacking(metric, cases):
            raise UserError(f"{metric.key} needs {lacking}")
    if named:
        return list(named)
    keys = in_profile(request.profile) if request.profile else quick_metrics()
    return [metric for metric in (get_metric(key, files) for key in keys) if not _lacking(metric, cases)]


def _lacking(metric: Metric, cases: Cases) -> str:
    """What the metric needs and no case has; "" if nothing is lacking."""
    if metric.needs_target and not cases.have_target:
        return "a ground truth: give TARGET, or the column target of a CSV file"
    if metric.needs_labels and not any(case.labels.emotion for case in cases.cases):
        return "the emotion of each video: give a CSV file with the columns pred,target,emotion"
    if metric.needs_reference and not any(case.reference for case in cases.cases):
        return "reference frames: give a CSV file with the columns pred,target,reference"
    return ""


def _valid(option: str, text: str, check: Callable[[str], str]) -> str:
    """The text, if the check accepts it. Raises UserError with the name of the option if not."""
    try:
        return check(text)
    except ValueError as error:
        raise UserError(f"{option}: {error}") from None


def _run(jobs: Mapping[str, MeasureJob], files: ModelFiles, options: RunOptions) -> dict[str, Outcome]:
    """The outcome of every job, by the id of its case."""
    tasks = [Task(name, (job, files), options.deadline_s or _OPENING_S) for name, job in jobs.items()]
    results: dict[str, Outcome] = {}
    with Progress(len(tasks), unit="videos", label="measure", quiet=options.quiet) as progress:
        for result in run_tasks(
            "cmet_eval.measuring.job:measure_case",
            tasks,
            workers=options.workers,
            scheduler=options.scheduler,
            memory_bytes=options.memory_bytes,
            progress=progress,
        ):
            results[result.key] = _outcome(result)
    return results


def _outcome(result: TaskResult) -> Outcome:
    outcome: VideoScores | None = result.value
    if outcome is not None:
        return outcome
    return result.error or ClipError(Reason.CRASHED, "no score; run again")


def _shared(work: Work, suite: str) -> SharedFields:
    """Methods that are measured against the same ground truths have equal fields, so that one board shows them."""
    cases, request = work.cases, work.request
    compared = [case for case in cases.cases if case.target is not None or not cases.have_target]
    names = digest([case.id for case in compared])
    truths = {case.id: _content_of(case.target) for case in compared if case.target is not None}
    return SharedFields(
        setting=request.setting,
        method=work.method,
        revision=request.revision,
        dataset=cases.target or "no ground truth",
        origin="unknown",  # files carry no origin
        data_digest=digest(truths) if truths else names,
        data_signature="files",
        pairs_digest=names,
        rules=digest([SETTING] if request.protocol is None else [SETTING, request.protocol.digest]),
        profile=work.profile,
        suite_version=suite,
    )


def _content_of(path: Path) -> str:
    """The SHA-256 of a file; the reason if the file cannot be read, which the rows of its case state too."""
    try:
        return file_sha256(path)
    except ClipError as error:
        return error.reason


@dataclass(frozen=True)
class _RowMaker:
    """Makes the result rows of a case, one per metric."""

    metrics: Sequence[Metric]
    request: Request
    shared: SharedFields

    def rows(self, case: Case, outcome: Outcome | None) -> Iterator[ResultRow]:
        """The rows of a case. `outcome` is None if the case was not measured; `Case.lost` states why."""
        found = outcome or case.lost or ClipError(Reason.CRASHED, "no score; run again")
        for metric in self.metrics:
            yield self._row(case, metric, score_of(metric, found), None if isinstance(found, ClipError) else found)

    def _row(self, case: Case, metric: Metric, score: StoredScore, scores: VideoScores | None) -> ResultRow:
        return ResultRow(
            **self.shared,
            pair_id=case.id,
            seed=None,
            speaker=case.labels.speaker,
            reference_emotion=case.labels.reference_emotion,
            target_emotion=case.labels.emotion,
            intensity=None,
            ground_truth_clip=case.id if case.target is not None else None,
            **score_fields(metric, self.request.rules.signature(metric), score),
            notes="; ".join(scores.notes) if scores else "",
            codec=scores.codec if scores else "",
            video_sha256=scores.video_sha256 if scores else None,
        )
