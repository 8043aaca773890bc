"""Finds faces coarsely, in pictures where the landmarker alone finds none.

The detector of the landmarker gets the whole picture at 128 px, and misses every face under 0.15 of that. Here the same
detector also gets squares of the picture, on four levels, each half as long as those of the level before. A square of
1/8 of the picture's longer side shows faces of 1/53 of it (24 px of 1280). docs/reference/faces.md has recall and cost.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from talking_face.media.picture import Picture
from talking_face.pretrained.dlib_models import Box
from talking_face.pretrained.face_detector import INPUT_PX, FaceDetector
from talking_face.pretrained.model_files import ModelFiles

# Squares of the longer side over 1, 2, 4, 8. The first two levels (7 squares of 16:9, 17 ms) are always used, so
# that people of similar size are found together. The others (18: 45 ms; 66: 160 ms) are used until a face is found.
_LEVELS, _ALWAYS = 4, 2
# A face of up to 0.3 of a square's side is complete in at least one square; the next level finds half of that size.
_OVERLAP = 0.3
# On GRID faces of 30 to 300 px, the score is at least 0.88 on one level. On coloured noise it is at most 0.74 on the
# first three levels, and above 0.7 once per picture on the last.
MIN_SCORE = 0.75
_MIN_PICTURE_PX = 16
# The detector's box is 0.9 of the mesh's height. track.py expects boxes of dlib, which are 0.8 of it.
_SHRINK = 0.89


def find_face(picture: Picture, files: ModelFiles) -> Box | None:
    """The main face of a picture, in its pixels, or None.

    The main face is the largest. Among faces within 20% of that size, it is the one nearest to the picture's centre.
    """
    found = main_first(find_faces(picture, files), picture.width, picture.height)
    return found[0] if found else None


def find_faces(picture: Picture, files: ModelFiles) -> list[Box]:
    """The faces of a picture, in its pixels, brow to chin, largest first.

    It finds all faces down to 0.075 of the longer side. Where there is none, it finds the largest ones down to 0.02.
    """
    whole = picture.snap(0, 0, picture.width, picture.height)
    width, height = whole[2], whole[3]
    if min(width, height) < _MIN_PICTURE_PX:
        return []
    found: list[Box] = []
    with FaceDetector(MIN_SCORE, files=files) as detector:
        for level in range(_LEVELS):
            side = max(width, height) / 2**level
            if level and (side < INPUT_PX or (level >= _ALWAYS and found)):
                break
            scale = INPUT_PX / side
            small = picture.window(*whole, (max(1, round(width * scale)), max(1, round(height * scale))))
            for y in _starts(small.shape[0]):
                for x in _starts(small.shape[1]):
                    found += [_in_picture(box, x, y, scale) for box in detector.detect(_tile(small, x, y))]
    return sorted(_distinct(found), key=lambda box: -box.width)


def _starts(length: int) -> list[int]:
    if length <= INPUT_PX:
        return [0]
    steps = math.ceil((length - INPUT_PX) / (INPUT_PX * (1 - _OVERLAP)))
    return [round(i * (length - INPUT_PX) / steps) for i in range(steps + 1)]


def _tile(picture: np.ndarray, x: int, y: int) -> np.ndarray:
    tile = picture[y : y + INPUT_PX, x : x + INPUT_PX]
    below, right = INPUT_PX - tile.shape[0], INPUT_PX - tile.shape[1]
    return cv2.copyMakeBorder(tile, 0, below, 0, right, cv2.BORDER_CONSTANT) if below or right else tile


def _in_picture(box: Box, x: int, y: int, scale: float) -> Box:
    middle_x, middle_y = ((box.left + box.right) / 2 + x) / scale, ((box.top + box.bottom) / 2 + y) / scale
    half = _SHRINK * max(box.width, box.height) / 2 / scale
    return Box(middle_x - half, middle_y - half, middle_x + half, middle_y + half, box.score)


def _distinct(boxes: list[Box]) -> list[Box]:
    """The boxes without those whose centre is within half a face of one with a higher score."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(centre_distance(box, other) > 0.5 * max(box.width, other.width) for other in kept):
            kept.append(box)
    return kept


def centre_distance(a: Box, b: Box) -> float:
    """Distance between the centres of two boxes, px."""
    return math.hypot((a.left + a.right - b.left - b.right) / 2, (a.top + a.bottom - b.top - b.bottom) / 2)


def main_first(boxes: list[Box], width: int, height: int) -> list[Box]:
    """The boxes of a picture of that size: the main one, then the others by size."""
    if not boxes:
        return []
    ordered = sorted(boxes, key=lambda box: -box.width)
    large = [box for box in ordered if box.width >= 0.8 * ordered[0].width]
    middle = Box(width / 2, height / 2, width / 2, height / 2)
    main = min(large, key=lambda box: centre_distance(box, middle))
    return [main, *(box for box in ordered if box is not main)]
