"""What an outside method wrote, brought to the setting's rate, size and length by named rules, each noted when used."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from cmet_baselines.method import Case
from cmet_baselines.trivial import fit_length
from talking_face.faces.eat import similarity
from talking_face.media.reading import probe, read_frames
from talking_face.reasons import ClipError, Reason

SizeRule = Literal["as-is", "resize", "landmark-similarity"]
LengthRule = Literal["as-is", "cut-or-hold-last"]

_LOOKED_AT = 8  # frames of each clip whose landmarks are found: their median is known to 0.2 px
_RATE_SLACK = 0.01  # frames/s: containers with coarse clocks say 24.999


def read_output(path: Path, case: Case, size: SizeRule, length: LengthRule) -> np.ndarray:
    """The video a method wrote for a case: (T, H, W, 3) uint8 RGB at 25 frames/s.

    Another rate always becomes 25 by the nearest frame in time: nothing can be scored at another.

    Args:
        size: `as-is` leaves it, so that metrics against the ground truth say size-mismatch; `resize` scales the whole
            picture; `landmark-similarity` turns, scales and moves each clip, all its frames alike, so that its eyes and
            nose lie where those of the reference lie: for methods that crop faces in their own way.
        length: `as-is`, or `cut-or-hold-last`.

    Raises:
        ClipError: no file, an empty one, no video; or no face where the size rule needs one.
    """
    if not path.is_file():
        raise ClipError(Reason.MISSING_OUTPUT, f"the method wrote no {path.name}")
    if path.stat().st_size == 0:
        raise ClipError(Reason.EMPTY_FILE, f"{path.name} is empty")
    video = probe(path).video
    if video is None:
        raise ClipError(Reason.NO_VIDEO, f"{path.name} has no picture")
    if abs(video.fps - case.fps) > _RATE_SLACK:
        case.note(f"rate: nearest frame, from {video.fps:g} to {case.fps:g} frames/s")
    return fit_length(bring_size(read_frames(path, case.fps), case, size), case, length)


def bring_size(frames: np.ndarray, case: Case, rule: SizeRule) -> np.ndarray:
    """The same video in the case's size, where the rule says so. (T, h, w, 3) to (T, H, W, 3)."""
    height, width = case.size
    if rule == "as-is" or (rule == "resize" and frames.shape[1:3] == case.size):
        return frames
    if rule == "resize":
        case.note(f"size: resized from {frames.shape[2]}x{frames.shape[1]} to {width}x{height}")
        shrinks = frames.shape[1] > height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])
    matrix = similarity(_place(frames, "the method's video"), _place(case.reference_frames, "the reference"))[:2]
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    case.note(f"size: landmark-similarity, scale {scale:.3f}, from {frames.shape[2]}x{frames.shape[1]}")
    if scale < 1:  # a warp samples; without a blur first, small details would flicker
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.4 / scale) for frame in frames])
    matrix = matrix.astype(np.float64)
    return np.stack(
        [cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for frame in frames]
    )


def _place(frames: np.ndarray, name: str) -> np.ndarray:
    """Where the face lies: (13, 2) float64, median over frames of the eyes' corners and the nose, px."""
    from cmet_metrics.base import Sample
    from cmet_metrics.landmarks import RIGID, mediapipe_68
    from talking_face.pretrained.model_files import ModelFiles

    picked = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _LOOKED_AT)).round().astype(int))
    points = mediapipe_68(Sample(np.ascontiguousarray(frames[picked]), name=name), ModelFiles.from_environment())[
        :, RIGID
    ]
    good = np.isfinite(points).all(axis=(1, 2))
    if not good.any():
        raise ClipError(Reason.NO_FACE, f"{name} shows no face, so its place cannot be fitted (landmark-similarity)")
    return np.asarray(np.median(points[good], axis=0))
