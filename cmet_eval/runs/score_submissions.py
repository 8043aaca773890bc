"""Scores the videos of submissions in worker processes, and writes the result rows.

The scores of each video are stored in one file. The file's name is a digest of everything that the scores depend on.
If a run is killed, only the scores of the unfinished videos are lost.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.measuring.job import file_sha256
from cmet_eval.measuring.registration_check import Registration
from cmet_eval.measuring.rows import Outcome
from cmet_eval.measuring.score_records import VideoScores, current_scores, usable_scores
from cmet_eval.measuring.scoring import default_deadline
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.result_rows import Loss, RowMaker, losses, weights_to_get
from cmet_eval.runs.score import (
    Expected,
    Job,
    failures_of,
    frame_counts,
    scoring_key,
)
from cmet_eval.runs.submissions import Submission
from cmet_leaderboards.results import write_results
from cmet_leaderboards.row import ResultRow
from cmet_metrics.base import Metric
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.execution.workers import Task, TaskResult, run_tasks
from talking_face.names import storable
from talking_face.packages import suite_version
from talking_face.pretrained.model_files import ModelFiles
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason

_GROUP = 16  # largest number of videos per task; all videos of a task have the same ground truth


@dataclass(frozen=True)
class Scored:
    """The outcome of `score_submissions`. Infinite values and values that were not requested do not count as lost."""

    results: tuple[Path, ...]  # files of result rows
    scored: int
    kept: int
    lost: Mapping[tuple[str, str], Loss]  # by (method, reason)
    to_get: tuple[str, ...]  # one line of text per missing weight file
    registrations: tuple[Registration, ...] = ()  # of the submissions whose registration was measured


@dataclass(frozen=True)
class _Work:
    """The videos that have to be scored, and the outcomes that are known without scoring."""

    known: Mapping[str, Outcome]  # by `Submission.key`: stored scores, or the reason why there is no video
    waiting: Mapping[str, str]  # `Submission.key` -> scoring key, for the videos that have to be scored
    jobs: Mapping[str, Job]  # by scoring key


def score_submissions(
    submissions: Sequence[Submission],
    metrics: Mapping[str, Sequence[Metric]],
    scoring: Scoring,
    shards: ShardSet,
    out: Path,
    options: RunOptions,
    files: ModelFiles,
    uncounted: Collection[str] = (),
) -> Scored:
    """Scores the videos without valid stored scores, and writes the result rows of every submission.

    Args:
        metrics: name of a setting -> the metrics for the videos of this setting.
        scoring: contains the evaluator profile that is written into the result rows.
        files: the model files that the metrics use.
        uncounted: keys of metrics whose missing values do not count as lost.
        out: the run's folder. Scores are written to `out`/scores, result rows to `out`/results.
    """
    suite = suite_version()
    work = _find_work(submissions, metrics, shards, out / "scores", suite, options.deadline_s)
    with Progress(len(work.jobs), unit="videos", label="score", quiet=options.quiet) as progress:
        failed = _score_jobs(work.jobs, (str(shards.folder), files), options, progress)
    outcomes = {**work.known, **{name: _outcome(work.jobs[key], failed) for name, key in work.waiting.items()}}

    written, every = [], list[ResultRow]()
    measured = {id(one): _registration(one, outcomes) for one in submissions if one.check != "off"}
    for submission in submissions:
        own = metrics[submission.setting.name]
        maker = RowMaker.of(submission, own, shards, scoring.common_profile(own), suite)
        rows = list(maker.rows(outcomes, measured.get(id(submission))))
        every += rows
        written.append(write_results(rows, out / "results", board_record(submission)))
    kept = sum(isinstance(outcome, VideoScores) for outcome in work.known.values())
    lost = losses([row for row in every if row.metric not in uncounted], _log_finder(submissions, out))
    return Scored(tuple(written), len(work.jobs), kept, lost, weights_to_get(every), tuple(measured.values()))


def _registration(submission: Submission, outcomes: Mapping[str, Outcome]) -> Registration:
    """The registration of the submission's videos."""
    scored = {pair.pair_id: outcomes[submission.key(pair)] for pair in submission.pairs.pairs}
    videos = {pair: outcome for pair, outcome in scored.items() if isinstance(outcome, VideoScores)}
    found = {pair: outcome.framing for pair, outcome in videos.items() if outcome.framing is not None}
    return Registration(submission.name, submission.setting.name, found, len(videos))


def _log_finder(submissions: Sequence[Submission], out: Path) -> Callable[[ResultRow], str]:
    """A function that returns the path of a pair's log file, relative to `out`; "" if there is no log file."""
    folders = {(one.name, one.setting.name): one.records for one in submissions}

    def find(row: ResultRow) -> str:
        folder = folders[row.method, row.setting]
        log = folder / f"{pair_file_name(row.pair_id)}.log" if folder else None
        return log.relative_to(out).as_posix() if log and log.is_file() else ""

    return find


