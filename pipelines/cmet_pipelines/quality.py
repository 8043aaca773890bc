"""Measures doubts about a clip, which are recorded without dropping it: cuts, black frames, another person, sharpness.

Pure functions on arrays. Figures and the measurements behind the thresholds: docs/experiments/preprocessing.md.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from talking_face.pretrained.model_files import ModelFiles

THUMBNAIL = (64, 36)  # width, height, px; sampled pixels of the picture, without averaging and without its proportions
# A cut changes the mean pixel by this many levels (of 255), and by this factor over the frames around it. GRID: at most
# 1.9 and 1.1 within clips; at least 8.3 and 6.4 where clips of two speakers before the same blue wall are joined.
CUT_LEVELS, CUT_TIMES = 5.0, 3.0
_AROUND = 6  # frames compared on either side of a suspected cut
_FLASH = 3  # frames; a picture that returns within so many was a flash
# As FFmpeg's blackdetect: 98% of the picture under 10% of white.
_BLACK_LEVEL, _BLACK_SHARE = 25.5, 0.98
# A face that moves by half its height between two frames, or is lost for more frames than the smoothing bridges, may be
# another face. GRID and the embedded corpus: 0.06 at most.
JUMP, LOST = 0.5, 5
# dlib's own limit for its network: below it is one person. At most so many frames of a clip are compared.
SAME_PERSON, IDENTITY_SAMPLES = 0.6, 5


def black_frames(thumbnails: np.ndarray) -> np.ndarray:
    """(T,) bool of (T, h, w) uint8 thumbnails."""
    return (thumbnails < _BLACK_LEVEL).mean(axis=(1, 2)) >= _BLACK_SHARE


def scene_cuts(thumbnails: np.ndarray) -> list[int]:
    """Frames with which another shot begins, of (T, h, w) uint8 thumbnails.

    Black frames between two shots are skipped. A flash is not a cut. A fade or a camera move is not a cut either: it
    takes many frames.
    """
    shown = np.flatnonzero(~black_frames(thumbnails))
    pictures = thumbnails[shown].astype(np.int16)
    change = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2))
    cuts = []
    for k in np.flatnonzero(change >= CUT_LEVELS):
        around = np.concatenate([change[max(0, k - _AROUND) : k], change[k + 1 : k + 1 + _AROUND]])
        # The third largest: repeated frames, which do not change, and another near cut do not matter.
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
    """Frames with which another person may begin: cuts, jumps of the face, and its return after a longer absence.

    Args:
        landmarks: (T, P, 2 or 3), source px; valid: (T,) bool.
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
    """The frames to compare, in order: the middle one with a face in each of the longest stretches between `starts`.

    Empty where there is nothing to compare.
    """
    if not starts:
        return []
    stretches = np.split(np.arange(len(valid)), list(starts))
    seen = [frames[valid[frames]] for frames in stretches]
    longest = sorted((frames for frames in seen if len(frames)), key=lambda f: (-len(f), f[0]))[:IDENTITY_SAMPLES]
    chosen = sorted(int(frames[len(frames) // 2]) for frames in longest)
    return chosen if len(chosen) > 1 else []


def identity_distance(crops: Sequence[np.ndarray], landmarks: Sequence[np.ndarray], files: ModelFiles) -> float:
    """The largest distance between two of the faces in dlib's 128 dimensions; above 0.6 they are two people.

    Args:
        crops: (S, S, 3) uint8 RGB each; landmarks: (478, 2 or 3) each, px of the crop. 0.11 s a face.
    """
    from talking_face.faces.track import face_box
    from talking_face.pretrained.dlib_models import face_embedding

    vectors = np.stack([face_embedding(crop, face_box(p), files) for crop, p in zip(crops, landmarks, strict=True)])
    return float(np.linalg.norm(vectors[:, None] - vectors[None], axis=-1).max())


def face_height(landmarks: np.ndarray, valid: np.ndarray) -> float:
    """Median height of the mesh, hairline to chin, in px of (T, P, 2 or 3) landmarks."""
    return float(np.median(np.ptp(landmarks[valid][..., 1], axis=1)))


def sharpness_and_brightness(crop: np.ndarray) -> tuple[float, float]:
    """Variance of the Laplacian, and mean level (0 to 255), of the grey of an (S, S, 3) uint8 RGB crop."""
    grey = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    return float(cv2.Laplacian(grey, cv2.CV_64F).var()), float(grey.mean())
