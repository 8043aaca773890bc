"""DeepFace's emotion network: seven emotions from a 48x48 grey picture, as `DeepFace.analyze` shows it to it.

Source: serengil/deepface 0.0.103, modules/demography.py, modules/preprocessing.py, models/demography/onnx/Emotion.py,
modules/detection.py and models/face_detection/OpenCv.py, with detector_backend "skip", where the whole frame is the
face, or "opencv", its default, with align and enforce_detection as they are by default.
"""

from __future__ import annotations

from functools import cache
from typing import Any, Literal

import cv2
import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.onnx_sessions import onnx_run
from talking_face.pretrained.store import WeightFile, weight_file, weight_path

NAME = "deepface_emotion"
LABELS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_FACE, _INPUT = 224, 48  # side of the padded face and of the network's picture, px
_SEARCH = (1.1, 10)  # step between sizes, and detections that must agree


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


def face(frame_bgr: np.ndarray, files: ModelFiles) -> np.ndarray | None:
    """The face that DeepFace's default detector, `opencv`, cuts out, levelled by the eyes where two are found.

    Haar cascades: faces on the frame in a black border of half its size, eyes inside the face. Of several faces the
    first in OpenCV's order counts, as for users who take the first of `analyze`'s results.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR.

    Returns:
        (h, w, 3) uint8 BGR, or None without a face. Raises MissingWeights.
    """
    border_y, border_x = frame_bgr.shape[0] // 2, frame_bgr.shape[1] // 2
    image = cv2.copyMakeBorder(frame_bgr, border_y, border_y, border_x, border_x, cv2.BORDER_CONSTANT, value=[0, 0, 0])
    faces = _cascade(weight_file("haar_face", files))
    boxes, _, _ = faces.detectMultiScale3(image, *_SEARCH, outputRejectLevels=True)
    for box in boxes:
        x, y, width, height = (int(v) for v in box)
        tilt = tilt_of(image[y : y + height, x : x + width], files)
        found = _levelled(image, (x, y, width, height), tilt)
        if found.size:
            return found
    return None


def tilt_of(face_bgr: np.ndarray, files: ModelFiles) -> float:
    """Degrees by which the line between the two largest eyes falls to the right; 0 where fewer are found."""
    cascade = _cascade(weight_file("haar_eye", files))
    eyes = cascade.detectMultiScale(cv2.cvtColor(face_bgr, cv2.COLOR_BGR2GRAY), *_SEARCH)
    if len(eyes) < 2:
        return 0.0
    # Without a strict order by x the larger of the two is the right one, as there.
    first, second = sorted(eyes, key=lambda e: abs(e[2] * e[3]), reverse=True)[:2]
    near, far = (first, second) if first[0] < second[0] else (second, first)
    (x0, y0), (x1, y1) = ((int(e[0] + e[2] / 2), int(e[1] + e[3] / 2)) for e in (near, far))
    return float(np.degrees(np.arctan2(y1 - y0, x1 - x0)))


def _levelled(image: np.ndarray, box: tuple[int, int, int, int], tilt: float) -> np.ndarray:
    """The box of an image after a turn by `tilt` degrees about the middle of the box and its surroundings."""
    x, y, width, height = box
    more_x, more_y = width // 2, height // 2
    left, top = max(0, x - more_x), max(0, y - more_y)
    part = image[top : y + height + more_y, left : x + width + more_x]
    around = np.zeros((height + 2 * more_y, width + 2 * more_x, 3), image.dtype)
    to_x, to_y = max(0, more_x - x), max(0, more_y - y)
    around[to_y : to_y + part.shape[0], to_x : to_x + part.shape[1]] = part
    if tilt == 0:
        return around[more_y : more_y + height, more_x : more_x + width]
    rows, columns = around.shape[:2]
    turn = cv2.getRotationMatrix2D((columns // 2, rows // 2), tilt, 1.0)
    turned = cv2.warpAffine(around, turn, (columns, rows), flags=cv2.INTER_CUBIC, borderValue=(0, 0, 0))
    # The turned middle of the box, whose size is kept. It is the middle of the surroundings, to half a pixel.
    angle = np.radians(tilt)
    dx, dy = more_x + width / 2 - columns / 2, more_y + height / 2 - rows / 2
    middle_x = dx * np.cos(angle) + dy * np.sin(angle) + columns / 2
    middle_y = -dx * np.sin(angle) + dy * np.cos(angle) + rows / 2
    x0, y0 = (max(int(v), 0) for v in (middle_x - width / 2, middle_y - height / 2))
    x1, y1 = min(int(middle_x + width / 2), columns), min(int(middle_y + height / 2), rows)
    return turned[y0:y1, x0:x1]


@cache
def _cascade(file: WeightFile) -> Any:
    return cv2.CascadeClassifier(str(file.path))


def emotions(frames_rgb: np.ndarray, detector: Literal["skip", "opencv"] = "skip", *, files: ModelFiles) -> np.ndarray:
    """Probabilities (T, 7) float32 in the order of `LABELS`.

    Args:
        frames_rgb: (T, H, W, 3) uint8 RGB.
        detector: `skip` takes each frame for a face; `opencv` looks for one (`face`, 0.3 s a frame), and a frame
            without one gets NaN.

    Raises:
        MissingWeights: the network's file is not here, or a cascade's.
    """
    weight_path(NAME, files)  # before seconds are spent on faces
    out = np.full((len(frames_rgb), len(LABELS)), np.nan, np.float32)
    for start in range(0, len(frames_rgb), 32):
        faces = [np.ascontiguousarray(frame[..., ::-1]) for frame in frames_rgb[start : start + 32]]
        found = faces if detector == "skip" else [face(frame, files) for frame in faces]
        at = [start + k for k, one in enumerate(found) if one is not None]
        if at:
            pictures = np.stack([network_input(one) for one in found if one is not None])
            rows = onnx_run(NAME, pictures[..., None], files)
            out[at] = rows / rows.sum(axis=1, keepdims=True)
    return out
