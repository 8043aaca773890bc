"""Computes PSNR: the peak signal-to-noise ratio in dB, of the whole frame, its lower half, or a square on the mouth.

The value of a clip is the mean of its frames' PSNR, or the PSNR of the squared error pooled over its frames.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np

from cmet_metrics.base import Sample, Score, Settings, Variant, check_same_size
from cmet_metrics.frames import FrameByFrame, pair_frames
from cmet_metrics.landmarks import MEDIAPIPE_MS, eye_distance, mediapipe_68, need_faces, points_id
from cmet_metrics.pictures import check_two, peak
from talking_face.faces.points68 import MOUTH
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason

Region = Literal["full", "lower-half", "mouth"]
Pooling = Literal["frame-mean", "pooled"]

MOUTH_SIDE = 1.2  # side of the square on the mouth, in eye distances: the lips plus 0.2 on each side
# A clip gets a reason if fewer than this share of the target's frames has a face.
MIN_VALID = 0.5


def squared_error(pred: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The sum of the squared differences between two clips, for each frame.

    Args:
        pred, target: (T, H, W, C), uint8 or float, same shape, 1 or 3 channels in any order, same range of values.

    Returns:
        (T,) float64; exact for uint8. Raises TypeError or ValueError for arrays of another form.
    """
    check_two(pred, target)
    out = np.empty(len(pred))
    for t, (a, b) in enumerate(zip(pred, target, strict=True)):
        if a.dtype == np.uint8 and b.dtype == np.uint8:
            # OpenCV adds uint8 values as integers, ten times as fast as numpy with a float64 copy. The order of the
            # channels does not change the sum.
            out[t] = cv2.norm(a, b, cv2.NORM_L2SQR)
        else:
            d = a.astype(np.float64) - b.astype(np.float64)
            out[t] = np.vdot(d, d)
    return out


def psnr(pred: np.ndarray, target: np.ndarray, data_range: float | None = None) -> np.ndarray:
    """PSNR of each frame: 10 log10(data_range^2 / MSE).

    MSE is the mean squared error over all pixels and channels of the frame.

    Args:
        pred, target: (T, H, W, C), uint8 or float, 1 or 3 channels in any order, same shape.
        data_range: the largest possible difference between two pixels: 255 for 0..255, 1 for 0..1, 2 for -1..1. None
            means 255. For floats, None is an error if a value is below 0 or above 255, or if all values are below 4.

    Returns:
        (T,) float64 in dB; inf if the frames are identical, NaN if one of them contains NaN.

    Raises:
        TypeError or ValueError: the arrays have another form, such as (T, C, H, W) or uint16, their range is not known,
            or their values differ by more than `data_range`.

    Example:
        >>> black = np.zeros((1, 16, 16, 3), np.uint8)
        >>> psnr(black, black + 51).round(3).tolist()
        [13.979]
    """
    error = squared_error(pred, target)
    data_range = peak(pred, target, data_range)
    mse = error / max(1, pred[0].size if len(pred) else 1)
    with np.errstate(divide="ignore"):
        return 10.0 * np.log10(data_range**2 / mse)


def mouth_boxes(target: Sample, files: ModelFiles) -> tuple[np.ndarray, int]:
    """A square around the mouth in the real clip. Its size is constant, and its position follows the mouth.

    Args:
        target: the real clip; MediaPipe's points are found on its frames, once per sample.
        files: where the landmarker's file is searched for.

    Returns:
        (T, 2) float64, the left upper corner (x, y) in whole px, NaN for frames without a face; and the side in px. The
        side is 1.2 times the clip's median distance between the eye centres, but not more than the frame's height or
        width. The square's centre is the mean of the 20 mouth points; near an edge, the square is moved into the frame.

    Raises:
        ClipError: no-face or few-faces.
    """
    points = mediapipe_68(target, files)
    found = np.isfinite(points).all(axis=(1, 2))
    need_faces(target.name, found, MIN_VALID)
    height, width = target.frames.shape[1:3]
    side = min(height, width, round(MOUTH_SIDE * float(np.median(eye_distance(points[found])))))
    corner = np.rint(points[:, MOUTH].mean(axis=1) - side / 2)
    return np.clip(corner, 0, (width - side, height - side)), side


