"""Finds the MediaPipe landmarks of a sample once, for all metrics that use landmarks."""

from __future__ import annotations

from collections.abc import Hashable
from typing import cast

import numpy as np

from cmet_metrics.base import Sample
from talking_face.faces.points68 import to_68
from talking_face.pretrained.face_landmarker import landmarker_tag
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason

# The six points around each eye among the 68 points. Their mean is the centre of the eye.
_LEFT, _RIGHT = slice(36, 42), slice(42, 48)
# Points that speech and blinks do not move: the nose and the corners of the eyes.
RIGID = (*range(27, 36), 36, 39, 42, 45)
MEDIAPIPE_MS = 9.0  # processor time for one frame; see `MetricRecord.ms_per_frame`
MESH = "mediapipe-mesh"  # the key of (points, blendshapes) in `Sample.cached`

Mesh = tuple[np.ndarray, np.ndarray]


def mediapipe_landmarks(sample: Sample, files: ModelFiles) -> np.ndarray:
    """(T, 478, 3) float32 in pixels of the sample's frames, NaN for frames without a face.

    Face Landmarker runs in video mode on the whole frame. Therefore the frames should be face crops or show one large
    face.
    """
    return _mesh(sample, files)[0]


def mediapipe_68(sample: Sample, files: ModelFiles) -> np.ndarray:
    """(T, 68, 2) float64: MediaPipe's points that match dlib's 68 points, px, NaN for frames without a face."""
    return to_68(mediapipe_landmarks(sample, files)).astype(np.float64)


def mediapipe_blendshapes(sample: Sample, files: ModelFiles) -> np.ndarray:
    """(T, 52) float32 in [0, 1], NaN for frames without a face; from the same run as the landmarks."""
    return _mesh(sample, files)[1]


def points_id() -> str:
    """The name of MediaPipe's points in signatures."""
    return f"mediapipe478-68@{landmarker_tag()}"


def give_mesh(sample: Sample, mesh: Mesh) -> None:
    """Store known points, (T, 478, 3), and blendshapes, (T, 52), so that the landmarker does not run on `sample`.

    Raises ValueError for other shapes. T is the number of frames of the sample.
    """
    n = len(sample.frames)
    if mesh[0].shape != (n, 478, 3) or mesh[1].shape != (n, 52):
        raise ValueError(f"{sample.name}: a mesh is ({n}, 478, 3) and ({n}, 52), got {mesh[0].shape} {mesh[1].shape}")
    sample.cached(MESH, lambda _: mesh)


def known_mesh(sample: Sample) -> Mesh | None:
    """The points, (T, 478, 3), and blendshapes, (T, 52), if they were computed or given before; else None."""
    return cast("Mesh | None", sample.known(MESH))


def is_of_pictures(key: Hashable) -> bool:
    """Whether the cached result with this key depends only on the frames of the sample, and not on its sound."""
    return (key[0] if isinstance(key, tuple) else key) in (MESH, "lips")


def eye_distance(points: np.ndarray) -> np.ndarray:
    """Distance between the centres of the eyes: (..., 68, 2) -> (...), same unit. ValueError for other shapes."""
    if points.shape[-2:] != (68, 2):
        raise ValueError(f"points must be (..., 68, 2), got {points.shape}")
    between = points[..., _RIGHT, :].mean(axis=-2) - points[..., _LEFT, :].mean(axis=-2)
    return np.asarray(np.linalg.norm(between, axis=-1))


def need_faces(name: str, found: np.ndarray, share: float) -> None:
    """Raises ClipError with reason no-face or few-faces if too few frames have a face.

    Args:
        name: the clip's name, for the error message.
        found: (T,) bool, True for frames with a face.
        share: the minimum share of frames with a face.
    """
    if found.mean() < share or not found.any():
        reason = Reason.FEW_FACES if found.any() else Reason.NO_FACE
        raise ClipError(reason, f"{name}: a face in {found.sum()} of {len(found)} frames")


def _mesh(sample: Sample, files: ModelFiles) -> Mesh:
    return sample.cached(MESH, lambda s: _detect(s, files))


def _detect(sample: Sample, files: ModelFiles) -> Mesh:
    from talking_face.pretrained.face_landmarker import N_POINTS, FaceLandmarker

    points = np.full((len(sample.frames), N_POINTS, 3), np.nan, np.float32)
    blendshapes = np.full((len(sample.frames), 52), np.nan, np.float32)
    with FaceLandmarker(running_mode="video", files=files) as landmarker:
        for t, frame in enumerate(sample.pictures):
            mesh = landmarker.detect(frame, round(1000 * t / sample.fps))
            if mesh is not None:
                points[t], blendshapes[t] = mesh.landmarks, mesh.blendshapes
    return points, blendshapes
