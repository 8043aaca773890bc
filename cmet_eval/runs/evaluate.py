"""The evaluation run: draws pairs, generates a video per method and pair, scores the videos, and writes result rows.

    OUT/pairs/SETTING.parquet                    the pairs
    OUT/videos/METHOD/SETTING/PAIR.mp4           the generated videos
    OUT/records/METHOD/SETTING/PAIR.json         how each video was generated
    OUT/scores/../KEY.json                       scores of one video; KEY is a digest of everything that determines them
    OUT/landmarks/../KEY.parquet                 MediaPipe's points of one video or ground truth, for later scorings
    OUT/results/SETTING/METHOD@....parquet       result rows, from which the leaderboard is built

If a run was killed, the same command finishes it. An existing video or score is kept if its inputs are unchanged. All
other videos and scores are computed again.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from cmet_baselines.adapters.own_process import OwnProcessMethod
from cmet_baselines.registry import catalogue
from cmet_eval.protocol.draw import Draw
from cmet_eval.protocol.setting import Setting
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.plan import Plan, check_request, plan_run
from cmet_eval.runs.result_rows import Loss
from cmet_eval.runs.score_submissions import Scored, score_submissions
from cmet_eval.runs.submissions import Submission, check_video_pattern
from cmet_eval.runs.timing import Aitv, summarize
from cmet_metrics.base import Metric
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.execution.workers import run_tasks
from talking_face.names import counted
from talking_face.pretrained.model_files import ModelFiles
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError

DEFAULT_SETTINGS = ("neutral-base", "cross-emotion")
REGISTRATION = ("registration:shift", "registration:scale")  # computed for videos from elsewhere


@dataclass(frozen=True)
class RunSummary:
    """The outcome of a run."""

    scores: Scored
    pairs: int
    generated: int
    kept: int  # videos of an earlier run that are kept; in `score`: scores of an earlier run that are kept
    seconds: float
    aitv: tuple[Aitv, ...] = ()  # inference times of the run's methods
    not_computed: tuple[str, ...] = ()  # one line per setting in which some of the user's metrics are not valid

    @property
    def lost(self) -> Mapping[tuple[str, str], Loss]:
        """Scores without a value, by (method, reason). Infinite and unrequested scores do not count."""
        return self.scores.lost

    def __str__(self) -> str:
        elsewhere = Reason.MISSING_WEIGHTS.value  # left out, because `to_get` lists the missing weight files
        lost = [f"{who}: {why}, {loss}" for (who, why), loss in sorted(self.lost.items()) if why != elsewhere]
        state = "scores are missing:" if self.lost else "every score is there"
        return (
            f"{counted(self.pairs, 'pair')}; {counted(self.generated, 'video')} generated, "
            f"{self.scores.scored} scored, {self.kept} kept from an earlier run, in {self.seconds:.0f} s; {state}"
            + "".join(
                f"\n{line}"
                for line in (*lost, *self.scores.registrations, *self.aitv, *self.scores.to_get, *self.not_computed)
            )
        )


def run(
    methods: Sequence[str],
    settings: Sequence[str] = DEFAULT_SETTINGS,
    *,
    data: Path,
    out: Path,
    draw: Draw | None = None,
    scoring: Scoring | None = None,
    options: RunOptions | None = None,
    fresh: bool = False,
) -> RunSummary:
    """Generates one video per method, setting and pair, and scores the videos.

    Args:
        methods: names of methods in the catalogue, paths of .toml files, or `module:Class`.
        settings: names of settings, or paths of TOML files.
        data: folder of a shard set.
        out: the run's folder; see the module's docstring.
        draw: number of pairs, number of seeds, and the split; None: the values of each setting.
        scoring: metrics, profile and model files; None: the default metrics. A metric is computed only in
            the settings in which the metric is valid. The summary has a line about each setting in which a
            metric that the user named is not valid.
        options: worker processes, and whether progress is printed.
        fresh: generate all videos again, also the videos of an earlier run.

    Raises:
        UserError: a name is unknown, or no pair can be drawn. If the generation of a video fails, there is no error:
            the result rows of this video get a reason.
    """
    started = time.monotonic()
    draw, scoring, options = draw or Draw(), scoring or Scoring(), options or RunOptions()
    # Check all names first, so that a wrong name stops the run before any work.
    request = check_request(methods, settings, scoring, scoring.model_files(data))
    shards = ShardSet(data)
    side_by_side = 0 if options.scheduler else max(1, options.workers)
    plan = plan_run(request, shards, draw, out, fresh=fresh, side_by_side=side_by_side, deadline_s=options.deadline_s)
    # Stop the methods' own processes: this process needed only the methods' names, and each worker starts its own
    # process of a method. Without workers, the videos are generated in this process.
    for method in request.methods.values():
        if isinstance(method, OwnProcessMethod) and (options.workers or options.scheduler):
            method.close()
    failures = _generate(plan, options)
    made = (_with_failures(submission, failures) for submission in plan.submissions)
    submissions = [_with_check(one, request.metrics[one.setting.name], scoring) for one in made]
    scored = score_submissions(submissions, request.metrics, scoring, shards, out, options, request.files)
    return RunSummary(
        scored,
        pairs=plan.pairs,
        generated=len(plan.tasks) - len(failures),
        kept=plan.kept,
        seconds=time.monotonic() - started,
        aitv=tuple(
            times
            for method in request.methods.values()
            for times in summarize(out / "records", method.name, request.metrics)
            if times.revision == str(method.revision)
        ),
        not_computed=_not_computed(scoring, request.settings, request.files),
    )


def _not_computed(scoring: Scoring, settings: Sequence[Setting], files: ModelFiles) -> tuple[str, ...]:
    return tuple(line for setting in settings if (line := scoring.not_computed_in(setting, files)))


def _generate(plan: Plan, options: RunOptions) -> dict[str, ClipError]:
    """Generates the plan's videos; returns the error of each failed video, by `Submission.key`."""
    function = "cmet_eval.runs.generate:generate_pair"
    with Progress(len(plan.tasks), unit="videos", label="generate", quiet=options.quiet) as progress:
        results = run_tasks(
            function,
            plan.tasks,
            workers=options.workers,
            scheduler=options.scheduler,
            memory_bytes=options.memory_bytes,
            progress=progress,
        )
        return {result.key: result.error for result in results if result.error is not None}


