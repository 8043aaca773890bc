"""Fills the inside of a mouth or an eye that opens wider than in the base picture.

The inside is copied from other pictures of the same person, which are called donors, or from a drawn mouth.
"""

from __future__ import annotations

from typing import NamedTuple

import cv2
import numpy as np

from cmet_reference.render.mesh_settings import MeshSettings
from cmet_reference.render.triangles import (
    HOLES,
    MOUTH,
    N_SKIN,
    SHIFT,
    Barycentric,
    Hole,
    drawn_ids,
    hole_triangles,
    sampled,
)

_EYES = (33, 263)  # outer eye corners; the distance between them is the unit of openings
_CHEEKS = (50, 280, 101, 330, 205, 425, 117, 346)  # points on the cheeks; their mean colour measures the light


class Donors(NamedTuple):
    """The K pictures from which the inside of an opening can be copied, and a drawn mouth."""

    frames: list[np.ndarray]  # (H, W, 3) uint8 RGB each
    points: np.ndarray  # (K, 468, 3) px of the pictures
    light: np.ndarray  # (K, 3) mean colour of the cheeks
    drawn: tuple[np.ndarray, np.ndarray]  # the drawn mouth and its points

    def source(self, index: int, light: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The picture of a donor, its points (468, 2), and the factor (3,) that adapts its colours to `light`.

        Args:
            index: the donor; K is the drawn mouth.
            light: (3,), mean colour of the cheeks in the picture to fill.
        """
        if index < len(self.frames):
            return self.frames[index], self.points[index, :, :2], light / self.light[index]
        return self.drawn[0], self.drawn[1][:, :2], np.ones(3, np.float32)


def choose_donors(
    frames: np.ndarray, points: np.ndarray, base: np.ndarray, base_points: np.ndarray, settings: MeshSettings
) -> Donors:
    """Chooses the donors: all reference frames and, for each opening, base frames at quantiles of the opening's height.

    Args:
        frames, points: the reference frames and their points.
        base, base_points: the base frames and their points.
        settings: `donors` is the number of base frames per opening.
    """
    chosen: set[int] = set()
    if not np.array_equal(base[0], base[-1]):  # a still picture is not needed as a donor
        for hole in HOLES:
            order = np.argsort(opening_size(hole, base_points)[:, 0], kind="stable")
            chosen |= {int(order[round(q)]) for q in np.linspace(0, len(order) - 1, settings.donors)}
    pictures = [np.ascontiguousarray(frame) for frame in [*frames, *(base[i] for i in sorted(chosen))]]
    places = np.concatenate([points, base_points[sorted(chosen)]])
    light = np.stack([cheek_colour(p, q) for p, q in zip(pictures, places, strict=True)])
    return Donors(pictures, places, light, _drawn_mouth(pictures, places, light))


def opening_size(hole: Hole, points: np.ndarray) -> np.ndarray:
    """Mean height and width of an opening in each frame, (T, 2), in units of the distance between outer eye corners."""
    unit = np.linalg.norm(points[:, _EYES[0]] - points[:, _EYES[1]], axis=-1)
    gaps = points[:, hole.lower[1:-1]] - points[:, hole.upper[1:-1]]
    # Heights are measured along the line from forehead to chin. Where lips overlap, the height is 0.
    up = points[:, 152] - points[:, 10]
    up /= np.linalg.norm(up, axis=-1, keepdims=True)
    height = np.einsum("tpi,ti->tp", gaps, up).clip(0).mean(1)
    width = np.linalg.norm(points[:, hole.upper[0]] - points[:, hole.upper[-1]], axis=-1)
    return np.stack([height, width], 1) / unit[:, None]


def plan_donors(
    hole: Hole, target: np.ndarray, source: np.ndarray, donors: Donors, settings: MeshSettings, drawable: bool
) -> list[dict[int, float]]:
    """For each frame, the donors of an opening and the weights of these donors.

    The Viterbi algorithm chooses the sequence of donors with the least total cost over all frames. Then the choice is
    smoothed over three frames with weights, to prevent flicker.

    Args:
        target, source: (T, 468, 3) px, the points to draw and the points of the base frames.
        settings: the costs; see `MeshSettings`.
        drawable: the drawn mouth is allowed.

    Returns:
        for each frame, weights by index of the donor. Index -1 is the base picture itself, and index K is the drawn
        mouth.
    """
    want, own, others = opening_size(hole, target), opening_size(hole, source), opening_size(hole, donors.points)

    def cost(have: np.ndarray) -> np.ndarray:
        ratio = np.log((have[..., 0] + settings.slack) / (want_[..., 0] + settings.slack))
        return np.abs(ratio) + settings.width * np.abs(have[..., 1] - want_[..., 1])

    want_ = want[:, None]
    each = np.broadcast_to(others, (len(want), *others.shape))
    costs = [cost(own[:, None]) - settings.own, cost(each)]
    if drawable:
        costs.append(np.full((len(want), 1), settings.drawn))
    table = np.concatenate(costs, 1)
    path = cheapest_path(table, settings.change)
    near = np.stack([path[np.clip(np.arange(len(path)) + d, 0, len(path) - 1)] for d in (-1, 0, 1)])
    plans = []
    for three in near.T:
        weights: dict[int, float] = {}
        for index, weight in zip(three, (0.25, 0.5, 0.25), strict=True):
            weights[int(index) - 1] = weights.get(int(index) - 1, 0.0) + weight
        plans.append(weights)
    return plans


def cheapest_path(costs: np.ndarray, change: float) -> np.ndarray:
    """The choices, (T,), with the least sum of costs.

    Args:
        costs: (T, K), the cost of each choice in each frame.
        change: added to the sum whenever the choice differs from the choice in the frame before.
    """
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


def fill_opening(
    picture: np.ndarray, hole: Hole, target: np.ndarray, plan: dict[int, float], donors: Donors, light: np.ndarray
) -> None:
    """Copy the inside of an opening from the donors into `picture`, in place.

    Args:
        target: (468, 3) px of the face in the picture.
        plan: weights of the donors for this frame, from `plan_donors`.
        light: (3,) mean colour of the cheeks in the picture.
    """
    if set(plan) == {-1}:
        return
    edge = target[[*hole.upper, *hole.lower[-2:0:-1]], :2]
    height, width = picture.shape[:2]
    low = np.maximum(np.floor(edge.min(0)).astype(int) - 1, 0)
    high = np.minimum(np.ceil(edge.max(0)).astype(int) + 2, [width, height])
    if (high <= low).any():
        return
    size = high - low
    # The share of each pixel that the opening covers: drawn at four times the size, then averaged.
    large = np.zeros((4 * size[1], 4 * size[0]), np.uint8)
    outline = np.round(((edge - low) * 4 + 1.5) * (1 << SHIFT)).astype(np.int32)
    cv2.fillPoly(large, [outline], 255, shift=SHIFT)
    cover = cv2.resize(large, (int(size[0]), int(size[1])), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
    if not cover.any():
        return
    triangles = hole_triangles(hole)
    ids = drawn_ids(target[triangles, :2] - low, size[1], size[0])
    y, x = np.nonzero((ids > 0) & (cover > 0))
    if not len(y):
        return
    pixels = (np.stack([x, y], 1) + low).astype(np.float32)
    inside = Barycentric.of(pixels, target[triangles, :2], ids[y, x] - 1)
    mixed = np.zeros((len(y), 3), np.float32)
    for index, weight in plan.items():
        if index < 0:
            mixed += weight * picture[y + low[1], x + low[0]]
            continue
        frame, place, gain = donors.source(index, light)
        # All places of the box are sampled as a two-dimensional array, because OpenCV accepts at most 32767 places in
        # one row.
        at = np.zeros((2, size[1], size[0]), np.float32)
        at[:, y, x] = inside.placed(place[triangles])
        taken = sampled(frame, at, cv2.INTER_LINEAR)[y, x]
        mixed += weight * taken * np.clip(gain, 0.7, 1.4)
    part = picture[low[1] : high[1], low[0] : high[0]]
    share = cover[y, x, None]
    part[y, x] = np.clip(np.round(part[y, x] * (1 - share) + mixed * share), 0, 255)


def cheek_colour(picture: np.ndarray, points: np.ndarray) -> np.ndarray:
    """The mean colour of the cheeks, (3,) float32. Values are at least 1, because other colours are divided by them."""
    at = points[list(_CHEEKS), :2]
    near = np.concatenate([at + np.array([dx, dy], np.float32) for dx in (-2, 0, 2) for dy in (-2, 0, 2)])
    colours = sampled(picture, np.ascontiguousarray(near.T[..., None]), cv2.INTER_LINEAR)
    return np.maximum(colours.reshape(-1, 3).mean(0), 1).astype(np.float32)


def _drawn_mouth(frames: list[np.ndarray], points: np.ndarray, light: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Draws the inside of a mouth, (40, 80, 3) uint8 RGB. Also returns the places of its edge, (468, 3) px.

    The drawing is dark, with upper teeth and a tongue. The colour of the teeth is the colour of the brightest tenth of
    the pixels in the widest open mouth of the pictures. If this colour has at most half of the cheeks' brightness, the
    teeth get two thirds of the cheeks' brightness and a slightly yellow colour instead.
    """
    hole, shape = HOLES[MOUTH], (40, 80)
    opening = opening_size(hole, points)[:, 0]
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
