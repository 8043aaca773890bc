"""Landmark jitter: how much the face's rigid points tremble from frame to frame.

Not from a paper. A point that moves steadily has a second difference of 0; one displaced by independent noise of
deviation s a frame in each coordinate has one of length s * sqrt(6) * sqrt(pi / 2) = 3.07 s on average. Speech moves
the mouth, so it is left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.landmarks import RIGID, eye_distance, mediapipe_68, need_faces, points_id
from talking_face.reasons import ClipError, Reason

MIN_VALID = 0.5  # share of the inner frames that must have a face in themselves and both neighbours
MIN_FRAMES = 3


def jitter(points: np.ndarray) -> np.ndarray:
    """Mean length of the rigid points' second difference, in percent of the clip's median distance between the eyes.

    Args:
        points: (T, 68, 2), T >= 3, any unit, NaN in frames without a face.

    Returns:
        (T - 2,) float64, of the inner frames; NaN where a frame or a neighbour has no face.

    Example:
        >>> steady = np.arange(5.0)[:, None, None] + np.random.default_rng(0).normal(size=(68, 2))
        >>> bool(np.allclose(jitter(steady), 0))
        True
    """
    if points.ndim != 3 or len(points) < MIN_FRAMES:
        raise ValueError(f"points must be (T >= {MIN_FRAMES}, 68, 2), got {points.shape}")
    bend = np.diff(points[:, RIGID].astype(np.float64), n=2, axis=0)
    eyes = eye_distance(points)
    if not np.isfinite(eyes).any():
        return np.full(len(bend), np.nan)
    return np.asarray(100 * np.linalg.norm(bend, axis=-1).mean(axis=-1) / np.nanmedian(eyes))


class Jitter(Metric):
    """Of the generated clip alone: the mean over its inner frames.

    A low value is not a good one by itself: a frozen picture has 0. Read it beside `ratio`, or the ground truth's row.
    Stats: jitter (sum), frames.
    """

    name = "jitter"
    variant = "output"
    higher_is_better = False
    unit = "% of eyes"
    summary = "trembling of the generated head: second difference of MediaPipe's rigid points"
    version = "1.1.0"  # 1.0.0 had no value where the ground truth has no face
    needs_target = False

    def settings(self) -> Mapping[str, Any]:
        rigid = {"points": points_id(), "part": "eye-corners-nose", "difference": "second"}
        return {**rigid, "scale": "100-per-eye-distance", "min-valid": MIN_VALID, "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        ours = self._inner(pred)
        return Score(float(ours.mean()), len(ours), None, "", {"jitter": float(ours.sum()), "frames": float(len(ours))})

    @staticmethod
    def _inner(sample: Sample) -> np.ndarray:
        """The values of the frames that have one. Raises ClipError too-short, no-face or few-faces."""
        if len(sample.frames) < MIN_FRAMES:
            short = f"{sample.name} has {len(sample.frames)} frames; {MIN_FRAMES} needed"
            raise ClipError(Reason.TOO_SHORT, short)
        values = jitter(mediapipe_68(sample))
        need_faces(sample.name, np.isfinite(values), MIN_VALID)
        return values[np.isfinite(values)]


class JitterRatio(Jitter):
    """The generated clip's jitter over the real one's: 1 is as steady as the real head, above trembles, below is
    smoother than life (0: frozen). A real clip without any jitter, a still picture, gives `not-finite`.
    Stats: jitter, frames, real_jitter, real_frames (sums and counts).
    """

    variant = "ratio"
    ideal = 1.0
    unit = ""
    summary = "trembling of the generated head over that of the real one; 1 is right"
    version = "1.0.0"
    needs_target = True

    def compute(self, pred: Sample, target: Sample) -> Score:
        ours, real = super().compute(pred, pred), super().compute(target, target)
        assert ours.value is not None and real.value is not None
        stats = {**ours.stats, **{f"real_{name}": value for name, value in real.stats.items()}}
        if real.value == 0:
            return Score.missing(Reason.NOT_FINITE, f"{target.name} does not move at all", stats)
        return Score(ours.value / real.value, ours.n, None, "", stats)