def _find_work(
    submissions: Sequence[Submission],
    metrics: Mapping[str, Sequence[Metric]],
    shards: ShardSet,
    scores: Path,
    suite: str,
    deadline_s: float | None,
) -> _Work:
    n_frames = frame_counts(shards)
    known: dict[str, Outcome] = {}
    waiting: dict[str, str] = {}
    jobs: dict[str, Job] = {}
    for submission in submissions:
        own = metrics[submission.setting.name]
        how = [*map(submission.rules.signature, own), suite]
        how += ["registration"] if submission.check != "off" else []
        how += ["from-elsewhere"] if submission.from_elsewhere else []  # changes the messages
        for pair in submission.pairs.pairs:
            name, video = submission.key(pair), submission.video(pair)
            if pair.pair_id in submission.failures:
                known[name] = submission.failures[pair.pair_id]
                continue
            try:
                sha256 = _video_sha256(video, submission.videos.name)
            except ClipError as error:
                known[name] = error
                continue
            expected = Expected.of(pair, own)
            key = scoring_key(sha256, expected, shards.digest, how)
            job = Job(
                key=key,
                video=str(video),
                video_sha256=sha256,
                expected=expected,
                out=str(scores / key[:2] / f"{key}.json"),
                metrics=tuple(metric.key for metric in own),
                deadline_s=deadline_s or default_deadline(n_frames.get(pair.driving_clip, 0)),
                rules=submission.rules,
                registration=submission.check != "off",
                from_elsewhere=submission.from_elsewhere,
                landmarks=str(scores.with_name("landmarks")),
            )
            if (stored := current_scores(Path(job.out), key)) is not None:
                known[name] = stored
                continue
            # The scoring key does not contain the setting. So if two settings have the same video with the same clips,
            # the video is scored only once.
            jobs.setdefault(key, job)
            waiting[name] = key
    return _Work(known, waiting, jobs)


def _video_sha256(video: Path, folder: str) -> str:
    """The SHA-256 of a video. Raises ClipError: missing-output, or a reason of `file_sha256`."""
    if not video.is_file():
        raise ClipError(Reason.MISSING_OUTPUT, f"expected {video.name} in {folder}/")
    return file_sha256(video)


def _outcome(job: Job, failed: Mapping[str, ClipError]) -> Outcome:
    """The scores of a job that ran, or the reason why the job has no scores."""
    return failed.get(job.key) or usable_scores(Path(job.out)) or ClipError(Reason.CRASHED, "no score; run again")


def _score_jobs(
    jobs: Mapping[str, Job], inputs: tuple[str, ModelFiles], options: RunOptions, progress: Progress
) -> dict[str, ClipError]:
    """Scores all jobs in groups with the same ground truth; returns the failures by scoring key.

    If a video crashes the process or passes a limit, the task of its group ends. The videos of the group that are not
    scored yet are then scored in a new task.
    """
    groups = _groups(jobs)
    failed: dict[str, ClipError] = {}
    while groups:
        tasks = [Task(str(i), (group, *inputs), group[0].deadline_s) for i, group in enumerate(groups)]
        again: list[list[Job]] = []
        for result in run_tasks(
            "cmet_eval.runs.score:score_group",
            tasks,
            workers=options.workers,
            scheduler=options.scheduler,
            memory_bytes=options.memory_bytes,
        ):
            group = groups[int(result.key)]
            failures, left = _after(group, result)
            failed.update(failures)
            again += left
            progress.advance(len(group) - sum(map(len, left)))
        groups = again
    return failed


def _after(group: list[Job], result: TaskResult) -> tuple[dict[str, ClipError], list[list[Job]]]:
    """The failures of a finished task, by scoring key, and new groups of the videos that the task did not reach.

    Raises UserError if a stored file that the videos need is damaged.
    """
    if result.error is None:
        return failures_of(result), []
    undone = [job for job in group if not _is_scored(job)]
    if len(undone) > 1 and result.stage not in {job.key for job in undone}:
        return {}, [[job] for job in undone]  # it is not known which video ended the task
    guilty = [job for job in undone if job.key == result.stage or len(undone) == 1]
    rest = [job for job in undone if job not in guilty]
    return {job.key: result.error for job in guilty}, [rest] if rest else []


def _groups(jobs: Mapping[str, Job]) -> list[list[Job]]:
    """Groups of at most _GROUP jobs with the same ground truth and metrics. Without ground truth, one job per group."""
    by_truth: dict[tuple[str, tuple[str, ...]], list[Job]] = {}
    for job in sorted(jobs.values(), key=lambda job: job.video):
        by_truth.setdefault((job.expected.ground_truth_clip or job.key, job.metrics), []).append(job)
    return [group[start : start + _GROUP] for group in by_truth.values() for start in range(0, len(group), _GROUP)]


def _is_scored(job: Job) -> bool:
    scores = usable_scores(Path(job.out))
    return scores is not None and scores.key == job.key


def board_record(submission: Submission) -> dict[str, object]:
    """The facts about a submission that the leaderboard shows. These facts are stored with the result rows."""
    pairs, setting, method = submission.pairs, submission.setting, submission.method
    return {
        "method": {
            **{name: storable(str(method.get(name) or "")) for name in ("name", "revision", "title", "summary")},
            "role": method.get("role", "method"),
            "sees": method.get("sees", []),
        },
        "setting": {
            **{name: storable(getattr(setting, name)) for name in ("name", "title", "summary", "protocol")},
            "disjoint": list(setting.disjoint),
            "shared": list(setting.shared),
        },
        "pairs": {
            "drawn": pairs.drawn,
            "split": pairs.split,
            "seeds": pairs.seeds,
            "missing": list(map(storable, pairs.missing)),
            "notes": list(map(storable, pairs.notes)),
        },
        "command": storable(submission.command),
    }