@dataclass(frozen=True, kw_only=True)
class Psnr(FrameByFrame):
    """PSNR of the whole frame, of the rows from H // 2 downwards, or of a square on the real clip's mouth.

    `frame-mean`: the mean of the frames' PSNR, then the mean over clips. A frame that is identical to its target has no
    finite PSNR. Such a frame is counted in the stats as `identical` and left out of the mean. If all frames are
    identical, the clip has no value (reason `infinite`) and is left out of the mean over clips.

    `pooled`: the squared error is pooled over all frames of a clip, or of all clips in a set, and gives one PSNR.
    Identical frames have an error of zero and are included. A clip without a value (reason `infinite`) is included too.
    A set has no value only if all its frames are identical.

    Stats: db (sum), frames (number of frames that are not identical), identical, squared_error (sum), elements (pixels
    times channels).
    """

    region: Region = "full"
    pooling: Pooling = "frame-mean"

    name = "psnr"
    title = "PSNR"
    pitfalls = (
        "A shift of 1 px costs several dB: PSNR measures registration as much as quality. frame-mean leaves out "
        "frames that are identical to their target, so a method that copies frames is judged on its other frames "
        "only; pooled includes them."
    )
    unit = "dB"
    higher_is_better = True
    order = 10
    limits = (0.0, math.inf)
    worsened_by = frozenset({"reencode", "move", "blur", "jpeg", "identity-swap", "frames-held"})
    source = "10 log10(255^2 / MSE) over all pixels and channels of RGB; see Huynh-Thu and Ghanbari 2008"
    bibtex = """@article{huynhthu2008psnr,
  author = {Huynh-Thu, Quan and Ghanbari, Mohammed},
  title = {Scope of validity of {PSNR} in image/video quality assessment},
  journal = {Electronics Letters}, volume = {44}, number = {13}, pages = {800--801}, year = {2008}}"""
    variants = {
        "psnr:frame-mean": Variant("peak signal-to-noise ratio on RGB, mean of the frames' dB"),
        "psnr:pooled": Variant(
            "peak signal-to-noise ratio on RGB from the squared error pooled over frames and clips",
            {"pooling": "pooled"},
        ),
        "psnr:lower-half": Variant(
            "PSNR of the lower half of the frame, mean of the frames' dB", {"region": "lower-half"}
        ),
        "psnr:mouth": Variant("PSNR of a square on the real mouth, mean of the frames' dB", {"region": "mouth"}),
        "psnr:pooled-lower-half": Variant(
            "PSNR of the lower half of the frame, pooled over frames and clips",
            {"region": "lower-half", "pooling": "pooled"},
        ),
        "psnr:pooled-mouth": Variant(
            "PSNR of a square on the real mouth, pooled over frames and clips",
            {"region": "mouth", "pooling": "pooled"},
        ),
    }

    @property
    def weights(self) -> tuple[str, ...]:
        return ("face_landmarker",) if self.region == "mouth" else ()

    @property
    def ms_per_frame(self) -> float:
        return MEDIAPIPE_MS if self.region == "mouth" else 0.05

    @property
    def pooled(self) -> bool:
        return self.pooling == "pooled"

    def settings(self) -> Settings:
        region: Settings = {}
        if self.region == "lower-half":
            region = {"region": "rows-from-half"}
        if self.region == "mouth":
            points = points_id()
            region = {"region": f"mouth-{MOUTH_SIDE:g}-eyes", "points": points, "min-valid": MIN_VALID}
        identical, mean = ("pooled", "pooled-mse") if self.pooled else ("left-out", "video-mean")
        return {**super().settings(), "identical": identical, **region, "agg": mean}

    def compute(self, pred: Sample, target: Sample) -> Score:
        stats = self._stats(pred, target)
        frames, identical = stats["frames"], stats["identical"]
        value = self.mean_of(stats) if self.pooled else stats["db"] / frames if frames else None
        if value is None:
            return Score.missing(Reason.INFINITE, "every frame is identical to its target", stats)
        if self.pooled:
            return Score(value, int(frames + identical), None, "", stats)
        detail = f"{identical:.0f} identical frames left out" if identical else ""
        return Score(value, int(frames), None, detail, stats)

    def enters(self, score: Score) -> bool:
        return super().enters(score) or (self.pooled and score.reason is Reason.INFINITE)

    def mean_of(self, sums: Mapping[str, float]) -> float | None:
        if not self.pooled:
            return super().mean_of(sums)
        error = sums.get("squared_error", 0.0)
        return 10.0 * math.log10(255.0**2 * sums["elements"] / error) if error > 0 else None

    def _stats(self, pred: Sample, target: Sample) -> dict[str, float]:
        a, b = self._crops(pred, target)
        error = squared_error(a, b)
        differ = error > 0
        per_frame = a[0].size
        db = 10.0 * np.log10(255.0**2 * per_frame / error[differ])
        return {
            "db": math.fsum(db),
            "frames": float(differ.sum()),
            "identical": float((~differ).sum()),
            "squared_error": math.fsum(error),
            "elements": float(error.size * per_frame),
        }

    def _crops(self, pred: Sample, target: Sample) -> tuple[np.ndarray, np.ndarray]:
        """The region of the frames of both clips. For `mouth`, frames in which the target has no face are left out."""
        if self.region != "mouth":
            a, b = self.paired(pred, target)
            top = a.shape[1] // 2 if self.region == "lower-half" else 0
            return a[:, top:], b[:, top:]
        check_same_size(pred, target)
        i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
        corners, side = mouth_boxes(target, self.files)
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


METRICS = (Psnr,)
