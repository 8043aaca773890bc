"""Scores two samples with metrics. If a metric raises an error, only this metric has no value."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from cmet_eval.measuring.score_records import StoredScore
from cmet_metrics.base import Metric, Sample, Score
from talking_face.reasons import ClipError, Reason

# What the user can type if a video does not fit its ground truth, for commands with these options.
REMEDIES = {
    Reason.SIZE_MISMATCH: "--size resize scales the video to its ground truth, --size face-crop crops both to the face",
    Reason.LENGTH_MISMATCH: "--length shorter cuts both to the shorter one, --length linspace samples both evenly",
}


_START_S = 120.0  # s of a deadline for loading networks, which takes 10 s, and much longer from a network disk
_S_PER_FRAME = 2.0  # s of a deadline


def default_deadline(n_frames: float) -> float:
    """Seconds that a video with so many frames may take. All metrics together take 0.7 s per frame on a free core."""
    return _START_S + _S_PER_FRAME * n_frames


def score_compared(
    metric: Metric, samples: tuple[Sample, Sample | None] | ClipError, remedies: Mapping[Reason, str]
) -> StoredScore:
    """The score of one metric.

    Args:
        samples: the video and its ground truth after the treatment, or the error that prevents the comparison.
        remedies: what the user can type for a reason; it is added to the score's detail.
    """
    if isinstance(samples, ClipError):
        score = stored_score(metric.key, Score.missing(samples.reason, samples.detail))
    else:
        score = score_metric(metric, *samples)
    remedy = remedies.get(score.reason) if score.reason else None
    if score.reason is Reason.LENGTH_MISMATCH and not metric.needs_target:
        remedy = None  # the sound is too short
    return replace(score, detail=f"{score.detail}; {remedy}") if remedy else score


def score_metric(metric: Metric, pred: Sample, target: Sample | None) -> StoredScore:
    """The score of one metric. If the metric raises an error, the score has a reason in place of a value.

    The reason is `out-of-memory` for a MemoryError, else `crashed`.
    """
    reason = Reason.CRASHED
    try:
        score: object = metric.score(pred, target)
        if isinstance(score, Score):
            return stored_score(metric.key, score)
        detail = f"compute returned a {type(score).__name__}, not a Score"
    except Exception as error:
        detail = f"{type(error).__name__}: {error} ({_place(metric, error)})"
        reason = Reason.OUT_OF_MEMORY if isinstance(error, MemoryError) else reason
    return stored_score(metric.key, Score.missing(reason, f"{metric.key}: {detail}"))


def _place(metric: Metric, error: Exception) -> str:
    """Where the error was raised, as `file.py:LINE`. A line in the metric's own file is preferred."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if frame.filename == getattr(sys.modules[type(metric).__module__], "__file__", "")]
    frame = (own or frames)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno}"


def stored_score(name: str, score: Score) -> StoredScore:
    """The score in the form in which it is stored. `name`: key of the metric."""
    return StoredScore(
        metric=name,
        value=None if score.value is None else float(score.value),
        reason=score.reason,
        detail=score.detail,
        n=int(score.n),
        stats={name: float(value) for name, value in score.stats.items()},
    )
