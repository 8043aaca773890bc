"""Finds faces coarsely, including small faces that the landmarker alone does not find.

The landmarker's detector receives the whole picture at 128 px and finds only faces of at least 0.15 of that size. Here
the same detector also receives squares of the picture, on four levels. Their side is halved from one level to the next.
With squares of 1/8 of the picture's longer side, it finds faces of 1/53 of that side (24 px of 1280). For recall and
time see docs/reference/faces.md.
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
# Overlap of neighbouring squares, as a share of their side. A face of up to this size is complete in at least one
# square. Squares of the next level find faces of half this size.
_OVERLAP = 0.3
# The lowest accepted score. GRID faces of 30 to 300 px have a score of at least 0.88 on at least one level. Coloured
# noise has scores of at most 0.74 on the first three levels, and on the last level one score above 0.7 per picture.
MIN_SCORE = 0.75
_MIN_PICTURE_PX = 16
# Factor from the detector's boxes (0.9 of the face mesh's height) to dlib's boxes (0.8 of it), which track.py expects.
_SHRINK = 0.89


def find_face(picture: Picture, files: ModelFiles) -> Box | None:
    """The box of the main face of a picture, in px of the picture, or None.

    Among the faces within 20% of the largest width, the main face is the one nearest to the picture's centre.
    """
    found = main_first(find_faces(picture, files), picture.width, picture.height)
    return found[0] if found else None


def find_faces(picture: Picture, files: ModelFiles) -> list[Box]:
    """The boxes of the faces in a picture, brows to chin, in px of the picture, largest first.

    It finds all faces of at least 0.075 of the picture's longer side. If there are none, it finds the largest of the
    smaller faces, down to 0.02 of that side.
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
    """The boxes without duplicates: a box is removed if a box with a higher score is within half a face of it."""
    kept: list[Box] = []
    for box in sorted(boxes, key=lambda box: -box.score):
        if all(centre_distance(box, other) > 0.5 * max(box.width, other.width) for other in kept):
            kept.append(box)
    return kept


def centre_distance(a: Box, b: Box) -> float:
    """Distance between the centres of two boxes, px."""
    return math.hypot((a.left + a.right - b.left - b.right) / 2, (a.top + a.bottom - b.top - b.bottom) / 2)


def main_first(boxes: list[Box], width: int, height: int) -> list[Box]:
    """The boxes in a picture of `width` x `height` px: first the main face, then the others by width."""
    if not boxes:
        return []
    ordered = sorted(boxes, key=lambda box: -box.width)
    large = [box for box in ordered if box.width >= 0.8 * ordered[0].width]
    middle = Box(width / 2, height / 2, width / 2, height / 2)
    main = min(large, key=lambda box: centre_distance(box, middle))
    return [main, *(box for box in ordered if box is not main)]
