"""Aligns faces as EAT's evaluation does, and finds dlib's 68 points on the aligned frames.

Source: github.com/yuangan/evaluation_eat at e39b004, code/utils_crop.py (`crop_and_align`) and code/test_lmd.py
(`get_lmk`). The geometry of `crop_and_align` is in talking_face/faces/eat.py. The evaluation of PSNR and SSIM has a
crop of its own, code/utils_crop_psnr.py: `resized_crops` computes it. The published script does not use that crop. It
writes the crops of `align` to a video in MPEG-4 and scores its frames: `stored_crops` computes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from cmet_metrics.base import Sample
from cmet_metrics.pictures import check_uint8
from talking_face.faces.eat import (
    ALIGN_POINTS,
    FIND_UPSAMPLE,
    WARPED,
    find_points,
    similarity,
    template,
    to_grey,
    warp_crop,
)
from talking_face.media import FPS, read_frames
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason
from talking_face.scratch import scratch_folder

__all__ = [
    "ALIGN_POINTS",
    "STORED",
    "AlignedTrack",
    "align",
    "aligned_track",
    "resized_crops",
    "similarity",
    "stored_crops",
    "stored_track",
    "template",
    "track",
    "warp_crop",
]

_ROI_SHARE = 0.64  # half of the side of the square that is resized, as a share of the height of dlib's box

ALIGNED_UPSAMPLE = 0
STORED = "opencv-mp4v"  # in signatures: the codec of `stored_crops`


@dataclass(frozen=True)
class AlignedTrack:
    """The points of one clip's aligned frames. Frames in which no face was found are not included."""

    landmarks: np.ndarray  # (K, 68, 2) float64, px of the 128 px crop; NaN if no face is detected in the crop
    n_frames: int  # number of frames of the clip
    dropped: int  # number of frames without a face; K = n_frames - dropped


def align(frame: np.ndarray, files: ModelFiles) -> np.ndarray | None:
    """The (128, 128, 3) uint8 RGB crop of an (H, W, 3) uint8 RGB frame, or None if no face is found.

    Raises TypeError or ValueError for an array of another form.
    """
    check_uint8(np.asarray(frame)[None], "frame")
    points = find_points(to_grey(frame), FIND_UPSAMPLE, files)
    if points is None:
        return None
    return warp_crop(frame, similarity(template()[ALIGN_POINTS], points[ALIGN_POINTS]))


def track(frames: np.ndarray, files: ModelFiles) -> AlignedTrack:
    """Align every frame of a clip, then detect the face and its points a second time in the aligned crop.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        files: where dlib's file is searched for.

    Raises TypeError or ValueError for an array of another form.
    """
    check_uint8(frames, "frames")
    found: list[np.ndarray] = []
    missing = np.full((68, 2), np.nan)
    points: np.ndarray | None = None
    for t, frame in enumerate(frames):
        # A repeated frame gets the points of the previous frame: comparing takes 20 us, detecting takes 25 ms.
        if t == 0 or not np.array_equal(frame, frames[t - 1]):
            crop = align(frame, files)
            points = None
            if crop is not None:
                again = find_points(to_grey(crop), ALIGNED_UPSAMPLE, files)
                points = missing if again is None else again.astype(np.float64)
        if points is not None:
            found.append(points)
    return AlignedTrack(np.array(found).reshape(-1, 68, 2), len(frames), len(frames) - len(found))


def aligned_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    """`track` of a sample's frames, computed once per sample."""
    return sample.cached("eat-aligned-dlib68", lambda s: track(s.pictures, files))


