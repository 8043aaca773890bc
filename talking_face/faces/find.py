"""Finds the approximate boxes of faces, including small faces that the landmarker alone does not find.

The landmarker scales the whole picture to 128 px for its face detector, which finds only faces of at least 0.15 of the
picture. This module passes squares of the picture to the same detector, on four levels. From one level to the next, the
side of the squares is halved. On the last level, the side of a square is 1/8 of the picture's longer side; the detector
then finds faces of 1/53 of the longer side, for example 24 of 1280 px. docs/reference/faces.md states recall and time.
"""

from __future__ import annotations

import math

import cv2
import numpy as np

from talking_face.media.picture import Picture
from talking_face.pretrained.dlib_models import Box
from talking_face.pretrained.face_detector import INPUT_PX, FaceDetector
from talking_face.pretrained.model_files import ModelFiles

# The side of a square is the picture's longer side divided by 1, 2, 4 or 8. The first two levels (7 squares in a 16:9
# picture, 17 ms) are always searched, so that people of similar size are found together. The third level (18 squares,
# 45 ms) and the fourth level (66 squares, 160 ms) are searched only if no face was found before.
_LEVELS, _ALWAYS = 4, 2
# Overlap of neighbouring squares, as a share of the side of a square. A face that is not larger than the overlap is
# complete in at least one square. The overlap of the next level is half as large.
_OVERLAP = 0.3
# The lowest accepted score. GRID faces of 30 to 300 px have a score of at least 0.88 on at least one level. In pictures
# of coloured noise, the scores are at most 0.74 on the first three levels. On the last level, one score per noise
# picture is above 0.7.
MIN_SCORE = 0.75
_MIN_PICTURE_PX = 16
# Factor from the size of the detector's boxes to the size of dlib's boxes, which track.py expects. A box of the
# detector has 0.9 of the face mesh's height, and a box of dlib has 0.8 of the mesh's height.
_SHRINK = 0.89


def find_face(picture: Picture, files: ModelFiles) -> Box | None:
    """The box of the main face of a picture, in px of the picture, or None if no face is found.

    Among the faces within 20% of the largest width, the main face is the one nearest to the picture's centre.
    """
    found = main_first(find_faces(picture, files), picture.width, picture.height)
    return found[0] if found else None


def find_faces(picture: Picture, files: ModelFiles) -> list[Box]:
    """The boxes of the faces in a picture, from brows to chin, in px of the picture, largest first.

    The function finds all faces whose size is at least 0.075 of the picture's longer side. If there is no such face,
    the function searches for smaller faces, level by level, down to 0.02 of the longer side. The search ends at the
    first level on which a face is found.
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
    """The boxes without duplicates.

    A box is removed if its centre is within half a face of the centre of a box with a higher score.
    """
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(centre_distance(box, other) > 0.5 * max(box.width, other.width) for other in kept):
            kept.append(box)
    return kept


def centre_distance(a: Box, b: Box) -> float:
    """Distance between the centres of two boxes, px."""
    return math.hypot((a.left + a.right - b.left - b.right) / 2, (a.top + a.bottom - b.top - b.bottom) / 2)


def main_first(boxes: list[Box], width: int, height: int) -> list[Box]:
    """The boxes in a picture of `width` x `height` px: first the main face, then the other faces, widest first."""
    if not boxes:
        return []
    ordered = sorted(boxes, key=lambda box: -box.width)
    large = [box for box in ordered if box.width >= 0.8 * ordered[0].width]
    middle = Box(width / 2, height / 2, width / 2, height / 2)
    main = min(large, key=lambda box: centre_distance(box, middle))
    return [main, *(box for box in ordered if box is not main)]
