"""PSNR: peak signal-to-noise ratio in dB, as the mean of the frames' values or from the pooled squared error."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from metrics.base import Metric, Sample, Score, check_same_size
from metrics.frames import FrameRule, pair_frames
from talking_face.reasons import Reason


def squared_error(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Sum of squared differences of each frame.

    Args:
        pred, target: (T, H, W, C), uint8 or float, same shape.

    Returns:
        (T,) float64; exact for uint8.
    """
    if pred.shape != target.shape:
        raise ValueError(f"pred and target must have the same shape, got {pred.shape} and {target.shape}")
    out = np.empty(len(pred))
    for t, (a, b) in enumerate(zip(pred, target, strict=True)):
        if a.dtype == np.uint8 and b.dtype == np.uint8:
            # OpenCV adds uint8 in integers, ten times as fast as a float64 copy; channel order does not matter.
            out[t] = cv2.norm(a, b, cv2.NORM_L2SQR)
        else:
            d = a.astype(np.float64) - b.astype(np.float64)
            out[t] = np.vdot(d, d)
    return out


def psnr(pred: np.ndarray, target: np.ndarray, data_range: float = 255.0) -> np.ndarray:
    """PSNR of each frame: 10 log10(data_range^2 / MSE), the MSE over all pixels and channels of the frame.

    Args:
        pred, target: (T, H, W, 3), uint8 or float, any colour order, same shape.
        data_range: the largest value a pixel can have.

    Returns:
        (T,) float64 in dB; inf where the frames are identical, NaN where one has a NaN.

    Example:
        >>> black = np.zeros((1, 16, 16, 3), np.uint8)
        >>> psnr(black, black + 51).round(3).tolist()
        [13.979]
    """
    mse = squared_error(pred, target) / max(1, pred[0].size if len(pred) else 1)
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(data_range**2 / mse)


class Psnr(Metric):
    """Mean over frames of the frame's PSNR, then mean over clips.

    A frame identical to its target has no finite PSNR: it is counted (`identical`) and left out of the clip's mean;
    a clip of identical frames only is `infinite`, counted and left out of the mean over clips.
    Stats: db (sum), frames, identical, squared_error, elements (pixels times channels).
    """

    name = "psnr"
    variant = "frame-mean"
    higher_is_better = True
    unit = "dB"
    summary = "peak signal-to-noise ratio on RGB, mean of the frames' dB"

    def __init__(self, frames: FrameRule = "exact") -> None:
        self.frames = frames

    def settings(self) -> Mapping[str, Any]:
        return {
            "colour": "rgb",
            "range": 255,
            "frames": self.frames,
            "identical": "left-out",
            "agg": "video-mean",
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        stats = self._stats(pred, target)
        if not stats["frames"]:
            return Score.missing(Reason.INFINITE, "every frame is identical to its target", stats)
        detail = f"{stats['identical']:.0f} identical frames left out" if stats["identical"] else ""
        return Score(stats["db"] / stats["frames"], int(stats["frames"]), None, detail, stats)

    def _stats(self, pred: Sample, target: Sample) -> dict[str, float]:
        check_same_size(pred, target)
        i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
        a, b = pred.frames[i], target.frames[j]
        error = squared_error(a, b)
        apart = error > 0
        per_frame = a[0].size
        db = 10.0 * np.log10(255.0**2 * per_frame / error[apart])
        return {
            "db": math.fsum(db),
            "frames": float(apart.sum()),
            "identical": float((~apart).sum()),
            "squared_error": math.fsum(error),
            "elements": float(error.size * per_frame),
        }


class PooledPsnr(Psnr):
    """PSNR of the pooled squared error: over all frames of a clip, and over all clips of a set.

    Identical frames take part with an error of zero, so none is left out; only a set that is identical as a whole
    has no value. A clip without a value of its own (`infinite`) still enters the pool.
    """

    variant = "pooled"
    summary = "peak signal-to-noise ratio on RGB from the squared error pooled over frames and clips"

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "identical": "pooled", "agg": "pooled-mse"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        stats = self._stats(pred, target)
        value = self.mean_of(stats)
        if value is None:
            return Score.missing(Reason.INFINITE, "every frame is identical to its target", stats)
        return Score(value, int(stats["frames"] + stats["identical"]), None, "", stats)

    def enters(self, score: Score) -> bool:
        return score.value is not None or score.reason is Reason.INFINITE

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        error = sums.get("squared_error", 0.0)
        return 10.0 * math.log10(255.0**2 * sums["elements"] / error) if error > 0 else None
