"""Aligns faces as EAT's evaluation does, and finds dlib's 68 points on the aligned frames.

Source: github.com/yuangan/evaluation_eat at e39b004, code/utils_crop.py (`crop_and_align`) and code/test_lmd.py
(`get_lmk`). The geometry of `crop_and_align` is in talking_face/faces/eat.py.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cmet_metrics.base import Sample
from cmet_metrics.pictures import check_uint8
from talking_face.faces.eat import ALIGN_POINTS, FIND_UPSAMPLE, find_points, similarity, template, to_grey, warp_crop
from talking_face.pretrained.model_files import ModelFiles

__all__ = ["ALIGN_POINTS", "AlignedTrack", "align", "aligned_track", "similarity", "template", "track", "warp_crop"]

ALIGNED_UPSAMPLE = 0


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
