"""Defines the fields of result rows that `measure`, `score` and `run` fill in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypedDict

from cmet_eval.measuring.score_records import StoredScore, VideoScores
from cmet_metrics.base import Metric
from talking_face.clip import Pair
from talking_face.names import storable
from talking_face.origin import Origin
from talking_face.reasons import ClipError, Reason

Outcome = VideoScores | ClipError  # the scores of a video, or the reason why it has none


class DataFields(TypedDict):
    """The fields that state the data of a row; see `ResultRow`."""

    dataset: str
    origin: Origin
    data_digest: str
    data_signature: str


class SharedFields(DataFields):
    """The fields that are the same in all rows of one method in one setting; see `ResultRow`."""

    setting: str
    method: str
    revision: str
    pairs_digest: str
    rules: str
    profile: str
    suite_version: str


class PairFields(TypedDict):
    """The fields that are the same in all rows of one pair; see `ResultRow`."""

    pair_id: str
    seed: int | None
    speaker: str | None
    reference_emotion: str | None
    target_emotion: str | None
    intensity: int | None
    ground_truth_clip: str | None


class ScoreFields(TypedDict):
    """The fields of one metric's score; see `ResultRow`."""

    metric: str
    signature: str
    higher_is_better: bool
    ideal: float | None
    unit: str
    value: float | None
    reason: str | None
    detail: str
    n: int
    stats: Mapping[str, float]


def pair_fields(pair: Pair) -> PairFields:
    """The fields of a pair of a pair list."""
    return PairFields(
        pair_id=pair.pair_id,
        seed=pair.seed,
        speaker=pair.speaker,
        reference_emotion=pair.reference_emotion,
        target_emotion=pair.target_emotion,
        intensity=pair.intensity,
        ground_truth_clip=pair.ground_truth_clip,
    )


def score_fields(metric: Metric, signature: str, score: StoredScore) -> ScoreFields:
    """The fields of a score. `signature`: the metric's signature with the rules of the treatment."""
    return ScoreFields(
        metric=metric.key,
        signature=signature,
        higher_is_better=metric.higher_is_better,
        ideal=metric.ideal,
        unit=metric.unit,
        value=score.value,
        reason=score.reason.value if score.reason else None,
        detail=score.detail,
        n=score.n,
        stats=score.stats,
    )


def score_of(metric: Metric, outcome: Outcome) -> StoredScore:
    """The metric's score in the outcome of a video."""
    if isinstance(outcome, ClipError):
        return without_value(metric, outcome.reason, outcome.detail)
    return outcome.by_metric.get(metric.key) or without_value(metric, Reason.CRASHED, "no score; run again")


def without_value(metric: Metric, reason: Reason, detail: str) -> StoredScore:
    """A score that has a reason in place of a value."""
    return StoredScore(metric.key, None, reason, storable(detail), 0, {})
