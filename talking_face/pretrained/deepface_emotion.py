"""DeepFace's emotion network: seven emotions from a 48x48 grey picture, prepared in the same way as `DeepFace.analyze`.

Source: serengil/deepface 0.0.103, modules/demography.py, modules/preprocessing.py, models/demography/onnx/Emotion.py,
modules/detection.py and models/face_detection/OpenCv.py. Two values of DeepFace's option `detector_backend` are
reproduced: "skip" uses the whole frame as the face, and "opencv" is DeepFace's default. The options `align` and
`enforce_detection` have DeepFace's default values.
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
_SEARCH = (1.1, 10)  # for each cascade: factor between two search sizes, and least number of overlapping detections


def network_input(frame_bgr: np.ndarray) -> np.ndarray:
    """The network's input for one face.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR.

    Returns:
        (48, 48) float32 grey in [0, 1]. The face is first resized to fit into 224x224 with its aspect ratio kept and
            padded with black. Then it is converted to grey and resized to 48x48.
    """
    # As in DeepFace, a picture whose maximum is at most 1 is treated as already scaled to [0, 1].
    face = frame_bgr / 255 if frame_bgr.max() > 1 else frame_bgr
    height, width = face.shape[:2]
    factor = min(_FACE / height, _FACE / width)
    face = cv2.resize(face, (int(width * factor), int(height * factor)))
    down, across = (_FACE - n for n in face.shape[:2])
    face = np.pad(face, ((down // 2, down - down // 2), (across // 2, across - across // 2), (0, 0)))
    grey = cv2.cvtColor(face.astype(np.float32), cv2.COLOR_BGR2GRAY)
    return cv2.resize(grey, (_INPUT, _INPUT))


def face(frame_bgr: np.ndarray, files: ModelFiles) -> np.ndarray | None:
    """The face crop of DeepFace's default detector, `opencv`.

    First, a black border of half the frame's size is added on each side of the frame. A Haar cascade finds faces in the
    resulting picture, and a second Haar cascade finds eyes in the face. If at least two eyes are found, the crop is
    rotated so that the two largest eyes are level. If there are several faces, the first face in OpenCV's order is
    used, which is also the first result of `DeepFace.analyze`.

    Args:
        frame_bgr: (H, W, 3) uint8 BGR.

    Returns:
        (h, w, 3) uint8 BGR, or None if no face is found. Raises MissingWeights.
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
    """Tilt of the line between the two largest eye detections, in degrees.

    The tilt is positive if the eye on the picture's right side is lower. If fewer than two eyes are found, the tilt is
    0.
    """
    cascade = _cascade(weight_file("haar_eye", files))
    eyes = cascade.detectMultiScale(cv2.cvtColor(face_bgr, cv2.COLOR_BGR2GRAY), *_SEARCH)
    if len(eyes) < 2:
        return 0.0
    # As in DeepFace, two detections with equal x are ordered by size: the larger one is the eye on the right side.
    first, second = sorted(eyes, key=lambda e: abs(e[2] * e[3]), reverse=True)[:2]
    near, far = (first, second) if first[0] < second[0] else (second, first)
    (x0, y0), (x1, y1) = ((int(e[0] + e[2] / 2), int(e[1] + e[3] / 2)) for e in (near, far))
    return float(np.degrees(np.arctan2(y1 - y0, x1 - x0)))


def _levelled(image: np.ndarray, box: tuple[int, int, int, int], tilt: float) -> np.ndarray:
    """The part of the image inside `box`, after a rotation of the image by `tilt` degrees about the box's centre.

    `box` is (left, top, width, height) in px. The rotated region is larger than the box by half its size on each side.
    Pixels outside the image are black.
    """
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
    # Centre of the box after the rotation; it is at most half a pixel from the centre of the rotated picture. The size
    # of the box does not change.
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
    """Emotion probabilities per frame, (T, 7) float32 in the order of `LABELS`.

    Args:
        frames_rgb: (T, H, W, 3) uint8 RGB.
        detector: `skip` uses each whole frame as the face. `opencv` finds a face in each frame with the function
            `face`, which takes 0.3 s per frame. The probabilities of a frame without a face are NaN.

    Raises:
        MissingWeights: the file of the network or of a cascade is absent.
    """
    weight_path(NAME, files)  # check for the network's file first, because face detection takes seconds
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
