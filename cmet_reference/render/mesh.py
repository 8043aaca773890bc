"""The light renderer: the base picture's face is moved to the landmarks by a mesh of triangles. No network, one core.

Around the face two rings of points let the motion fade into hair, neck and backdrop. What opens wider than in the base
(the mouth, the eyes) is filled from the picture of the same person that shows it most alike, or, where nobody's mouth
was ever open, from a drawn one.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import NamedTuple, Protocol

import cv2
import numpy as np

from talking_face.pretrained.face_landmarker import tasks

REVISION = "mesh-1"  # of the pictures, without an expression's model
N_SKIN = 468  # MediaPipe's points without the irises, whose place the eyelids give well enough
_RIGHT = (338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400, 377)  # forehead to chin
_LEFT = (148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103, 67, 109)  # and back
OVAL = (10, *_RIGHT, 152, *_LEFT)
_EYES = (33, 263)  # outer corners: the unit of openings
_CHEEKS = (50, 280, 101, 330, 205, 425, 117, 346)  # skin that shows the light
_CENTRE = 4  # tip of the nose
_LEAST_AREA = 0.02  # px^2
_SHIFT = 4  # fillConvexPoly takes coordinates in 1/16 px


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


@dataclass(frozen=True)
class MeshSettings:
    """Lengths in units of the face's radius, openings in units of the eyes' distance, costs in log ratios."""

    rings: tuple[float, float] = (1.3, 1.9)  # of the face's outline about the nose; beyond the outer one nothing moves
    follow: float = 0.4  # share of the outline's own motion (a jaw that opens) that the inner ring follows
    slack: float = 0.01  # opening that is as good as shut
    own: float = 0.25  # advantage of the picture itself over another one: what lies there moves as it should
    change: float = 0.5  # cost of taking another picture than in the frame before
    drawn: float = 1.1  # cost of the drawn mouth: taken where every mouth is less than a third as open
    width: float = 2.0  # cost of a mouth that is wider or narrower by one eyes' distance
    donors: int = 6  # pictures of the base video, by quantiles of the opening, that may give their inside


class Expression(Protocol):
    """What an expression does to a picture beside moving the points that are detected in it."""

    revision: str

    def moved(self, target: np.ndarray, base: np.ndarray, frames: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where to move the picture's points so that a detector finds them at `target`, and the light's change.

        Args:
            target, base: (T, 478, 3) px, 0 at the picture's edge: as wanted, and in the picture that is moved.
            frames: (T, H, W, 3) uint8 RGB, that picture.

        Returns:
            (T, 478, 3) float32 px; (T, S, S) float32 factors on a square of the model's own.
        """
        ...

    def lit(self, picture: np.ndarray, points: np.ndarray, light: np.ndarray) -> np.ndarray:
        """The picture, (H, W, 3) uint8 RGB, with one frame's factors (S, S) laid over the face.

        Args:
            points: (468, 3) px of the face in it, pixel centres at whole numbers.
        """
        ...


