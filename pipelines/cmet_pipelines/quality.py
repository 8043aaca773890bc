"""Measures signs of a bad clip: scene cuts, black frames, a change of person, low sharpness.

The measured values are stored with the clip. No clip is dropped because of these values. All functions are pure
functions on arrays. docs/experiments/preprocessing.md contains the measurements that give the thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from talking_face.pretrained.model_files import ModelFiles

THUMBNAIL = (64, 36)  # width, height, px; pixels are picked and not averaged; the aspect ratio is not preserved
# At a cut, the mean change of the pixels is at least CUT_LEVELS (of 255) and at least CUT_TIMES the usual change
# between the frames around the cut. Measured on the dataset GRID: inside clips, the change is at most 1.9 levels and
# 1.1 times the usual change. Where clips of two speakers in front of the same blue wall are joined, the change is at
# least 8.3 levels and 6.4 times the usual change.
CUT_LEVELS, CUT_TIMES = 5.0, 3.0
_AROUND = 6  # number of frames on each side of a possible cut from which the usual change is computed
_FLASH = 3  # frames; if the earlier picture returns within this number of frames, the change was a flash
# As in FFmpeg's blackdetect, a frame is black if 98% of its pixels are below 10% of white.
_BLACK_LEVEL, _BLACK_SHARE = 25.5, 0.98
# Two signs of another face. JUMP: the face moves between two frames by more than this share of the face's height. In
# GRID and in the embedded corpus, faces move by at most 0.06 of the height. LOST: the face returns after more than this
# number of frames without a face. The smoothing of landmarks bridges gaps of up to the same number of frames.
JUMP, LOST = 0.5, 5
# SAME_PERSON is the limit that dlib states for its face network: two faces with a smaller distance show one person. At
# most IDENTITY_SAMPLES frames of a clip are compared.
SAME_PERSON, IDENTITY_SAMPLES = 0.6, 5


def black_frames(thumbnails: np.ndarray) -> np.ndarray:
    """Whether each frame is black: (T,) bool, from (T, h, w) uint8 thumbnails."""
    return (thumbnails < _BLACK_LEVEL).mean(axis=(1, 2)) >= _BLACK_SHARE


def scene_cuts(thumbnails: np.ndarray) -> list[int]:
    """The first frame of every shot except the first shot, from (T, h, w) uint8 thumbnails.

    Black frames between two shots are skipped. A flash is not a cut. Fades and camera movements are not cuts either,
    because fades and movements take many frames.
    """
    shown = np.flatnonzero(~black_frames(thumbnails))
    pictures = thumbnails[shown].astype(np.int16)
    change = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2))
    cuts = []
    for k in np.flatnonzero(change >= CUT_LEVELS):
        around = np.concatenate([change[max(0, k - _AROUND) : k], change[k + 1 : k + 1 + _AROUND]])
        # The usual change is the third largest change around the cut. So repeated frames, whose change is 0, have no
        # effect, and another cut nearby has no effect either.
        usual = np.sort(around)[-3] if len(around) > 2 else 0.0
        back = [np.abs(later - pictures[k]).mean() for later in pictures[k + 2 : k + 2 + _FLASH]]
        flash = any(value < change[k] / 3 for value in back)
        after_flash = any(
            np.abs(pictures[k + 1] - earlier).mean() < change[k] / 3 for earlier in pictures[max(0, k - _FLASH) : k]
        )
        if change[k] >= CUT_TIMES * (usual + 0.5) and not flash and not after_flash:
            cuts.append(int(shown[k + 1]))
    return cuts


def doubtful_frames(landmarks: np.ndarray, valid: np.ndarray, cuts: Sequence[int]) -> list[int]:
    """Frames at which a different person possibly appears.

    Such frames are cuts, jumps of the face, and returns of the face after more than LOST frames.

    Args:
        landmarks: (T, P, 2 or 3), source px.
        valid: (T,) bool, frames with a face.
        cuts: frames from `scene_cuts`.
    """
    found = set(cuts)
    known = np.flatnonzero(valid)
    points = landmarks[known][..., :2]
    low, high = points.min(axis=1), points.max(axis=1)
    height, centre = (high - low)[:, 1], (low + high) / 2
    moved = np.linalg.norm(np.diff(centre, axis=0), axis=1) / np.minimum(height[1:], height[:-1])
    gap = np.diff(known) - 1
    found |= {int(known[k + 1]) for k in np.flatnonzero((moved > JUMP) | (gap > LOST))}
    return sorted(found)


def identity_samples(valid: np.ndarray, starts: Sequence[int]) -> list[int]:
    """The frames whose faces are compared, in order.

    A new stretch of the clip begins at each frame of `starts`. From each of the IDENTITY_SAMPLES longest stretches, the
    middle frame of all frames with a face is used. If there are fewer than two such frames, the result is empty,
    because a comparison needs two faces.
    """
    if not starts:
        return []
    stretches = np.split(np.arange(len(valid)), list(starts))
    seen = [frames[valid[frames]] for frames in stretches]
    longest = sorted((frames for frames in seen if len(frames)), key=lambda f: (-len(f), f[0]))[:IDENTITY_SAMPLES]
    chosen = sorted(int(frames[len(frames) // 2]) for frames in longest)
    return chosen if len(chosen) > 1 else []


def identity_distance(crops: Sequence[np.ndarray], landmarks: Sequence[np.ndarray], files: ModelFiles) -> float:
    """The largest distance between dlib's 128-dimensional embeddings of any two of the faces.

    If the distance is above 0.6, the two faces show two people. The embedding of a face takes 0.11 s.

    Args:
        crops: each (S, S, 3) uint8 RGB.
        landmarks: landmarks in each crop, each (478, 2 or 3), px of the crop.
        files: the folders of model files.
    """
    from talking_face.faces.track import face_box
    from talking_face.pretrained.dlib_models import face_embedding

    vectors = np.stack([face_embedding(crop, face_box(p), files) for crop, p in zip(crops, landmarks, strict=True)])
    return float(np.linalg.norm(vectors[:, None] - vectors[None], axis=-1).max())


def face_height(landmarks: np.ndarray, valid: np.ndarray) -> float:
    """Median height of the face from hairline to chin, px, over the frames of landmarks (T, P, 2 or 3) with a face."""
    return float(np.median(np.ptp(landmarks[valid][..., 1], axis=1)))


def sharpness_and_brightness(crop: np.ndarray) -> tuple[float, float]:
    """(variance of the Laplacian, mean grey level from 0 to 255) of an (S, S, 3) uint8 RGB crop, converted to grey."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var()), float(grey.mean())
