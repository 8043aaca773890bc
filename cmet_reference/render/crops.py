"""Prepares the flow renderer's inputs: face crops, sketches of landmarks, and the part of a crop that is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from cmet_reference.render.flow_nets import RendererSettings
from cmet_reference.render.triangles import OVAL
from talking_face.pretrained.face_landmarker import tasks

_MARGIN = 0.06  # around the face in its crop, as a share of its size


@dataclass
class FaceCrops:
    """One clip: crops (T, size, size, 3) uint8 and points (T, 478, 2) px in them."""

    pictures: np.ndarray
    points: np.ndarray


@cache
def _edges() -> tuple[tuple[np.ndarray, tuple[int, int, int]], ...]:
    """Edges between landmarks, (n, 2) each, with their RGB colour in a sketch."""
    known = tasks()[0].FaceLandmarksConnections
    colours = {
        "FACE_OVAL": (255, 255, 255),
        "NOSE": (128, 128, 255),
        "LEFT_EYEBROW": (255, 255, 0),
        "RIGHT_EYEBROW": (255, 160, 0),
        "LEFT_EYE": (0, 255, 255),
        "RIGHT_EYE": (0, 160, 255),
        "LIPS": (255, 0, 80),
    }
    return tuple(
        (np.array([(e.start, e.end) for e in getattr(known, f"FACE_LANDMARKS_{name}")]), colour)
        for name, colour in colours.items()
    )


def sketch(points: np.ndarray, size: int) -> np.ndarray:
    """Draws landmarks, (478, 2 or 3) px, as lines: (size, size, 3) uint8 RGB, one colour for each part of the face."""
    out = np.zeros((size, size, 3), np.uint8)
    whole = np.round((points[:, :2] - 0.5) * 16).astype(np.int32)
    for edges, colour in _edges():
        cv2.polylines(out, list(whole[edges]), False, colour, 1, cv2.LINE_AA, 4)
    return out


def square(landmarks: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """The square around all points of (T, 478, 3) tracks, with a margin: (3,) left, top and side in px."""
    points = np.concatenate([track[..., :2].reshape(-1, 2) for track in (landmarks, *more)])
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low).max() * (1 + 2 * _MARGIN)
    return np.array([*((low + high - side) / 2), side], np.float32)


def crop_matrix(box: np.ndarray, size: int) -> np.ndarray:
    """(2, 3) float64: the map from picture to crop, in coordinates of pixel centres."""
    scale = size / box[2]
    return np.array([[scale, 0, (0.5 - box[0]) * scale - 0.5], [0, scale, (0.5 - box[1]) * scale - 0.5]], np.float64)


def crop(frames: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(T, H, W, 3) to (T, size, size, 3) uint8. Outside of the picture its edge is repeated."""
    matrix = crop_matrix(box, size)
    if box[2] > size:  # blur before downscaling, as INTER_AREA would
        frames = np.stack([cv2.GaussianBlur(f, (0, 0), 0.4 * float(box[2]) / size) for f in frames])
    return np.stack(
        [
            cv2.warpAffine(f, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for f in frames
        ]
    )


def in_crop(landmarks: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """(T, 478, 3) px of the picture to (T, 478, 2) px of the crop."""
    return ((landmarks[..., :2] - box[:2]) * (size / box[2])).astype(np.float32)


def drawn_part(points: np.ndarray, settings: RendererSettings, *more: np.ndarray) -> np.ndarray:
    """The pixels that the renderer draws: (size, size) bool, for points (478, 2) px of the crop.

    Args:
        more: points of the base, whose face is drawn over too.
    """
    mask = np.zeros((settings.size, settings.size), np.uint8)
    if settings.region == "lower":
        mask[settings.size // 2 :] = 1
    else:
        for outline in (points, *more):
            cv2.fillPoly(mask, [np.round(outline[list(OVAL)]).astype(np.int32)], 1)
    return mask > 0


def network_inputs(
    base: FaceCrops, known: FaceCrops, at: int, window: np.ndarray, references: np.ndarray, s: RendererSettings
) -> dict[str, np.ndarray]:
    """The network's inputs for frame `at`, and `real`, the base's own picture.

    Args:
        base, known: the clip that is drawn, and the one with the references.
        window: frames of the base whose sketches are given.
        references: frames of `known`.
    """
    real = base.pictures[at]
    masked = np.where(drawn_part(base.points[at], s)[..., None], 0, real)
    wanted = np.concatenate([sketch(base.points[i], s.size) for i in window], axis=-1)
    sketches = np.stack([sketch(known.points[i], s.size) for i in references])
    return {
        "real": to_channels_first(real),
        "masked": to_channels_first(masked),
        "wanted": to_channels_first(wanted),
        "pictures": to_channels_first(known.pictures[references]),
        "sketches": to_channels_first(sketches),
    }


def to_channels_first(pictures: np.ndarray) -> np.ndarray:
    """(..., H, W, C) uint8 to (..., C, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(np.moveaxis(pictures, -1, -3), np.float32) / np.float32(255)
