"""Coarse face finding, for pictures in which the landmarker alone would see nothing.

MediaPipe's own short-range detector misses small faces (on 1280x720: 22 of 22 found at 180 px face height, 4 of 22 at
140, none at 110). dlib's HOG finder goes down to 80 px, and half of that for each doubling of the picture, so it looks
at growing sizes of the picture until it finds a face.
"""

from __future__ import annotations

import numpy as np

from talking_face.media.picture import Picture
from talking_face.pretrained.dlib_models import Box, detect_faces_hog

# Longest sides tried, in px. 640 sees faces down to 1/8 of the picture's width in about 25 ms; 1280 to 1/16 in 100 ms.
_SIDES = (640, 1280, 1920)
_MIN_SCORE = 0.0


def find_face(picture: Picture) -> Box | None:
    """The main face of a picture, in its pixels, or None.

    Main is the largest; of faces within 20% of that size, the one nearest to the picture's centre.
    """
    width, height = picture.width, picture.height
    longest = max(height, width)
    tried: set[int] = set()
    for side in _SIDES:
        # Enlarging beyond twice the picture invents no detail.
        side = min(side, 2 * longest)
        if side in tried:
            continue
        tried.add(side)
        scale = side / longest
        grey = picture.grey(max(1, round(width * scale)), max(1, round(height * scale)))
        found = [
            Box(box.left / scale, box.top / scale, box.right / scale, box.bottom / scale, box.score)
            for box in detect_faces_hog(grey)
            if box.score >= _MIN_SCORE
        ]
        if found:
            return _main_face(found, width, height)
    return None


def _main_face(boxes: list[Box], width: int, height: int) -> Box:
    largest = max(box.width for box in boxes)

    def from_centre(box: Box) -> float:
        x, y = (box.left + box.right) / 2 - width / 2, (box.top + box.bottom) / 2 - height / 2
        return float(np.hypot(x, y))

    return min((box for box in boxes if box.width >= 0.8 * largest), key=from_centre)
