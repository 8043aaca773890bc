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
def under_triangles() -> np.ndarray:
    """The triangles of the rings around the face and of the openings, (n, 3) int. The skin is drawn over them."""
    oval = np.array([*OVAL, OVAL[0]])
    count = len(OVAL)
    rings = [np.append(np.arange(count), 0) + N_SKIN + count * i for i in range(2)]
    under = [_strip(oval, rings[0]), _strip(rings[0], rings[1]), *(hole_triangles(hole) for hole in HOLES)]
    return np.concatenate(under)


@cache
def pixel_grid(height: int, width: int) -> np.ndarray:
    """The place of every pixel, (2, height, width) float32, x first. The array cannot be written to."""
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    grid = np.stack([x, y])
    grid.flags.writeable = False
    return grid


class Barycentric(NamedTuple):
    """Points in triangles, as coordinates that do not depend on the places of the corners.

    A pixel on an edge can be up to half a pixel outside of its triangle. If a thin triangle is mapped to a wide one,
    the result would be far outside. Therefore `v` and `w` are of the nearest point inside the triangle, and `beyond` is
    the small distance from this point to the pixel.
    """

    v: np.ndarray  # (m,) share of the side from the first to the second corner
    w: np.ndarray  # (m,) share of the side from the first to the third corner
    beyond: tuple[np.ndarray, np.ndarray]  # (m,) px each, x and y
    which: np.ndarray  # (m,) int, the triangle of each point

    @classmethod
    def of(cls, points: np.ndarray, corners: np.ndarray, which: np.ndarray) -> Barycentric:
        """The coordinates of points.

        Sides and areas are computed once per triangle, and x and y are in separate arrays. This takes a quarter of the
        time of the same arithmetic on (m, 2) arrays.

        Args:
            points: (m, 2) px.
            corners: (n, 3, 2) px, the corners of the triangles.
            which: (m,) int, the triangle of each point. These triangles must have an area.
        """
        ax, bx, ox = _sides(corners[..., 0])
        ay, by, oy = _sides(corners[..., 1])
        area = (ax * by - ay * bx).take(which)
        ax, ay, bx, by = (side.take(which) for side in (ax, ay, bx, by))
        px, py = points[:, 0] - ox.take(which), points[:, 1] - oy.take(which)
        v = np.clip((px * by - py * bx) / area, 0, 1)
        w = np.clip((ax * py - ay * px) / area, 0, 1)
        over = np.maximum(v + w, 1)
        v /= over
        w /= over
        return cls(v, w, (px - (v * ax + w * bx), py - (v * ay + w * by)), which)

    def placed(self, corners: np.ndarray) -> np.ndarray:
        """The places of the points, (2, m) px, x first, in triangles with other corners, (n, 3, 2) px."""
        places = []
        for axis, beyond in enumerate(self.beyond):
            to_a, to_b, origin = (side.take(self.which) for side in _sides(corners[..., axis]))
            places.append(origin + self.v * to_a + self.w * to_b + beyond)
        return np.stack(places)


class Drawn(NamedTuple):
    """The M pixels of a picture that triangles cover, and the triangle that is seen at each of these pixels."""

    y: np.ndarray  # (M,) int
    x: np.ndarray  # (M,) int
    triangles: np.ndarray  # (n, 3) int: the corners of each triangle, as indices of points, in the order of drawing
    which: np.ndarray  # (M,) int, indices of triangles

    def after(self, first: int) -> Drawn:
        """The pixels of the triangles from index `first` on, without the triangles before them.

        A later triangle is drawn over the earlier ones, so the earlier triangles do not change these pixels.
        """
        kept = self.which >= first
        return Drawn(self.y[kept], self.x[kept], self.triangles[first:], self.which[kept] - first)

    def in_mesh(self, points: np.ndarray) -> Barycentric:
        """The pixels as places in the triangles of the mesh with these points, (P, 2) px."""
        pixels = np.stack([self.x, self.y], 1).astype(np.float32)
        return Barycentric.of(pixels, points[self.triangles], self.which)

    def mapped(self, target: np.ndarray, source: np.ndarray) -> np.ndarray:
        """Maps every pixel from the mesh `target` to the mesh `source`, (P, 2) px each. Returns (2, M) px, x first."""
        return self.in_mesh(target).placed(source[self.triangles])


def draw(points: np.ndarray, triangles: np.ndarray, height: int, width: int) -> Drawn:
    """Draws the triangles of a mesh in their order.

    Args:
        points: (P, 2) px; pixel centres are whole numbers.
        triangles: (n, 3) int, indices of points.
        height, width: size of the picture, px.
    """
    ids = drawn_ids(points[triangles], height, width)
    y, x = np.nonzero(ids > 0)
    return Drawn(y, x, triangles, ids[y, x] - 1)


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
    for index in np.flatnonzero(~flat).tolist():
        cv2.fillConvexPoly(ids, whole[index], index + 1, shift=SHIFT)
    return ids


def _sides(corners: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two sides from the first corner, and this corner, (n,) each, from one coordinate of the corners, (n, 3)."""
    first = corners[:, 0]
    return corners[:, 1] - first, corners[:, 2] - first, np.ascontiguousarray(first)


def sampled(picture: np.ndarray, at: np.ndarray, how: int) -> np.ndarray:
    """Samples the colours of a picture: (h, w, 3) uint8. Outside of the picture, its edge is repeated.

    Args:
        at: (2, h, w) float32, the places in the picture, x first.
        how: OpenCV's interpolation.
    """
    return cv2.remap(picture, at[0], at[1], how, borderMode=cv2.BORDER_REPLICATE)
