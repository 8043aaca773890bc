"""Separates landmarks into a head pose and a face in the head's frame, and joins them again.

The fit is Umeyama's least-squares similarity (1991, eqs. 38-43) in three dimensions, on points that speech and
expression hardly move. MediaPipe's z has the scale of x, so that a rotated head is a rotated set of points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Inner and outer eye corners, bridge, tip and base of the nose, roots of its wings, temples: expressions move them by
# less than 2 % of the eye distance.
RIGID = (33, 133, 263, 362, 6, 168, 197, 195, 5, 4, 1, 94, 98, 327, 127, 356, 162, 389)
EYES = (33, 263)  # outer corners; their distance is the unit of the head's frame


class Pose(NamedTuple):
    """The map from the head's frame to the picture, per frame: points @ rotation.T * scale + shift."""

    scale: np.ndarray  # (T,) px per eye distance
    rotation: np.ndarray  # (T, 3, 3)
    shift: np.ndarray  # (T, 3) px

    def part(self, index: slice | np.ndarray) -> Pose:
        """The pose of some frames."""
        return Pose(self.scale[index], self.rotation[index], self.shift[index])


def fit_pose(landmarks: np.ndarray, template: np.ndarray) -> Pose:
    """The similarity that maps the template's rigid points to each frame's.

    Args:
        landmarks: (T, 478, 3) px, no NaN.
        template: (478, 3) in the head's frame, in units of the distance between the outer eye corners.
    """
    target = landmarks[:, RIGID].astype(np.float64)
    source = template[list(RIGID)].astype(np.float64)
    centre = source.mean(axis=0)
    middle = target.mean(axis=1, keepdims=True)
    flat = source - centre
    covariance = np.einsum("tpi,pj->tij", target - middle, flat) / len(flat)
    u, s, vt = np.linalg.svd(covariance)
    sign = np.ones((len(target), 3))
    sign[:, 2] = np.sign(np.linalg.det(u) * np.linalg.det(vt))
    rotation = np.einsum("tij,tj,tjk->tik", u, sign, vt)
    scale = (s * sign).sum(axis=1) / (flat**2).sum(axis=1).mean()
    shift = middle[:, 0] - scale[:, None] * np.einsum("tij,j->ti", rotation, centre)
    return Pose(scale, rotation, shift)


def to_head(landmarks: np.ndarray, pose: Pose) -> np.ndarray:
    """(T, 478, 3) px to (T, 478, 3) float32 in the head's frame."""
    flat = (landmarks - pose.shift[:, None]) / pose.scale[:, None, None]
    return np.einsum("tpi,tij->tpj", flat, pose.rotation).astype(np.float32)


def to_picture(points: np.ndarray, pose: Pose) -> np.ndarray:
    """(T, 478, 3) in the head's frame to (T, 478, 3) float32 px. The inverse of `to_head`."""
    turned = np.einsum("tpj,tij->tpi", points, pose.rotation)
    return (turned * pose.scale[:, None, None] + pose.shift[:, None]).astype(np.float32)


def template_of(landmarks: np.ndarray, rounds: int = 3) -> np.ndarray:
    """A mean face in the head's frame, (478, 3) float32: outer eye corners level, at distance 1, centred at the origin.

    Args:
        landmarks: (T, 478, 3) px of any heads, no NaN.
    """
    template = _upright(landmarks[0].astype(np.float64))
    for _ in range(rounds):
        template = _upright(to_head(landmarks, fit_pose(landmarks, template)).mean(axis=0).astype(np.float64))
    return template.astype(np.float32)


def mean_face(tracks: Sequence[np.ndarray], frames: int = 512) -> np.ndarray:
    """`template_of` of some frames of many clips, evenly spread over all of them.

    Args:
        tracks: (T, 478, 3) px each, no NaN, at least one frame in all.
        frames: their number; frames are repeated where there are fewer.
    """
    ends = np.cumsum([len(track) for track in tracks])
    at = np.linspace(0, ends[-1] - 1, frames).round().astype(int)
    of = np.searchsorted(ends, at, side="right")
    return template_of(np.stack([tracks[k][i - ends[k]] for k, i in zip(of, at, strict=True)]))  # counted from the end


def _upright(points: np.ndarray) -> np.ndarray:
    left, right = points[EYES[0]], points[EYES[1]]
    return (points - (left + right) / 2) / np.linalg.norm(right - left)
