"""Prepares the flow renderer's inputs: face crops, sketches of landmarks, and the part of a crop that is drawn."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import cv2
import numpy as np

from cmet_reference.render.flow_nets import RendererSettings
from cmet_reference.render.triangles import OVAL
from talking_face.pretrained.face_landmarker import tasks

_MARGIN = 0.06  # margin around the face in its crop, as a share of the face's size


@dataclass
class FaceCrops:
    """The face crops of one clip, and the landmarks in these crops."""

    pictures: np.ndarray  # (T, size, size, 3) uint8 RGB
    points: np.ndarray  # (T, 478, 2) px of the crops


@cache
def _edges() -> tuple[tuple[np.ndarray, tuple[int, int, int]], ...]:
    """The lines of a sketch: for each part of the face, pairs of landmark indices (n, 2), and an RGB colour."""
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
    """Draws landmarks, (478, 2 or 3) px, as lines: (size, size, 3) uint8 RGB. Each part of the face has one colour."""
    out = np.zeros((size, size, 3), np.uint8)
    whole = np.round((points[:, :2] - 0.5) * 16).astype(np.int32)
    for edges, colour in _edges():
        cv2.polylines(out, list(whole[edges]), False, colour, 1, cv2.LINE_AA, 4)
    return out


def square(landmarks: np.ndarray, *more: np.ndarray) -> np.ndarray:
    """The square around all points of the tracks, (T, 478, 3) each, with a margin.

    Returns (3,): left, top and side, in px.
    """
    points = np.concatenate([track[..., :2].reshape(-1, 2) for track in (landmarks, *more)])
    low, high = points.min(axis=0), points.max(axis=0)
    side = (high - low).max() * (1 + 2 * _MARGIN)
    return np.array([*((low + high - side) / 2), side], np.float32)


def crop_matrix(box: np.ndarray, size: int) -> np.ndarray:
    """The affine map from picture to crop, (2, 3) float64. In picture and crop, pixel centres are whole numbers."""
    scale = size / box[2]
    return np.array([[scale, 0, (0.5 - box[0]) * scale - 0.5], [0, scale, (0.5 - box[1]) * scale - 0.5]], np.float64)


def crop(frames: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Crops the square `box` from frames (T, H, W, 3): (T, size, size, 3) uint8.

    Where the square is outside of the picture, the picture's edge is repeated.
    """
    matrix = crop_matrix(box, size)
    if box[2] > size:  # blur first, because warpAffine does not average pixels when it scales down
        frames = np.stack([cv2.GaussianBlur(f, (0, 0), 0.4 * float(box[2]) / size) for f in frames])
    return np.stack(
        [
            cv2.warpAffine(f, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
            for f in frames
        ]
    )


def in_crop(landmarks: np.ndarray, box: np.ndarray, size: int) -> np.ndarray:
    """Converts landmarks from px of the picture, (T, 478, 3), to px of the crop, (T, 478, 2)."""
    return ((landmarks[..., :2] - box[:2]) * (size / box[2])).astype(np.float32)


def drawn_part(points: np.ndarray, settings: RendererSettings, *more: np.ndarray) -> np.ndarray:
    """The pixels that the renderer draws: (size, size) bool.

    Args:
        points: (478, 2) px of the crop, the landmarks to draw.
        more: landmarks of the base picture in the crop. With these landmarks, the drawn part also covers the old face.
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
    """The network's inputs for one frame, and the true picture with the key `real`.

    Args:
        base: the clip to draw.
        known: the clip of the references.
        at: the frame of `base` to draw.
        window: frames of `base` whose sketches are inputs.
        references: frames of `known` that are the references.
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
    """Converts (..., H, W, C) uint8 to (..., C, H, W) float32 in [0, 1]."""
    return np.ascontiguousarray(np.moveaxis(pictures, -1, -3), np.float32) / np.float32(255)
