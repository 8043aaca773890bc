"""Converts the 478 MediaPipe face points to the 68 points of iBUG 300-W (dlib's) with a readable table.

Left and right are those of the picture, not of the person. Point 0 is the left end of the jaw, 36 is the outer corner
of the left eye and 48 is the left mouth corner.

How the table was made: for each iBUG point, the MediaPipe points of the same contour were candidates (face oval, upper
brow row, nose bridge, nostrils, lids, outer and inner lip). The mirror-symmetric pair with the smallest RMS distance to
dlib's point was chosen, measured on 99 frames of ten people of GRID. The remaining RMS distance, in percent of the
distance between the eye centres, is: eyes 2.9, nose 3.4, mouth 5.2, brows 10.1, jaw 9.9. Jaw and brows differ most
because dlib's points follow the visible outline of a turned head, and MediaPipe's points are fixed on the skin.
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
    """MediaPipe's points as iBUG's 68.

    Args:
        landmarks: (..., 478, 2 or 3) in any unit; 468 points (without irises) also work.

    Returns:
        (..., 68, 2), same dtype and unit; a third coordinate is removed. NaN stays NaN.
    """
    if landmarks.ndim < 2 or landmarks.shape[-2] < 468 or landmarks.shape[-1] not in (2, 3):
        raise ValueError(f"landmarks must be (..., 478, 2 or 3), got {landmarks.shape}")
    return landmarks[..., _INDEX, :2]
