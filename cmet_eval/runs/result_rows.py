"""Creates the result rows of a submission from its scores, and summarizes the result rows without a value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from cmet_eval.measuring.registration_check import Registration
from cmet_eval.measuring.rows import (
    DataFields,
    Outcome,
    SharedFields,
    pair_fields,
    score_fields,
    score_of,
    without_value,
)
from cmet_eval.measuring.score_records import StoredScore, VideoScores
from cmet_eval.runs.leakage import unfair_metrics
from cmet_eval.runs.records import GenerationRecord, read_generation
from cmet_eval.runs.submissions import Submission
from cmet_leaderboards.row import ResultRow
from cmet_metrics.base import Metric
from cmet_metrics.registry import Profile
from talking_face.clip import Pair
from talking_face.lines import one_line
from talking_face.reasons import ClipError, Reason

if TYPE_CHECKING:  # imports PyArrow
    from cmet_pipelines.shards import ShardSet

_ALLOWED = "misregistered, compared as it is (--allow-misregistered)"  # a note
# Reasons that do not count as a loss: the value is infinite, or the pair has nothing that the metric can measure. In
# both cases, scoring again would give the same result.
_NOT_LOST = (Reason.INFINITE.value, Reason.NOT_ASKED.value)


@dataclass(frozen=True)
class Loss:
    """The scores that one method lost for one reason."""

    videos: int  # number of the method's videos with a lost score, in all settings
    of: int  # number of all videos of the method, in all settings
    metrics: tuple[str, ...]  # keys of the lost metrics, sorted; empty: all requested metrics are lost
    example: str  # message of the first lost score
    log: str = ""  # path of the log file of the example, relative to the run\'s folder

    def __str__(self) -> str:
        where = f" in {', '.join(self.metrics)}" if self.metrics else ""
        log = f" (log: {self.log})" if self.log else ""
        return f"{self.videos} of {self.of} videos{where}, such as: {self.example}{log}"


def data_fields(shards: ShardSet) -> DataFields:
    """The fields of rows that are made on a shard set. Raises the errors of `ShardSet`."""
    return DataFields(
        dataset=", ".join(sorted({str(name) for name in shards.clips["dataset"]})),
        origin=shards.origin,
        data_digest=shards.digest,
        data_signature=shards.signature,
    )


@dataclass(frozen=True)
class RowMaker:
    """Creates the result rows of one submission, one per pair and metric."""

    submission: Submission
    metrics: Sequence[Metric]
    shared: SharedFields
    signatures: Mapping[str, str]  # by metric key
    unfair: frozenset[str]  # keys of metrics that must not score the method; see leakage.py

    @classmethod
    def of(
        cls, submission: Submission, metrics: Sequence[Metric], shards: ShardSet, profile: Profile, suite: str
    ) -> RowMaker:
        """Creates the row maker of a submission. `suite` is the version of the suite."""
        shared = SharedFields(
            setting=submission.setting.name,
            method=submission.name,
            revision=str(submission.method["revision"]),
            **data_fields(shards),
            pairs_digest=submission.pairs.digest,  # computed only once, because it takes 30 ms for 1,143 pairs
            rules=submission.setting.digest,
            profile=profile,
            suite_version=suite,
        )
        signatures = {metric.key: submission.rules.signature(metric) for metric in metrics}
        return cls(submission, metrics, shared, signatures, unfair_metrics(submission.method, metrics, shards))

    def rows(self, outcomes: Mapping[str, Outcome], registration: Registration | None = None) -> Iterator[ResultRow]:
        """The result rows of all pairs.

        Args:
            outcomes: by `Submission.key`.
            registration: how the videos coincide with the ground truth; None: it was not measured. Metrics that compare
                a misregistered video with its ground truth get the reason `misregistered`, unless the submission allows
                such videos.
        """
        for pair in self.submission.pairs.pairs:
            outcome = outcomes[self.submission.key(pair)]
            fault = registration.fault(pair.pair_id) if registration and isinstance(outcome, VideoScores) else ""
            record = self.submission.record(pair)
            made = read_generation(record) if record else None
            for metric in self.metrics:
                score = self._score(metric, outcome)
                note = ""
                if fault and score.value is not None and metric.needs_target and not metric.measures_framing:
                    allowed = self.submission.check == "allow"
                    score = score if allowed else without_value(metric, Reason.MISREGISTERED, fault)
                    note = _ALLOWED if allowed else ""
                yield self._row(pair, metric, score, outcome, made, note)

    def _score(self, metric: Metric, outcome: Outcome) -> StoredScore:
        if metric.key in self.unfair:
            detail = f"{self.submission.name} shows clips that the evaluator was trained on"
            return without_value(metric, Reason.TRAINED_ON, detail)
        return score_of(metric, outcome)

    def _row(
        self,
        pair: Pair,
        metric: Metric,
        score: StoredScore,
        outcome: Outcome,
        made: GenerationRecord | None,
        note: str,
    ) -> ResultRow:
        scores = None if isinstance(outcome, ClipError) else outcome
        return ResultRow(
            **self.shared,
            **pair_fields(pair),
            **score_fields(metric, self.signatures[metric.key], score),
            notes="; ".join(filter(None, [*(made.notes if made else ()), *(scores.notes if scores else ()), note])),
            codec=(made.codec if made else "") or (scores.codec if scores else ""),
            video_sha256=scores.video_sha256 if scores else None,
        )


def losses(
    rows: Sequence[ResultRow], log_of: Callable[[ResultRow], str] = lambda row: ""
) -> dict[tuple[str, str], Loss]:
    """Summarizes the result rows without a value, by (method, reason).

    Infinite values and metrics that were not requested do not count. `log_of` returns the path of the log file of a
    row's pair; it returns "" if there is no log file.
    """
    videos: dict[str, set[tuple[str, str]]] = {}
    asked: dict[str, set[str]] = {}
    found: dict[tuple[str, str], list[ResultRow]] = {}
    for row in rows:
        videos.setdefault(row.method, set()).add((row.setting, row.pair_id))
        asked.setdefault(row.method, set()).add(row.metric)
        if row.reason and row.reason not in _NOT_LOST:
            found.setdefault((row.method, row.reason), []).append(row)
    result = {}
    for (method, reason), lost in found.items():
        metrics = {row.metric for row in lost}
        result[method, reason] = Loss(
            videos=len({(row.setting, row.pair_id) for row in lost}),
            of=len(videos[method]),
            metrics=() if metrics == asked[method] else tuple(sorted(metrics)),
            example=one_line(lost[0].detail, 200),
            log=log_of(lost[0]) if reason == Reason.METHOD_FAILED.value else "",
        )
    return result


def weights_to_get(rows: Iterable[ResultRow]) -> tuple[str, ...]:
    """One line of text per missing weight file, with the metrics that need the file."""
    absent: dict[str, set[str]] = {}
    for row in rows:
        if row.reason == Reason.MISSING_WEIGHTS.value:
            absent.setdefault(one_line(row.detail), set()).add(row.metric)
    return tuple(f"{', '.join(sorted(keys))}: {detail}" for detail, keys in sorted(absent.items()))
