"""Registration residual: how far, how large and how turned the generated head is beside the real one.

PSNR and SSIM fall by several dB for a shift of one pixel; these three numbers say whether that is what they measured.
Not from a paper: the fit is Umeyama's least-squares similarity (1991, eqs. 38-43) of the face's rigid points.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from cmet_metrics.base import Metric, Sample, Score, check_same_size
from cmet_metrics.frames import FrameRule, pair_frames
from cmet_metrics.landmarks import RIGID, mediapipe_68, need_faces, points_id
from talking_face.faces.eat import similarity

MIN_VALID = 0.5  # share of frames that must have a face in both clips


class Residual(NamedTuple):
    """Of each frame, NaN without a face: the similarity that takes the real rigid points to the generated ones."""

    shift: np.ndarray  # (T, 2) px, x and y, of the points' mean: it depends on no choice of origin
    scale: np.ndarray  # (T,) size of the generated over the real, 1 where equal
    rotation: np.ndarray  # (T,) degrees, positive clockwise on the picture


def residual(pred: np.ndarray, target: np.ndarray) -> Residual:
    """Shift, scale and rotation between two tracks of points.

    Args:
        pred, target: (T, 68, 2) in the same pixels, NaN in frames without a face.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(1, 68, 2))
        >>> found = residual(2 * points + 3, points)
        >>> found.scale.round(6).tolist(), found.rotation.round(6).tolist()
        ([2.0], [0.0])
    """
    if pred.shape != target.shape or pred.ndim != 3:
        raise ValueError(f"pred and target must both be (T, 68, 2), got {pred.shape} and {target.shape}")
    a, b = pred[:, RIGID].astype(np.float64), target[:, RIGID].astype(np.float64)
    scale, rotation = np.full(len(a), np.nan), np.full(len(a), np.nan)
    for t in np.flatnonzero(np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))):
        matrix = similarity(b[t], a[t])
        scale[t] = np.hypot(matrix[0, 0], matrix[1, 0])
        rotation[t] = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return Residual(a.mean(axis=1) - b.mean(axis=1), scale, rotation)


class Registration(Metric):
    """Mean over frames of the length of the shift in px of the frame; `scale` and `rotation` are variants.

    One pass for all three. Frames without a face in either clip are left out; under half of them left: `few-faces`.
    Stats: frames, pairs, shift, scale, rotation (sums of sizes), dx, dy, log_scale, turn (sums with their signs, so
    that a constant error shows: dx of 100 frames at 200 is 2 px to the right throughout).
    """

    name = "registration"
    variant = "shift"
    higher_is_better = False
    unit = "px"
    summary = "shift of the generated head beside the real one, MediaPipe's rigid points"
    frames: FrameRule = "exact"

    def settings(self) -> Mapping[str, Any]:
        rigid = {"points": points_id(), "part": "eye-corners-nose", "fit": "similarity"}
        return {**rigid, "frames": self.frames, "min-valid": MIN_VALID, "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        check_same_size(pred, target)
        i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
        found = residual(mediapipe_68(pred)[i], mediapipe_68(target)[j])
        ok = np.isfinite(found.scale)
        need_faces(f"{pred.name} and {target.name}", ok, MIN_VALID)
        shift, log_scale, turn = found.shift[ok], np.log(found.scale[ok]), found.rotation[ok]
        sizes = {
            "shift": float(np.linalg.norm(shift, axis=1).sum()),
            "scale": float(100 * np.abs(np.expm1(log_scale)).sum()),
            "rotation": float(np.abs(turn).sum()),
        }
        signed = {"dx": shift[:, 0].sum(), "dy": shift[:, 1].sum(), "log_scale": log_scale.sum(), "turn": turn.sum()}
        n = int(ok.sum())
        stats = {"frames": float(n), "pairs": float(len(ok)), **sizes, **{k: float(v) for k, v in signed.items()}}
        detail = f"{n} of {len(ok)} pairs have a face in both" if n < len(ok) else ""
        return Score(sizes[self.variant] / n, n, None, detail, stats)


class ScaleRegistration(Registration):
    """Mean over frames of the difference in size, in percent of the real head's."""

    variant = "scale"
    unit = "%"
    summary = "difference in size of the generated head and the real one, MediaPipe's rigid points"


class RotationRegistration(Registration):
    """Mean over frames of the in-plane turn between the heads, in degrees."""

    variant = "rotation"
    unit = "deg"
    summary = "in-plane turn of the generated head beside the real one, MediaPipe's rigid points"
