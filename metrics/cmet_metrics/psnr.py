"""PSNR: peak signal-to-noise ratio in dB, as the mean of the frames' values or from the pooled squared error, of the
whole frame, its lower half, or a square on the mouth."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import cv2
import numpy as np

from cmet_metrics.base import Sample, Score, check_same_size
from cmet_metrics.frames import FrameByFrame, pair_frames
from cmet_metrics.landmarks import eye_distance, mediapipe_68, need_faces, points_id
from talking_face.faces.points68 import MOUTH
from talking_face.reasons import ClipError, Reason

Region = Literal["full", "lower-half", "mouth"]

MOUTH_SIDE = 1.2  # side of the mouth's square, in distances between the eye centres: lips and 0.2 of cheek each side
# A clip of which fewer than this share of the target's frames has a face gets a reason.
MIN_VALID = 0.5


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


def mouth_boxes(target: Sample) -> tuple[np.ndarray, int]:
    """Where the real clip's mouth is: a square of one size for the clip, moved with the mouth.

    Args:
        target: the real clip; MediaPipe's points are found on its frames, once a sample.

    Returns:
        (T, 2) float64, the left upper corner (x, y) in whole px, NaN in frames without a face; and the side in px. The
        square is 1.2 times the clip's median distance between the eye centres (at most the frame), centred on the mean
        of the 20 mouth points, and kept inside the frame.

    Raises:
        ClipError: no-face or few-faces.
    """
    points = mediapipe_68(target)
    found = np.isfinite(points).all(axis=(1, 2))
    need_faces(target.name, found, MIN_VALID)
    height, width = target.frames.shape[1:3]
    side = min(height, width, round(MOUTH_SIDE * float(np.median(eye_distance(points[found])))))
    corner = np.rint(points[:, MOUTH].mean(axis=1) - side / 2)
    return np.clip(corner, 0, (width - side, height - side)), side


class Psnr(FrameByFrame):
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
    region: ClassVar[Region] = "full"

    def settings(self) -> Mapping[str, Any]:
        region: dict[str, Any] = {}
        if self.region == "lower-half":
            region = {"region": "rows-from-half"}
        if self.region == "mouth":
            region = {"region": f"mouth-{MOUTH_SIDE:g}-eyes", "points": points_id(), "min-valid": MIN_VALID}
        return {**super().settings(), "identical": "left-out", **region, "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        stats = self._stats(pred, target)
        if not stats["frames"]:
            return Score.missing(Reason.INFINITE, "every frame is identical to its target", stats)
        detail = f"{stats['identical']:.0f} identical frames left out" if stats["identical"] else ""
        return Score(stats["db"] / stats["frames"], int(stats["frames"]), None, detail, stats)

    def _stats(self, pred: Sample, target: Sample) -> dict[str, float]:
        a, b = self._crops(pred, target)
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

    def _crops(self, pred: Sample, target: Sample) -> tuple[np.ndarray, np.ndarray]:
        """The region in both clips; frames without a face in the target are left out of `mouth`."""
        if self.region != "mouth":
            a, b = self.paired(pred, target)
            top = a.shape[1] // 2 if self.region == "lower-half" else 0
            return a[:, top:], b[:, top:]
        check_same_size(pred, target)
        i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
        corners, side = mouth_boxes(target)
        keep = np.isfinite(corners[j]).all(axis=1)
        if not keep.any():
            raise ClipError(Reason.NO_FACE, f"{target.name}: no face in the paired frames")
        a, b = (
            np.stack(
                [sample.frames[t][y : y + side, x : x + side] for t, (x, y) in zip(index[keep], where, strict=True)]
            )
            for where in [corners[j][keep].astype(int)]
            for sample, index in ((pred, i), (target, j))
        )
        return a, b


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


class LowerHalfPsnr(Psnr):
    """`frame-mean` of the rows from H // 2 down: what methods that keep the upper half of the real frame generate."""

    variant = "lower-half"
    summary = "PSNR of the lower half of the frame, mean of the frames' dB"
    region = "lower-half"


class MouthPsnr(Psnr):
    """`frame-mean` of a square on the real clip's mouth (`mouth_boxes`)."""

    variant = "mouth"
    summary = "PSNR of a square on the real mouth, mean of the frames' dB"
    region = "mouth"


class PooledLowerHalfPsnr(PooledPsnr):
    """`pooled` of the rows from H // 2 down."""

    variant = "pooled-lower-half"
    summary = "PSNR of the lower half of the frame, pooled over frames and clips"
    region = "lower-half"


class PooledMouthPsnr(PooledPsnr):
    """`pooled` of a square on the real clip's mouth (`mouth_boxes`)."""

    variant = "pooled-mouth"
    summary = "PSNR of a square on the real mouth, pooled over frames and clips"
    region = "mouth"
