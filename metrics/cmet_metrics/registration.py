"""Measures the shift, the size difference and the in-plane rotation between the generated and the real head.

If the head is shifted by one pixel, PSNR falls by several dB. These three values show whether such a shift is the
reason for a low PSNR. The metric is not from a paper. It fits a similarity transform to the face's rigid points,
by Umeyama's least-squares method (1991, eqs. 38-43).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from cmet_metrics.base import Metric, Sample, Score, Settings, Variant, check_same_size
from cmet_metrics.frames import FrameRule, pair_frames
from cmet_metrics.landmarks import MEDIAPIPE_MS, RIGID, eye_distance, mediapipe_68, need_faces, points_id
from talking_face.faces.eat import similarity

MIN_VALID = 0.5  # minimum share of frame pairs that have a face in both clips
Measure = Literal["shift", "scale", "rotation"]


class Residual(NamedTuple):
    """The similarity transforms that map the real rigid points to the generated points, one transform per frame.

    The values are NaN if one of the two frames has no face.
    """

    shift: np.ndarray  # (T, 2) px, x and y: the shift of the mean point, so that no origin must be chosen
    scale: np.ndarray  # (T,) size of the generated head divided by the size of the real head
    rotation: np.ndarray  # (T,) degrees; positive is clockwise in the picture


def residual(pred: np.ndarray, target: np.ndarray) -> Residual:
    """Shift, scale and rotation between the points of two clips, for each frame.

    Args:
        pred, target: (T, 68, 2) in pixels of frames of equal size, NaN for frames without a face.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(1, 68, 2))
        >>> found = residual(2 * points + 3, points)
        >>> found.scale.round(6).tolist(), found.rotation.round(6).tolist()
        ([2.0], [0.0])
    """
    if pred.shape != target.shape or pred.ndim != 3 or pred.shape[1:] != (68, 2):
        raise ValueError(f"pred and target must both be (T, 68, 2), got {pred.shape} and {target.shape}")
    a, b = pred[:, RIGID].astype(np.float64), target[:, RIGID].astype(np.float64)
    scale, rotation = np.full(len(a), np.nan), np.full(len(a), np.nan)
    for t in np.flatnonzero(np.isfinite(a).all(axis=(1, 2)) & np.isfinite(b).all(axis=(1, 2))):
        matrix = similarity(b[t], a[t])
        scale[t] = np.hypot(matrix[0, 0], matrix[1, 0])
        rotation[t] = np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return Residual(a.mean(axis=1) - b.mean(axis=1), scale, rotation)


class Framing(NamedTuple):
    """The constant part of the difference between the generated and the real head: medians over frames.

    A method that moves the head in another way has other differences in each frame, but similar medians. A video with
    another crop has other medians.
    """

    right: float  # shift of the generated head to the right, in distances between the real eyes
    down: float  # the same downwards
    scale: float  # size of the generated head divided by the size of the real head


def framing(pred: np.ndarray, target: np.ndarray) -> Framing | None:
    """The medians over the frames in which both clips have a face; None if there is no such frame.

    Args:
        pred, target: (T, 68, 2) in pixels of frames of equal size, NaN for frames without a face.

    Example:
        >>> points = np.random.default_rng(0).normal(size=(3, 68, 2))
        >>> round(framing(points * 1.25, points).scale, 6)
        1.25
    """
    found = residual(pred, target)
    seen = np.isfinite(found.scale)
    if not seen.any():
        return None
    eyes = float(np.median(eye_distance(target[seen].astype(np.float64))))
    right, down = np.median(found.shift[seen], axis=0) / eyes
    return Framing(float(right), float(down), float(np.median(found.scale[seen])))


@dataclass(frozen=True, kw_only=True)
class Registration(Metric):
    """Mean over frames of one absolute difference between the generated and the real head.

    `shift`: the length of the shift in px of the frame. `scale`: the difference in size, in percent of the real head's
    size. `rotation`: the in-plane rotation between the heads, in degrees. Pairs of frames in which one frame has no
    face are left out. If fewer than half of the pairs remain, the reason is `few-faces`. If no pair remains, the
    reason is `no-face`.

    Stats: frames, pairs; the sums of absolute values shift, scale and rotation; and the sums of signed values dx, dy,
    log_scale and turn. The signed sums show a constant error: for example, dx = 200 over 100 frames means that the
    generated head is 2 px too far to the right on average.
    """

    measure: Measure = "shift"
    frames: FrameRule = "exact"

    name = "registration"
    title = "Registration"
    pitfalls = (
        "Between different clips the value is never 0, because it is a mean of lengths and MediaPipe's points "
        "shake. If the head turns out of the picture plane, the points move too."
    )
    higher_is_better = False
    order = 160
    limits = (0.0, math.inf)
    weights = ("face_landmarker",)
    ms_per_frame = 2 * MEDIAPIPE_MS
    variants_are_protocols = False
    measures_framing = True
    source = "this suite; the fit is Umeyama 1991, eqs. 38-43"
    bibtex = """@article{umeyama1991,
  author = {Umeyama, Shinji},
  title = {Least-squares estimation of transformation parameters between two point patterns},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {13}, number = {4}, pages = {376--380}, year = {1991}}"""
    variants = {
        "registration:shift": Variant("shift between the generated head and the real one, MediaPipe's rigid points"),
        "registration:scale": Variant(
            "difference in size of the generated head and the real one, MediaPipe's rigid points", {"measure": "scale"}
        ),
        "registration:rotation": Variant(
            "in-plane turn between the generated head and the real one, MediaPipe's rigid points",
            {"measure": "rotation"},
        ),
    }

    @property
    def unit(self) -> str:
        return {"shift": "px", "scale": "%", "rotation": "deg"}[self.measure]

    @property
    def worsened_by(self) -> frozenset[str]:
        return frozenset({"move"} if self.measure == "shift" else ())

    @property
    def unchanged_by(self) -> frozenset[str]:
        still = {"reencode", "blur", "jpeg", "codec", "mouth-frozen", "mouth-amplitude", "emotion-swap"}
        return frozenset(still if self.measure == "shift" else still | {"move"})

    def settings(self) -> Settings:
        rigid = {"points": points_id(), "part": "eye-corners-nose", "fit": "similarity"}
        return {**rigid, "frames": self.frames, "min-valid": MIN_VALID, "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        check_same_size(pred, target)
        i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
        found = residual(mediapipe_68(pred, self.files)[i], mediapipe_68(target, self.files)[j])
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
        return Score(sizes[self.measure] / n, n, None, detail, stats)


METRICS = (Registration,)
