"""MediaPipe landmarks of a sample, found once and shared by all metrics that use them."""

from __future__ import annotations

import numpy as np

from metrics.base import Sample


def mediapipe_landmarks(sample: Sample) -> np.ndarray:
    """(T, 478, 3) float32 in pixels of the sample's frames, NaN in frames without a face.

    Face Landmarker in video mode on the whole frame, so frames should be face crops or hold one large face.
    """
    return sample.cached("mediapipe-478", _landmarks)


def _landmarks(sample: Sample) -> np.ndarray:
    from talking_face.pretrained.face_landmarker import N_POINTS, FaceLandmarker

    out = np.full((len(sample.frames), N_POINTS, 3), np.nan, np.float32)
    with FaceLandmarker(running_mode="video") as landmarker:
        for t, frame in enumerate(sample.frames):
            mesh = landmarker.detect(frame, round(1000 * t / sample.fps))
            if mesh is not None:
                out[t] = mesh.landmarks
    return out