def resized_crop(frame: np.ndarray, files: ModelFiles) -> np.ndarray | None:
    """The crop in which EAT's evaluation computes PSNR and SSIM (code/utils_crop_psnr.py, `crop_and_align`).

    A square around dlib's box is first resized to 163x163 px, and then aligned as in `align`. If the square extends
    beyond the right or lower edge of the frame, the part inside the frame is stretched to 163x163 px, although the
    points are not. If it extends beyond the left or upper edge, there is usually no crop. Both are as in the source.

    Args:
        frame: (H, W, 3) uint8 RGB.
        files: where dlib's file is searched for.

    Returns:
        (128, 128, 3) uint8 RGB; None if no face is found, or if the crop cannot be computed.
    """
    from talking_face.pretrained.dlib_models import detect_faces_hog, landmarks68

    grey = to_grey(frame)
    boxes = detect_faces_hog(grey, FIND_UPSAMPLE)
    if not boxes:
        return None
    x, y = int(boxes[0].left), int(boxes[0].top)
    width, height = int(boxes[0].width), int(boxes[0].height)
    half = int(_ROI_SHARE * height)
    left, top = x + int(0.5 * width) - half, y + int(0.5 * height) - half
    square = frame[top : top + 2 * half, left : left + 2 * half]  # a negative index counts from the end, as there
    if not square.size:
        return None
    square = cv2.resize(square, (WARPED, WARPED), interpolation=cv2.INTER_AREA)
    points = ((landmarks68(grey, boxes[0], files).astype(np.int64) - (left, top)) * (WARPED / (2 * half))).astype(
        np.float32
    )
    return warp_crop(square, similarity(template()[ALIGN_POINTS], points[ALIGN_POINTS]))


def resized_crops(sample: Sample, files: ModelFiles) -> list[np.ndarray | None]:
    """`resized_crop` of every frame of a sample, computed once per sample."""
    return sample.cached("eat-resized-crops", lambda s: _resized_crops(s.pictures, files))


def _resized_crops(frames: np.ndarray, files: ModelFiles) -> list[np.ndarray | None]:
    out: list[np.ndarray | None] = []
    for t, frame in enumerate(frames):
        repeated = t and np.array_equal(frame, frames[t - 1])
        out.append(out[-1] if repeated else resized_crop(frame, files))
    return out


def stored_crops(sample: Sample, files: ModelFiles) -> np.ndarray:
    """The frames that EAT's published script scores: crops of `align`, after a video in MPEG-4 (code/preprocess.py).

    Computed once per sample.

    Args:
        sample: the clip.
        files: where dlib's file is searched for.

    Returns:
        (K, 128, 128, 3) uint8 RGB. Frames without a face are left out, as there.

    Raises:
        ClipError: no-face.
    """
    return sample.cached("eat-stored-crops", lambda s: _stored_crops(s, files))


def stored_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    """dlib's points on `stored_crops`, computed once per sample; NaN for crops in which no face is detected."""
    return sample.cached("eat-stored-dlib68", lambda s: _stored_track(s, files))


def _stored_track(sample: Sample, files: ModelFiles) -> AlignedTrack:
    crops = stored_crops(sample, files)
    points = np.full((len(crops), 68, 2), np.nan)
    for t, crop in enumerate(crops):
        found = find_points(to_grey(crop), ALIGNED_UPSAMPLE, files)
        if found is not None:
            points[t] = found
    n_frames = len(sample.frames)
    return AlignedTrack(points, n_frames, n_frames - len(crops))


def _stored_crops(sample: Sample, files: ModelFiles) -> np.ndarray:
    frames, crops = sample.pictures, []
    crop: np.ndarray | None = None
    for t, frame in enumerate(frames):
        if t == 0 or not np.array_equal(frame, frames[t - 1]):
            crop = align(frame, files)
        if crop is not None:
            crops.append(crop)
    if not crops:
        raise ClipError(Reason.NO_FACE, f"{sample.name}: no face in any of {len(frames)} frames")
    with scratch_folder() as folder:
        path = folder / "crops.mp4"
        # OpenCV's own encoder settings decide the quality, so that the crops are written with OpenCV, as in the source.
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"mp4v"), FPS, crops[0].shape[:2])
        if not writer.isOpened():
            raise RuntimeError("the installed OpenCV cannot write MPEG-4")
        for crop in crops:
            writer.write(cv2.cvtColor(crop, cv2.COLOR_RGB2BGR))
        writer.release()
        return read_frames(path, None)
