"""Converts the video of an outside method to the setting's frame rate, size and length, by named rules.

Each rule that changes a video adds a note to the case.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import cv2
import numpy as np

from cmet_baselines.method import Case
from cmet_baselines.trivial import fit_length
from talking_face.faces.eat import similarity
from talking_face.media import Limits, probe, read_frames
from talking_face.reasons import ClipError, Reason

SizeRule = Literal["as-is", "resize", "landmark-similarity"]
LengthRule = Literal["as-is", "cut-or-hold-last"]

_SAMPLED = 8  # number of frames per clip in which landmarks are found; the landmarks' median is accurate to 0.2 px
_MAX_RATIO, _MORE_S = 2, 10.0  # a video longer than twice the required length plus 10 s is refused
_RATE_TOLERANCE = 0.01  # frames/s; some video containers report 24.999 for 25


def read_output(path: Path, case: Case, size: SizeRule, length: LengthRule) -> np.ndarray:
    """Read the video that a method wrote for a case.

    A video with another frame rate is always converted to 25 frames/s, because metrics need this rate. For each new
    frame, the frame that is nearest in time is used.

    Args:
        path: the file.
        case: states the required size and length. Notes about changes are added to this case.
        size: `as-is` keeps the size; if it differs from the ground truth's, metrics that compare frames give the reason
            size-mismatch. `resize` scales the whole picture. `landmark-similarity` is for methods that have another
            crop of the face: it rotates, scales and shifts the whole clip in the same way, so that the eyes and the
            nose have the same position as in the reference frames.
        length: `as-is` or `cut-or-hold-last`; `cmet_baselines.trivial.fit_length` explains these rules.

    Returns:
        (T, H, W, 3) uint8 RGB, 25 frames/s.

    Raises:
        ClipError: missing-output, empty-file, no-video, or a reason of the decoder; also no-face if the size rule
            needs a face.
    """
    if not path.is_file():
        raise ClipError(Reason.MISSING_OUTPUT, f"the method wrote no {path.name}")
    if path.stat().st_size == 0:
        raise ClipError(Reason.EMPTY_FILE, f"{path.name} is empty")
    video = probe(path).video
    if video is None:
        raise ClipError(Reason.NO_VIDEO, f"{path.name} has no picture")
    if abs(video.fps - case.fps) > _RATE_TOLERANCE:
        case.note(f"rate: nearest frame, from {video.fps:g} to {case.fps:g} frames/s")
    limits = Limits(seconds=longest_s(case))
    return fit_length(fit_size(read_frames(path, case.fps, limits), case, size), case, length)


def longest_s(case: Case) -> float:
    """The length from which the video of a case is refused, s."""
    return _MAX_RATIO * case.n_frames / case.fps + _MORE_S


def fit_size(frames: np.ndarray, case: Case, rule: SizeRule) -> np.ndarray:
    """Change a video to the case's size, (T, h, w, 3) to (T, H, W, 3) uint8 RGB. `read_output` explains the rules."""
    height, width = case.size
    if rule == "as-is" or (rule == "resize" and frames.shape[1:3] == case.size):
        return frames
    if rule == "resize":
        case.note(f"size: resized from {frames.shape[2]}x{frames.shape[1]} to {width}x{height}")
        shrinks = frames.shape[1] > height
        how = cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC
        return np.stack([cv2.resize(frame, (width, height), interpolation=how) for frame in frames])
    points = _face_points(frames, "the method's video")
    matrix = similarity(points, _face_points(case.reference_frames, "the reference"))[:2]
    scale = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    case.note(f"size: landmark-similarity, scale {scale:.3f}, from {frames.shape[2]}x{frames.shape[1]}")
    if scale < 1:  # blur first: warping reads single pixels, so small details would flicker
        frames = np.stack([cv2.GaussianBlur(frame, (0, 0), 0.4 / scale) for frame in frames])
    matrix = matrix.astype(np.float64)
    return np.stack(
        [cv2.warpAffine(frame, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for frame in frames]
    )


def _face_points(frames: np.ndarray, name: str) -> np.ndarray:
    """(13, 2) float64, px: the corners of the eyes and the points of the nose, as the median over frames."""
    from cmet_metrics.base import Sample
    from cmet_metrics.landmarks import RIGID, mediapipe_68
    from talking_face.pretrained.model_files import ModelFiles

    sampled = np.unique(np.linspace(0, len(frames) - 1, min(len(frames), _SAMPLED)).round().astype(int))
    sample = Sample(np.ascontiguousarray(frames[sampled]), name=name)
    points = mediapipe_68(sample, ModelFiles.from_environment())[:, RIGID]
    good = np.isfinite(points).all(axis=(1, 2))
    if not good.any():
        raise ClipError(Reason.NO_FACE, f"{name} shows no face, so its place cannot be fitted (landmark-similarity)")
    return np.asarray(np.median(points[good], axis=0))
