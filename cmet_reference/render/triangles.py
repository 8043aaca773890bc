"""The triangle mesh of a face: MediaPipe's topology, rasterising, and maps between triangles."""

from __future__ import annotations

from functools import cache
from typing import NamedTuple

import cv2
import numpy as np

from talking_face.pretrained.face_landmarker import tasks

N_SKIN = 468  # MediaPipe's points without the irises, whose place the eyelids give well enough
_RIGHT = (338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)  # forehead to chin
_LEFT = (148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # and back
OVAL = (10, *_RIGHT, 152, *_LEFT)
SHIFT = 4  # fillConvexPoly and fillPoly take coordinates in 1/16 px
_LEAST_AREA = 0.02  # px^2


class Hole(NamedTuple):
    """An opening: its edge from corner to corner, above and below; the corners are in both."""

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
    """(n, 3) int: the triangles of MediaPipe's tesselation, without the eyes and the inside of the mouth."""
    edges = tasks()[0].FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION
    return np.array([[edge.start for edge in edges[i : i + 3]] for i in range(0, len(edges), 3)])


def back_to_front(points: np.ndarray) -> np.ndarray:
    """(n, 3) int: the skin's triangles in the order to draw them, the farthest first, for points (468, 3)."""
    triangles = skin_triangles()
    return np.asarray(triangles[np.argsort(-points[triangles][:, :, 2].mean(1), kind="stable")])


def _strip(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """(2 (n - 1), 3): triangles between two lines of n points."""
    first = np.stack([upper[:-1], upper[1:], lower[:-1]], 1)
    second = np.stack([upper[1:], lower[1:], lower[:-1]], 1)
    triangles = np.concatenate([first, second])
    proper = [(len(set(triangle)) == 3) for triangle in triangles.tolist()]  # the corners are in both lines
    return triangles[proper]


@cache
def hole_triangles(hole: Hole) -> np.ndarray:
    """(n, 3) int: the triangles between the upper and the lower edge of an opening."""
    return _strip(np.array(hole.upper), np.array(hole.lower))


@cache
def mesh_triangles() -> tuple[np.ndarray, int]:
    """All triangles, (n, 3), and how many come first that skin may cover: those of the rings and the holes."""
    oval = np.array([*OVAL, OVAL[0]])
    count = len(OVAL)
    rings = [np.append(np.arange(count), 0) + N_SKIN + count * i for i in range(2)]
    under = [_strip(oval, rings[0]), _strip(rings[0], rings[1]), *(hole_triangles(hole) for hole in HOLES)]
    flat = np.concatenate(under)
    return np.concatenate([flat, skin_triangles()]), len(flat)


def drawn_ids(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """Rasterises triangles: (height, width) int32, 1 + the index of the last one on each pixel, 0 for no triangle.

    The pixels of the edges count as inside, so that neighbours leave no gap. Triangles without an area are skipped.

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
    """Maps points from triangles to other triangles by their barycentric coordinates: (n, 2).

    A pixel on an edge may be half a pixel outside, which is far where a thin triangle maps to a wide one. Such a point
    takes the place of the nearest point inside, plus the distance to it in pixels.

    Args:
        points: (n, 2), one in each triangle of `target`.
        target, source: (n, 3, 2) corners; those of `target` have an area.
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
    """Colours of the picture at (h, w, 2) float32 places, x first: (h, w, 3) uint8. Outside, the edge is repeated."""
    return cv2.remap(picture, at[..., 0], at[..., 1], how, borderMode=cv2.BORDER_REPLICATE)
