"""The 478 to 68 correspondence: unique, mirror-symmetric, and close to dlib's points on real faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from talking_face.faces.points68 import BROWS, EYES, JAW, MEDIAPIPE_OF_IBUG68, MOUTH, NOSE, to_68
from talking_face.media.reading import iter_frames
from talking_face.pretrained.dlib_models import detect_faces_hog, landmarks68
from talking_face.pretrained.face_landmarker import FaceLandmarker
from tests.models import models

# iBUG's own mirror: which point is which on the flipped face.
IBUG_MIRROR = [
    *range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1),
    45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, *range(54, 47, -1), *range(59, 54, -1),
    *range(64, 59, -1), *range(67, 64, -1),
]  # fmt: skip


def test_every_point_once_and_parts_cover_all() -> None:
    assert len(set(MEDIAPIPE_OF_IBUG68)) == 68
    assert sorted(i for part in (JAW, BROWS, NOSE, EYES, MOUTH) for i in range(68)[part]) == list(range(68))


def test_shapes_and_nan() -> None:
    points = np.random.default_rng(0).normal(size=(2, 5, 478, 3)).astype(np.float32)
    points[1, 4] = np.nan
    out = to_68(points)
    assert out.shape == (2, 5, 68, 2) and out.dtype == np.float32
    np.testing.assert_array_equal(out[0, 0, 8], points[0, 0, 152, :2])
    assert np.isnan(out[1, 4]).all()
    with pytest.raises(ValueError, match="478"):
        to_68(points[..., :68, :])


def test_real_faces_agree_with_dlib_and_with_their_mirror_image(real_clips: list[Path]) -> None:
    """Mean distance in percent of the distance between the eye centres; a wrong pair would stand at 10 or more."""
    errors, mirrored = [], []
    for path in real_clips[::3]:
        frame = next(iter_frames(path))
        boxes = detect_faces_hog(frame, 1)
        points = landmarks68(frame, boxes[0], files=models())
        with FaceLandmarker(running_mode="image", files=models()) as landmarker:
            mesh, flipped = landmarker.detect(frame), landmarker.detect(np.ascontiguousarray(frame[:, ::-1]))
        assert mesh is not None and flipped is not None
        eyes = np.linalg.norm(points[36:42].mean(0) - points[42:48].mean(0))
        ours = to_68(mesh.landmarks)
        errors.append(100 * np.linalg.norm(ours - points, axis=1) / eyes)
        back = to_68(flipped.landmarks)[IBUG_MIRROR]
        back[:, 0] = frame.shape[1] - back[:, 0]
        mirrored.append(100 * np.linalg.norm(ours - back, axis=1) / eyes)
    error = np.mean(errors, axis=0)
    assert error[EYES].max() < 8 and error[NOSE].max() < 10 and error[MOUTH].max() < 12
    assert error[BROWS].max() < 25 and error[JAW].max() < 25
    assert np.mean(mirrored, axis=0).max() < 8
