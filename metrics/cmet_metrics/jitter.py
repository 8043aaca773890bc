"""Measures landmark jitter: how much the rigid points of the face tremble from frame to frame.

The metric is not from a paper. It measures the second difference of each point's position over time. A point that moves
at constant speed has a second difference of 0. If independent noise with standard deviation s is added to each
coordinate in each frame, the second difference has a mean length of s * sqrt(6) * sqrt(pi / 2) = 3.07 s. Speech moves
the mouth, so the points of the mouth are not used.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cmet_metrics.base import Metric, Sample, Score, Settings, Variant
from cmet_metrics.landmarks import MEDIAPIPE_MS, RIGID, eye_distance, mediapipe_68, need_faces, points_id
from talking_face.media import FPS
from talking_face.reasons import ClipError, Reason

MIN_VALID = 0.5  # minimum share of inner frames that have a face and whose two neighbours have a face
MIN_FRAMES = 3
Measure = Literal["output", "ratio"]


def jitter(points: np.ndarray) -> np.ndarray:
    """Mean length of the second difference of the rigid points, in percent of the median distance between the eyes.

    Args:
        points: (T, 68, 2), T >= 3, any unit, NaN for frames without a face.

    Returns:
        (T - 2,) float64, one value per inner frame; NaN if the frame or a neighbour has no face.

    Example:
        >>> steady = np.arange(5.0)[:, None, None] + np.random.default_rng(0).normal(size=(68, 2))
        >>> bool(np.allclose(jitter(steady), 0))
        True
    """
    if points.ndim != 3 or points.shape[1:] != (68, 2) or len(points) < MIN_FRAMES:
        raise ValueError(f"points must be (T >= {MIN_FRAMES}, 68, 2), got {points.shape}")
    bend = np.diff(points[:, RIGID].astype(np.float64), n=2, axis=0)
    eyes = eye_distance(points)
    if not np.isfinite(eyes).any():
        return np.full(len(bend), np.nan)
    return np.asarray(100 * np.linalg.norm(bend, axis=-1).mean(axis=-1) / np.nanmedian(eyes))


@dataclass(frozen=True, kw_only=True)
class Jitter(Metric):
    """Mean jitter of the generated clip (`output`), or this mean divided by the mean of the real clip (`ratio`).

    The mean is over the inner frames: all frames except the first and the last.

    A low `output` is not always good: a still picture has 0. Compare `output` with the value of the ground truth, or
    use `ratio`. A ratio of 1 means that the generated head is as steady as the real head. A ratio above 1 means that
    the generated head trembles more. A ratio below 1 means that the generated head moves more smoothly. A still
    picture has a ratio of 0. If the real clip has no jitter at all, `ratio` has no value (reason `not-finite`).
    `output` is defined at 25 frames/s, because the motion between two frames depends on the time between them; other
    rates give the reason `rate-mismatch`.

    Stats: jitter (sum), frames; for `ratio` also real_jitter (sum) and real_frames.
    """

    measure: Measure = "output"

    name = "jitter"
    title = "Jitter"
    pitfalls = (
        "A still picture has the value 0, so a low output is not always good: compare it with the value of the "
        "real clips, or use ratio. MediaPipe's smoothing hides part of the shaking."
    )
    higher_is_better = False
    order = 130
    limits = (0.0, math.inf)
    weights = ("face_landmarker",)
    variants_are_protocols = False
    source = "this suite"
    variants = {
        "jitter:output": Variant("trembling of the generated head: second difference of MediaPipe's rigid points"),
        "jitter:ratio": Variant(
            "trembling of the generated head over that of the real one; 1 is right", {"measure": "ratio"}
        ),
    }

    @property
    def version(self) -> str:
        # 1.1.0: `output` has a value even if the ground truth has no face
        return "1.1.0" if self.measure == "output" else "1.0.0"

    @property
    def unit(self) -> str:
        return "% of eyes" if self.measure == "output" else ""

    @property
    def ideal(self) -> float | None:
        return 1.0 if self.measure == "ratio" else None

    @property
    def needs_target(self) -> bool:
        return self.measure == "ratio"

    @property
    def ms_per_frame(self) -> float:
        return MEDIAPIPE_MS if self.measure == "output" else 2 * MEDIAPIPE_MS

    @property
    def worsened_by(self) -> frozenset[str]:
        return frozenset({"frames-held"} if self.measure == "output" else ())

    @property
    def unchanged_by(self) -> frozenset[str]:
        still = {"reencode", "move", "codec", "mouth-frozen", "mouth-amplitude"}
        return frozenset(still if self.measure == "output" else ())

    def settings(self) -> Settings:
        rigid = {"points": points_id(), "part": "eye-corners-nose", "difference": "second"}
        return {**rigid, "scale": "100-per-eye-distance", "min-valid": MIN_VALID, "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        if self.measure == "output" and pred.fps != FPS:
            # The motion between two frames depends on the time between them.
            raise ClipError(Reason.RATE_MISMATCH, f"{pred.name} has {pred.fps:g} frames/s; jitter needs {FPS:g}")
        ours = self._inner(pred)
        value, frames = float(ours.mean()), len(ours)
        stats = {"jitter": float(ours.sum()), "frames": float(frames)}
        if self.measure == "output":
            return Score(value, frames, None, "", stats)
        real = self._inner(target)
        stats |= {"real_jitter": float(real.sum()), "real_frames": float(len(real))}
        if float(real.mean()) == 0:
            return Score.missing(Reason.NOT_FINITE, f"{target.name} does not move at all", stats)
        return Score(value / float(real.mean()), frames, None, "", stats)

    def _inner(self, sample: Sample) -> np.ndarray:
        """The jitter of the inner frames that have a value.

        Raises ClipError with reason too-short, no-face or few-faces.
        """
        if len(sample.frames) < MIN_FRAMES:
            short = f"{sample.name} has {len(sample.frames)} frames; {MIN_FRAMES} needed"
            raise ClipError(Reason.TOO_SHORT, short)
        values = jitter(mediapipe_68(sample, self.files))
        need_faces(sample.name, np.isfinite(values), MIN_VALID)
        return values[np.isfinite(values)]


METRICS = (Jitter,)