class MeshRenderer:
    """Landmarks to pictures by piecewise affine motion. Implements `cmet_reference.render.base.Renderer`."""

    def __init__(self, settings: MeshSettings = MeshSettings(), expression: Expression | None = None) -> None:
        """`expression`: how far the mesh must go, and what creases come; without it points go where they are asked."""
        self.settings, self.expression = settings, expression
        self.revision = REVISION + (f"-{expression.revision}" if expression else "")

    def frames(
        self,
        landmarks: np.ndarray,
        reference_frames: np.ndarray,
        reference_landmarks: np.ndarray,
        base_frames: np.ndarray | None = None,
        base_landmarks: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Renderer.frames`. Without a base, head motion moves the first reference within the outer ring only."""
        n = len(landmarks)
        if (base_frames is None) != (base_landmarks is None):
            raise ValueError("base frames and base landmarks come together")
        if base_frames is None or base_landmarks is None:
            base_frames = np.broadcast_to(reference_frames[:1], (n, *reference_frames.shape[1:]))
            base_landmarks = np.broadcast_to(reference_landmarks[:1], (n, *reference_landmarks.shape[1:]))
        if not len(base_frames) == len(base_landmarks) == n:
            raise ValueError(f"{n} landmark sets, {len(base_frames)} base frames, {len(base_landmarks)} of their sets")
        lights: np.ndarray | None = None
        if self.expression:
            landmarks, lights = self.expression.moved(landmarks, base_landmarks, base_frames)
        # Pixel centres at whole numbers from here on; the landmarks' zero is the picture's edge.
        half = np.array([0.5, 0.5, 0], np.float32)
        target, source, references = (
            points[:, :N_SKIN].astype(np.float32) - half for points in (landmarks, base_landmarks, reference_landmarks)
        )
        donors = _donors(reference_frames, references, base_frames, source, self.settings)
        plans = [_plan(hole, target, source, donors, self.settings, index == MOUTH) for index, hole in enumerate(HOLES)]
        source_mesh, target_mesh = _with_rings(source, target, self.settings)
        out = np.empty((n, *base_frames.shape[1:]), np.uint8)
        for t in range(n):
            picture = np.ascontiguousarray(base_frames[t])
            moved = _warp(picture, source_mesh[t], target_mesh[t], target[t, :, 2])
            if self.expression and lights is not None:
                moved = self.expression.lit(moved, target[t], lights[t])
            light = _light(picture, source[t])
            for hole, plan in zip(HOLES, plans, strict=True):
                _fill(moved, hole, target[t], plan[t], donors, light)
            out[t] = moved
        return out


# The mesh ------------------------------------------------------------------------------------------------------------


@cache
def skin_triangles() -> np.ndarray:
    """(n, 3) int: the triangles of MediaPipe's tesselation, which leaves the eyes and the inside of the mouth open."""
    edges = tasks()[0].FaceLandmarksConnections.FACE_LANDMARKS_TESSELATION
    return np.array([[edge.start for edge in edges[i : i + 3]] for i in range(0, len(edges), 3)])


def back_to_front(points: np.ndarray) -> np.ndarray:
    """(n, 3) int: the skin's triangles, the farthest of (468, 3) points first: nearer ones are drawn over them."""
    triangles = skin_triangles()
    return np.asarray(triangles[np.argsort(-points[triangles][:, :, 2].mean(1), kind="stable")])


def _strip(upper: np.ndarray, lower: np.ndarray) -> np.ndarray:
    """(2 (n - 1), 3): triangles between two lines of n points."""
    first = np.stack([upper[:-1], upper[1:], lower[:-1]], 1)
    second = np.stack([upper[1:], lower[1:], lower[:-1]], 1)
    triangles = np.concatenate([first, second])
    apart = [(len(set(triangle)) == 3) for triangle in triangles.tolist()]  # the corners are in both lines
    return triangles[apart]


@cache
def _inside(hole: Hole) -> np.ndarray:
    return _strip(np.array(hole.upper), np.array(hole.lower))


@cache
def _triangles() -> tuple[np.ndarray, int]:
    """All triangles, those that skin may cover first; and how many those are (rings and holes)."""
    oval = np.array([*OVAL, OVAL[0]])
    count = len(OVAL)
    rings = [np.append(np.arange(count), 0) + N_SKIN + count * i for i in range(2)]
    under = [_strip(oval, rings[0]), _strip(rings[0], rings[1]), *(_inside(hole) for hole in HOLES)]
    flat = np.concatenate(under)
    return np.concatenate([flat, skin_triangles()]), len(flat)


def _with_rings(source: np.ndarray, target: np.ndarray, settings: MeshSettings) -> tuple[np.ndarray, np.ndarray]:
    """(T, 468, 3) twice to (T, 540, 2) twice: the rings' points lie in the base picture; the inner ones move with the
    head and a part of the outline's own motion, the outer ones stay."""
    oval, moved = source[:, OVAL, :2], target[:, OVAL, :2]
    centre = source[:, _CENTRE, None, :2]
    inner, outer = (centre + scale * (oval - centre) for scale in settings.rings)
    head = np.stack([_similarity(a[:, :2], b[:, :2]) for a, b in zip(source, target, strict=True)])

    def with_head(points: np.ndarray) -> np.ndarray:
        return np.einsum("tpj,tij->tpi", points, head[:, :, :2]) + head[:, None, :, 2]

    goes = with_head(inner) + settings.follow * (moved - with_head(oval))
    return np.concatenate([source[..., :2], inner, outer], 1), np.concatenate([target[..., :2], goes, outer], 1)


def _similarity(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(2, 3): the least-squares rotation, scale and shift from a to b, (n, 2) each, as complex numbers."""
    p, q = a[:, 0] + 1j * a[:, 1], b[:, 0] + 1j * b[:, 1]
    flat = p - p.mean()
    turn = np.vdot(flat, q - q.mean()) / np.vdot(flat, flat)
    shift = q.mean() - turn * p.mean()
    return np.array([[turn.real, -turn.imag, shift.real], [turn.imag, turn.real, shift.imag]], np.float32)


def _warp(picture: np.ndarray, source: np.ndarray, target: np.ndarray, depth: np.ndarray) -> np.ndarray:
    """The picture with the mesh `source` (540, 2) moved to `target`; beyond the mesh it stays as it is.

    Triangles are drawn from back to front, so that a turned head hides what lies behind it.
    """
    triangles, under = _triangles()
    height, width = picture.shape[:2]
    order = np.argsort(-depth[triangles[under:]].mean(1), kind="stable") + under
    order = np.concatenate([np.arange(under), order])
    ids = drawn_ids(target[triangles[order]], height, width)
    y, x = np.nonzero(ids)
    where = triangles[order[ids[y, x] - 1]]
    place = mapped(np.stack([x, y], 1).astype(np.float32), target[where], source[where])
    grid = np.stack(np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)), -1)
    grid[y, x] = place
    return sampled(picture, grid, cv2.INTER_CUBIC)


def drawn_ids(corners: np.ndarray, height: int, width: int) -> np.ndarray:
    """(height, width) int32: 1 + the last triangle of `corners` (n, 3, 2) on the pixel, 0 where there is none.

    The edges' pixels belong to a triangle too, so neighbours leave no crack. Those without an area are left out: a
    place on a line has no place inside.
    """
    ids = np.zeros((height, width), np.int32)
    a, b = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
    flat = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) < 2 * _LEAST_AREA
    whole = np.round(corners * (1 << _SHIFT)).astype(np.int32)
    for index in np.flatnonzero(~flat):
        cv2.fillConvexPoly(ids, whole[index], int(index) + 1, shift=_SHIFT)
    return ids


def mapped(points: np.ndarray, target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """(n, 2) points in triangles (n, 3, 2) that have an area to the same barycentric place in others.

    A pixel on a triangle's edge may lie outside by half a pixel, which may be far in a thin triangle that was a wide
    one: it takes the place of the nearest point inside, and goes on from there by as many pixels.
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
    """Colours of the picture at (h, w, 2) float32 places, x first: (h, w, 3) uint8; the edge's beyond the edge."""
    return cv2.remap(picture, at[..., 0], at[..., 1], how, borderMode=cv2.BORDER_REPLICATE)


# What opens ----------------------------------------------------------------------------------------------------------


class _Donors(NamedTuple):
    """Pictures that may give the inside of an opening."""

    frames: list[np.ndarray]  # (H, W, 3) uint8 RGB
    points: np.ndarray  # (K, 468, 3)
    light: np.ndarray  # (K, 3) mean colour of the cheeks
    drawn: tuple[np.ndarray, np.ndarray]  # a drawn mouth and its points


def _donors(
    frames: np.ndarray, points: np.ndarray, base: np.ndarray, base_points: np.ndarray, settings: MeshSettings
) -> _Donors:
    """References, and the base frames at quantiles of each opening."""
    chosen: set[int] = set()
    if not np.array_equal(base[0], base[-1]):  # a held picture gives nothing new
        for hole in HOLES:
            order = np.argsort(_opening(hole, base_points)[:, 0], kind="stable")
            chosen |= {int(order[round(q)]) for q in np.linspace(0, len(order) - 1, settings.donors)}
    pictures = [np.ascontiguousarray(frame) for frame in [*frames, *(base[i] for i in sorted(chosen))]]
    places = np.concatenate([points, base_points[sorted(chosen)]])
    light = np.stack([_light(p, q) for p, q in zip(pictures, places, strict=True)])
    return _Donors(pictures, places, light, _drawn_mouth(pictures, places, light))


def _opening(hole: Hole, points: np.ndarray) -> np.ndarray:
    """(T, 2): mean height and width of an opening, in units of the distance between the outer eye corners."""
    unit = np.linalg.norm(points[:, _EYES[0]] - points[:, _EYES[1]], axis=-1)
    gaps = points[:, hole.lower[1:-1]] - points[:, hole.upper[1:-1]]
    # Along the face's own upright: lips that overlap are shut, not open.
    up = points[:, 152] - points[:, 10]
    up /= np.linalg.norm(up, axis=-1, keepdims=True)
    height = np.einsum("tpi,ti->tp", gaps, up).clip(0).mean(1)
    width = np.linalg.norm(points[:, hole.upper[0]] - points[:, hole.upper[-1]], axis=-1)
    return np.stack([height, width], 1) / unit[:, None]


def _plan(
    hole: Hole, target: np.ndarray, source: np.ndarray, donors: _Donors, settings: MeshSettings, drawable: bool
) -> list[dict[int, float]]:
    """For each frame the donors of an opening and their weights: -1 the base picture itself, K the drawn mouth.

    The cheapest path through the frames (Viterbi), softened over three frames, so that the inside does not flicker.
    """
    want, own, others = _opening(hole, target), _opening(hole, source), _opening(hole, donors.points)

    def cost(have: np.ndarray) -> np.ndarray:
        ratio = np.log((have[..., 0] + settings.slack) / (want_[..., 0] + settings.slack))
        return np.abs(ratio) + settings.width * np.abs(have[..., 1] - want_[..., 1])

    want_ = want[:, None]
    each = np.broadcast_to(others, (len(want), *others.shape))
    costs = [cost(own[:, None]) - settings.own, cost(each)]
    if drawable:
        costs.append(np.full((len(want), 1), settings.drawn))
    table = np.concatenate(costs, 1)
    path = _cheapest(table, settings.change)
    near = np.stack([path[np.clip(np.arange(len(path)) + d, 0, len(path) - 1)] for d in (-1, 0, 1)])
    plans = []
    for three in near.T:
        weights: dict[int, float] = {}
        for index, weight in zip(three, (0.25, 0.5, 0.25), strict=True):
            weights[int(index) - 1] = weights.get(int(index) - 1, 0.0) + weight
        plans.append(weights)
    return plans


def _cheapest(costs: np.ndarray, change: float) -> np.ndarray:
    """(T, K) costs to (T,) choices with the least sum, where a change of choice costs `change`."""
    total, back = costs[0].copy(), np.zeros(costs.shape, int)
    for t in range(1, len(costs)):
        best = int(total.argmin())
        jump = total[best] + change < total
        back[t] = np.where(jump, best, np.arange(len(total)))
        total = np.where(jump, total[best] + change, total) + costs[t]
    path = np.empty(len(costs), int)
    path[-1] = int(total.argmin())
    for t in range(len(costs) - 1, 0, -1):
        path[t - 1] = back[t, path[t]]
    return path


def _fill(
    picture: np.ndarray, hole: Hole, target: np.ndarray, plan: dict[int, float], donors: _Donors, light: np.ndarray
) -> None:
    """Put the donors' inside into an opening of `picture`, in place."""
    if set(plan) == {-1}:
        return
    edge = target[[*hole.upper, *hole.lower[-2:0:-1]], :2]
    height, width = picture.shape[:2]
    low = np.maximum(np.floor(edge.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(edge.max(0)).astype(int) + 2, [width, height])
    if (high <= low).any():
        return
    size = high - low
    # How much of each pixel the opening covers: drawn four times as large, then averaged.
    large = np.zeros((4 * size[1], 4 * size[0]), np.uint8)
    outline = np.round(((edge - low) * 4 + 1.5) * (1 << _SHIFT)).astype(np.int32)
    cv2.fillPoly(large, [outline], 255, shift=_SHIFT)
    cover = cv2.resize(large, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    if not cover.any():
        return
    triangles = _inside(hole)
    ids = drawn_ids(target[triangles, :2] - low, size[1], size[0])
    y, x = np.nonzero((ids > 0) & (cover > 0))
    if not len(y):
        return
    where = triangles[ids[y, x] - 1]
    points = (np.stack([x, y], 1) + low).astype(np.float32)
    mixed = np.zeros((len(y), 3), np.float32)
    for index, weight in plan.items():
        if index < 0:
            mixed += weight * picture[y + low[1], x + low[0]]
            continue
        if index < len(donors.frames):
            frame, place, gain = donors.frames[index], donors.points[index, :, :2], light / donors.light[index]
        else:
            frame, place, gain = donors.drawn[0], donors.drawn[1][:, :2], np.ones(3, np.float32)
        # A map of the whole box: OpenCV takes no more than 32767 places in a row.
        at = np.zeros((size[1], size[0], 2), np.float32)
        at[y, x] = mapped(points, target[where, :2], place[where])
        taken = sampled(frame, at, cv2.INTER_LINEAR)[y, x]
        mixed += weight * taken * np.clip(gain, 0.7, 1.4)
    part = picture[low[1] : high[1], low[0] : high[0]]
    share = cover[y, x, None]
    part[y, x] = np.clip(np.round(part[y, x] * (1 - share) + mixed * share), 0, 255)


def _light(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """(3,) float32: mean colour of the cheeks, at least 1."""
    at = points[list(_CHEEKS), None, :2]
    near = np.concatenate([at + np.array([dx, dy], np.float32) for dx in (-2, 0, 2) for dy in (-2, 0, 2)])
    colours = sampled(picture, near, cv2.INTER_LINEAR)
    return np.maximum(colours.reshape(-1, 3).mean(0), 1).astype(np.float32)


def _drawn_mouth(frames: list[np.ndarray], points: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A mouth's inside (40, 80, 3) and where its edge lies in it (468, 3): dark, with a band of upper teeth.

    The teeth take the brightest tenth of the widest open mouth at hand where that is brighter than half the cheeks,
    else two thirds of the cheeks' brightness, a little yellow.
    """
    hole, shape = HOLES[MOUTH], (40, 80)
    opening = _opening(hole, points)[:, 0]
    best = int(opening.argmax())
    skin = light[best]
    teeth = skin.mean() * np.array([0.72, 0.67, 0.61], np.float32)
    if opening[best] > 0.05:
        mask = np.zeros(frames[best].shape[:2], np.uint8)
        edge = points[best, [*hole.upper, *hole.lower[-2:0:-1]], :2]
        cv2.fillPoly(mask, [np.round(edge).astype(np.int32)], 255)
        colours = frames[best][mask > 0].astype(np.float32)
        bright = colours[colours.mean(1) >= np.quantile(colours.mean(1), 0.9)].mean(0) if len(colours) else teeth
        teeth = bright if bright.mean() > skin.mean() / 2 else teeth
    v, u = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(-1, 1, shape[1]), indexing="ij")
    dark = skin * np.array([0.30, 0.17, 0.15], np.float32)
    tongue = skin * np.array([0.55, 0.32, 0.30], np.float32)
    band = np.clip((0.34 - v) / 0.10, 0, 1) * np.clip((0.85 - np.abs(u)) / 0.35, 0, 1)
    hump = np.clip((v - 0.70) / 0.25, 0, 1) * np.clip((0.8 - np.abs(u)) / 0.4, 0, 1) * 0.7
    inside = dark + hump[..., None] * (tongue - dark)
    inside = inside + band[..., None] * (teeth - inside)
    place = np.zeros((N_SKIN, 3), np.float32)
    for line, low in ((hole.upper, 0.0), (hole.lower, 1.0)):
        x = np.linspace(-1, 1, len(line))
        bow = np.sqrt(1 - x**2) * (low - 0.5) + 0.5
        place[list(line), :2] = np.stack([(x + 1) / 2 * (shape[1] - 1), bow * (shape[0] - 1)], 1)
    return np.clip(np.round(inside), 0, 255).astype(np.uint8), place
