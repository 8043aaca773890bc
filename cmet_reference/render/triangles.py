"""The triangle mesh of a face: MediaPipe's triangles, rasterisation, and maps between triangles."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from talking_face.pretrained.face_landmarker import tasks

N_SKIN = 468  # number of MediaPipe's points without the irises; the eyelids determine the place of the irises
_RIGHT = (338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)  # from forehead to chin
_LEFT = (148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # from chin to forehead
OVAL = (10, *_RIGHT, 152, *_LEFT)
SHIFT = 4  # OpenCV draws polygons with coordinates in units of 1/16 px: 4 fractional bits
_LEAST_AREA = 0.02  # px^2; smaller triangles are not drawn


class Hole(NamedTuple):
    """An opening of the face (mouth or eye): upper and lower edge, from corner to corner, as indices of points."""

    upper: tuple[int, ...]
    lower: tuple[int, ...]


HOLES = (
    Hole((78, 191, 80, 81, 82, 13, 312, 311, 310, 415, 308), (78, 95, 88, 178, 87, 14, 317, 402, 318, 324, 308)),
    Hole((33, 246, 161, 160, 159, 158, 157, 173, 133), (33, 7, 163, 144, 145, 153, 154, 155, 133)),
    Hole((362, 398, 384, 385, 386, 387, 388, 466, 263), (362, 382, 381, 380, 374, 373, 390, 249, 263)),
)
MOUTH = 0


@cache
def skin_triangles() -> np.ndarray:
    """MediaPipe's triangles of the skin, (n, 3) int, without the eyes and the inside of the mouth."""
    edges = tasks()[0].FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION
    return np.array([[edge.start for edge in edges[i : i + 3]] for i in range(0, len(edges), 3)])


def back_to_front(points: np.ndarray) -> np.ndarray:
    """The triangles of the skin in the order of drawing, (n, 3) int: those farthest from the camera come first.

    Args:
        points: (468, 3), whose z gives the distance.
    """
    triangles = skin_triangles()
    return np.asarray(triangles[np.argsort(-points[triangles][:, :, 2].mean(1), kind="stable")])


def _strip(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """The triangles between two lines of n points, (2 (n - 1), 3), without those that have two equal corners."""
    first = np.stack([upper[:-1], upper[1:], lower[:-1]], 1)
    second = np.stack([upper[1:], lower[1:], lower[:-1]], 1)
    triangles = np.concatenate([first, second])
    proper = [(len(set(triangle)) == 3) for triangle in triangles.tolist()]  # corners are in both lines
    return triangles[proper]


@cache
def hole_triangles(hole: Hole) -> np.ndarray:
    """The triangles between the upper and the lower edge of an opening, (n, 3) int."""
    return _strip(np.array(hole.upper), np.array(hole.lower))


@cache
def mesh_triangles() -> tuple[np.ndarray, int]:
    """All triangles of the mesh, (n, 3), and the number of triangles in rings and openings.

    The triangles of rings and openings come first, because the skin is drawn over them.
    """
    oval = np.array([*OVAL, OVAL[0]])
    count = len(OVAL)
    rings = [np.append(np.arange(count), 0) + N_SKIN + count * i for i in range(2)]
    under = [_strip(oval, rings[0]), _strip(rings[0], rings[1]), *(hole_triangles(hole) for hole in HOLES)]
    flat = np.concatenate(under)
    return np.concatenate([flat, skin_triangles()]), len(flat)


def drawn_ids(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rasterises triangles: (height, width) int32.

    The value of a pixel is 1 + the index of the last triangle that covers it, or 0 if no triangle covers it. Pixels on
    the edge of a triangle count as covered, so that there are no gaps between neighbours. Triangles without an area are
    not drawn.

    Args:
        corners: (n, 3, 2) px.
    """
    ids = np.zeros((height, width), np.int32)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) < 2 * _LEAST_AREA
    whole = np.round(corners * (1 << SHIFT)).astype(np.int32)
    for index in np.flatnonzero(~flat):
        cv2.fillConvexPoly(ids, whole[index], int(index) + 1, shift=SHIFT)
    return ids


def mapped(points: np.ndarray, target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """Maps points from the triangles `target` to the triangles `source` by barycentric coordinates. Returns (n, 2).

    A pixel on an edge can be up to half a pixel outside of its triangle. If a thin triangle is mapped to a wide one,
    the result would be far outside. Therefore the nearest point inside the triangle is mapped, and the small distance
    from this point to the pixel is added.

    Args:
        points: (n, 2), one point in each triangle of `target`.
        target, source: (n, 3, 2), the corners of the triangles. Triangles of `target` must have an area.
    """
    origin = target[:, 0]
    a, b, p = target[:, 1] - origin, target[:, 2] - origin, points - origin
    area = a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]
    v = np.clip((p[:, 0] * b[:, 1] - p[:, 1] * b[:, 0]) / area, 0, 1)
    w = np.clip((a[:, 0] * p[:, 1] - a[:, 1] * p[:, 0]) / area, 0, 1)
    over = np.maximum(v + w, 1)
    v, w = (v / over)[:, None], (w / over)[:, None]
    beyond = p - (v * a + w * b)
    return source[:, 0] + v * (source[:, 1] - source[:, 0]) + w * (source[:, 2] - source[:, 0]) + beyond


def sampled(picture: np.ndarray, at: np.ndarray, how: int) -> np.ndarray:
    """Samples the colours of a picture: (h, w, 3) uint8. Outside of the picture, its edge is repeated.

    Args:
        at: (h, w, 2) float32, the places in the picture, x first.
        how: OpenCV's interpolation.
    """
    return cv2.remap(picture, at[..., 0], at[..., 1], how, borderMode=cv2.BORDER_REPLICATE)
