"""Separates landmarks into a head pose and a face without pose, and joins pose and face again.

The face without pose has coordinates in the head's frame: a coordinate system that moves with the head. The pose is a
similarity: scale, rotation and shift. The pose is fitted by least squares in three dimensions (Umeyama 1991, eqs.
38-43), to points that speech and expression hardly move. MediaPipe's z has the same scale as x. Therefore a rotation of
the head rotates the three-dimensional points.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

# Inner and outer eye corners; bridge, tip and base of the nose; roots of the nose's wings; temples. Expressions move
# these points by less than 2 % of the distance between the outer eye corners.
RIGID = (33, 133, 263, 362, 6, 168, 197, 195, 5, 4, 1, 94, 98, 327, 127, 356, 162, 389)
EYES = (33, 263)  # outer eye corners; the distance between them is the unit of length in the head's frame


class Pose(NamedTuple):
    """Maps points from the head's frame to the picture, for T video frames: points @ rotation.T * scale + shift."""

    scale: np.ndarray  # (T,) px per unit of the head's frame
    rotation: np.ndarray  # (T, 3, 3)
    shift: np.ndarray  # (T, 3) px

    def part(self, index: slice | np.ndarray) -> Pose:
        """The pose of the chosen video frames."""
        return Pose(self.scale[index], self.rotation[index], self.shift[index])


def fit_pose(landmarks: np.ndarray, template: np.ndarray) -> Pose:
    """Computes, for each video frame, the similarity that maps the rigid points of the template to those of the face.

    Args:
        landmarks: (T, 478, 3) px, no NaN.
        template: (478, 3), a mean face in the head's frame; see `template_of`.
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
    """Maps (T, 478, 3) px to (T, 478, 3) float32 in the head's frame."""
    flat = (landmarks - pose.shift[:, None]) / pose.scale[:, None, None]
    return np.einsum("tpi,tij->tpj", flat, pose.rotation).astype(np.float32)


def to_picture(points: np.ndarray, pose: Pose) -> np.ndarray:
    """Maps (T, 478, 3) in the head's frame to (T, 478, 3) float32 px. The inverse of `to_head`."""
    turned = np.einsum("tpj,tij->tpi", points, pose.rotation)
    return (turned * pose.scale[:, None, None] + pose.shift[:, None]).astype(np.float32)


def template_of(landmarks: np.ndarray, rounds: int = 3) -> np.ndarray:
    """A mean face in the head's frame, (478, 3) float32.

    The distance between the outer eye corners is 1, and the point halfway between the corners is the origin. The axes
    are parallel to the axes of the picture in the first frame.

    Args:
        landmarks: (T, 478, 3) px, of one or several people, no NaN.
        rounds: number of times that the mean is computed and the poses are fitted to this mean.
    """
    template = _upright(landmarks[0].astype(np.float64))
    for _ in range(rounds):
        template = _upright(to_head(landmarks, fit_pose(landmarks, template)).mean(axis=0).astype(np.float64))
    return template.astype(np.float32)


def mean_face(tracks: Sequence[np.ndarray], frames: int = 512) -> np.ndarray:
    """The result of `template_of` for frames that are evenly spaced over all clips together.

    Args:
        tracks: the landmarks of each clip, (T, 478, 3) px, no NaN. There must be at least one frame in total.
        frames: the number of frames to use. If the clips have fewer frames, some frames are used more than once.
    """
    ends = np.cumsum([len(track) for track in tracks])
    at = np.linspace(0, ends[-1] - 1, frames).round().astype(int)
    of = np.searchsorted(ends, at, side="right")
    return template_of(np.stack([tracks[k][i - ends[k]] for k, i in zip(of, at, strict=True)]))  # a negative index


def _upright(points: np.ndarray) -> np.ndarray:
    left, right = points[EYES[0]], points[EYES[1]]
    return (points - (left + right) / 2) / np.linalg.norm(right - left)