def _with_check(submission: Submission, metrics: Sequence[Metric], scoring: Scoring) -> Submission:
    """The submission with its check of the registration.

    The check is `off` if the faces of a video and its ground truth need not coincide, or if no metric compares them. It
    is also `off` for the methods of this suite, which write videos with the framing of the shards.
    """
    own = not submission.from_elsewhere and submission.method.get("kind") == "built-in"
    same_moments = all(map(submission.setting.allows, REGISTRATION))
    if own or not same_moments or not any(metric.needs_target for metric in metrics):
        return submission
    if scoring.allow_misregistered:
        return replace(submission, check="allow", command=f"{submission.command} --allow-misregistered")
    return replace(submission, check="refuse")


def _with_failures(submission: Submission, failures: Mapping[str, ClipError]) -> Submission:
    own = {pair.pair_id: failures[key] for pair in submission.pairs.pairs if (key := submission.key(pair)) in failures}
    return replace(submission, failures=own)


def score(
    submission: Submission,
    *,
    data: Path,
    out: Path,
    scoring: Scoring | None = None,
    options: RunOptions | None = None,
) -> RunSummary:
    """Scores a folder of videos that were generated elsewhere.

    Args:
        submission: the videos and their pairs; see `from_elsewhere`. If a video file is absent, its result rows get the
            reason `missing-output`.
        data: folder of the shard set that the pairs were drawn from.
        out, scoring, options: as in `run`.

    Raises:
        UserError: the pairs were drawn from other data or with other rules; or the folder is absent; or the folder
            contains no video.
    """
    started = time.monotonic()
    scoring, options, shards = scoring or Scoring(), options or RunOptions(), ShardSet(data)
    metrics = check_submission(submission, shards, scoring)
    files = scoring.model_files(data)
    submission = _with_check(submission, metrics, scoring)
    extra = _registration_columns(metrics, submission, files)
    wanted = {submission.setting.name: [*metrics, *extra]}
    uncounted = {metric.key for metric in extra}
    scored = score_submissions([submission], wanted, scoring, shards, out, options, files, uncounted)
    return RunSummary(
        scored,
        pairs=len(submission.pairs.pairs),
        generated=0,
        kept=scored.kept,
        seconds=time.monotonic() - started,
        not_computed=_not_computed(scoring, [submission.setting], files),
    )


def _registration_columns(metrics: Sequence[Metric], submission: Submission, files: ModelFiles) -> list[Metric]:
    """The metrics that show the registration of videos from elsewhere on the board, if the user did not name them."""
    if submission.check == "off":
        return []
    return [metric for key in REGISTRATION if (metric := get_metric(key, files)) not in metrics]


def check_submission(submission: Submission, shards: ShardSet, scoring: Scoring) -> list[Metric]:
    """Checks a submission before anything is written; returns the metrics that are valid in its setting.

    Raises UserError if the videos do not belong to these shards and to the rules of this setting, or if no metric that
    the user named is valid in the setting.
    """
    metrics = scoring.in_setting(submission.setting, scoring.model_files(shards.folder))
    pair_list, setting, videos = submission.pairs, submission.setting, submission.videos
    if pair_list.data_digest != shards.digest:
        raise UserError(
            f"the pairs were drawn from data {pair_list.data_digest[:12]}, but {shards.folder} is "
            f"{shards.digest[:12]}; give the shard set they belong to with --data"
        )
    if pair_list.rules != setting.digest:
        raise UserError(f"the pairs follow other rules of {setting.name} ({pair_list.rules}) than this suite has")
    if not videos.is_dir():
        raise UserError(f"no folder {videos}")
    check_video_pattern(submission.pattern)
    if submission.name in catalogue():
        raise UserError(f"{submission.name} is a method of the catalogue; give your videos another --method-name")
    if not any(submission.video(pair).exists() for pair in pair_list.pairs):
        first = submission.video(pair_list.pairs[0]).name
        raise UserError(
            f"{videos} holds none of the {len(pair_list.pairs)} videos; a file there should be named {first}"
        )
    return metrics
