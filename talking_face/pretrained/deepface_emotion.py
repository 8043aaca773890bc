"""DeepFace's emotion network: seven emotions from a 48x48 grey picture, as `DeepFace.analyze` shows it to it.

Source: serengil/deepface 0.0.103, modules/demography.py, modules/preprocessing.py and models/demography/onnx/Emotion.py
with detector_backend "skip": the whole frame is the face.
"""

from __future__ import annotations

import cv2
import numpy as np

from talking_face.pretrained.onnx_sessions import onnx_run

LABELS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_FACE, _INPUT = 224, 48  # side of the padded face and of the network's picture, px


def network_input(frame_bgr: np.ndarray) -> np.ndarray:
    """The picture that the network sees.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR.

    Returns:
        (48, 48) float32 in [0, 1]: scaled into 224x224 with its proportions kept, black on both sides, grey, 48x48.
    """
    # A picture that holds nothing above 1 is taken for one in [0, 1] already, as there.
    face = frame_bgr / 255 if frame_bgr.max() > 1 else frame_bgr
    height, width = face.shape[:2]
    factor = min(_FACE / height, _FACE / width)
    face = cv2.resize(face, (int(width * factor), int(height * factor)))
    down, across = (_FACE - n for n in face.shape[:2])
    face = np.pad(face, ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)))
    grey = cv2.cvtColor(face.astype(np.float32), cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (_INPUT, _INPUT))


def emotions(frames_rgb: np.ndarray) -> np.ndarray:
    """Probabilities (T, 7) float32 in the order of `LABELS` of (T, H, W, 3) uint8 RGB frames, each taken for a face.

    Raises MissingWeights without the network's file.
    """
    out = []
    for start in range(0, len(frames_rgb), 32):
        pictures = [network_input(frame[..., ::-1]) for frame in frames_rgb[start : start + 32]]
        found = onnx_run("deepface_emotion", np.stack(pictures)[..., None])
        out.append(found / found.sum(axis=1, keepdims=True))
    return np.concatenate(out) if out else np.empty((0, len(LABELS)), np.float32)
