"""Converts MediaPipe's 478 face points to the 68 points of iBUG 300-W, which dlib also uses, with a table.

"Left" and "right" are the sides of the picture, not of the person. Point 0 is the left end of the jaw, point 36 is the
outer corner of the left eye, and point 48 is the left mouth corner.

The table was found as follows. For each iBUG point, the candidates were the MediaPipe points of the same contour: face
oval, upper brow row, nose bridge, nostrils, lids, outer lip or inner lip. On 99 frames of ten people of GRID, the
mirror-symmetric pair of candidates with the smallest RMS distance to dlib's points was chosen. The remaining RMS
distance, in percent of the distance between the eye centres, is 2.9 for the eyes, 3.4 for the nose, 5.2 for the mouth,
10.1 for the brows and 9.9 for the jaw. The distances of jaw and brows are largest because dlib's points follow the
visible outline when the head turns, whereas MediaPipe's points are fixed on the skin.
"""

from __future__ import annotations

import numpy as np

# fmt: off
MEDIAPIPE_OF_IBUG68: tuple[int, ...] = (
    127, 234, 93, 132, 172, 136, 149, 176,       # 0-7    jaw, image left, ear to chin
    152,                                         # 8      chin
    400, 378, 365, 397, 361, 323, 454, 356,      # 9-16   jaw, image right, chin to ear
    70, 63, 105, 66, 107,                        # 17-21  brow, image left, tail to head
    336, 296, 334, 293, 300,                     # 22-26  brow, image right, head to tail
    168, 6, 195, 4,                              # 27-30  nose bridge, top to tip
    240, 97, 2, 326, 460,                        # 31-35  under the nose, left to right
    33, 160, 158, 133, 153, 144,                 # 36-41  eye, image left: outer corner, upper, inner, lower
    362, 385, 387, 263, 373, 380,                # 42-47  eye, image right: inner corner, upper, outer, lower
    61, 39, 37, 0, 267, 269, 291,                # 48-54  outer lip, upper edge, corner to corner
    321, 314, 17, 84, 91,                        # 55-59  outer lip, lower edge, right to left
    78, 82, 13, 312, 308,                        # 60-64  inner lip, upper edge, corner to corner
    317, 14, 87,                                 # 65-67  inner lip, lower edge, right to left
)
# fmt: on

# Parts of the 68 points.
JAW = slice(0, 17)
BROWS = slice(17, 27)
NOSE = slice(27, 36)
EYES = slice(36, 48)
MOUTH = slice(48, 68)

_INDEX = np.array(MEDIAPIPE_OF_IBUG68)


def to_68(landmarks: np.ndarray) -> np.ndarray:
    """Converts MediaPipe's points to the 68 points of iBUG.

    Args:
        landmarks: (..., 478, 2 or 3) in any unit. An array of 468 points (without irises) is also accepted.

    Returns:
        (..., 68, 2) with the same dtype and unit. The third coordinate is removed. NaN stays NaN.
    """
    if landmarks.ndim < 2 or landmarks.shape[-2] < 468 or landmarks.shape[-1] not in (2, 3):
        raise ValueError(f"landmarks must be (..., 478, 2 or 3), got {landmarks.shape}")
    return landmarks[..., _INDEX, :2]
