"""MediaPipe Face Landmarker (Tasks API): 478 points and 52 blendshape coefficients per face."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import registered_hash, weight_path
from talking_face.reasons import UserError

N_POINTS = 478
# In the order of the network's output, with ARKit's names.
BLENDSHAPE_NAMES: tuple[str, ...] = (
    "_neutral",
    "browDownLeft",
    "browDownRight",
    "browInnerUp",
    "browOuterUpLeft",
    "browOuterUpRight",
    "cheekPuff",
    "cheekSquintLeft",
    "cheekSquintRight",
    "eyeBlinkLeft",
    "eyeBlinkRight",
    "eyeLookDownLeft",
    "eyeLookDownRight",
    "eyeLookInLeft",
    "eyeLookInRight",
    "eyeLookOutLeft",
    "eyeLookOutRight",
    "eyeLookUpLeft",
    "eyeLookUpRight",
    "eyeSquintLeft",
    "eyeSquintRight",
    "eyeWideLeft",
    "eyeWideRight",
    "jawForward",
    "jawLeft",
    "jawOpen",
    "jawRight",
    "mouthClose",
    "mouthDimpleLeft",
    "mouthDimpleRight",
    "mouthFrownLeft",
    "mouthFrownRight",
    "mouthFunnel",
    "mouthLeft",
    "mouthLowerDownLeft",
    "mouthLowerDownRight",
    "mouthPressLeft",
    "mouthPressRight",
    "mouthPucker",
    "mouthRight",
    "mouthRollLower",
    "mouthRollUpper",
    "mouthShrugLower",
    "mouthShrugUpper",
    "mouthSmileLeft",
    "mouthSmileRight",
    "mouthStretchLeft",
    "mouthStretchRight",
    "mouthUpperUpLeft",
    "mouthUpperUpRight",
    "noseSneerLeft",
    "noseSneerRight",
)


@dataclass(frozen=True, slots=True)
class FaceMesh:
    """The landmarks and blendshapes of one face.

    Landmarks have the coordinates x, y and z. x points right and y points down, in pixels of the input image; 0 is the
    left or top edge of the image. z has the same scale as x and is smaller for points that are nearer to the viewer.
    """

    landmarks: np.ndarray  # (478, 3) float32
    blendshapes: np.ndarray  # (52,) float32 in [0, 1]


class FaceLandmarker:
    """Finds the landmarks of the face in each frame of one clip. A context manager.

    In video mode a landmarker uses information from earlier pictures. After a different clip, the landmarks differ by
    up to 1.5 px. Therefore create one landmarker per clip, which takes 42 ms, and close it after the clip.
    """

    def __init__(self, running_mode: Literal["video", "image"] = "video", *, files: ModelFiles) -> None:
        vision, base_options = tasks()
        self._video = running_mode == "video"
        options = vision.FaceLandmarkerOptions(
            base_options=base_options(model_asset_path=str(weight_path("face_landmarker", files))),
            running_mode=vision.RunningMode.VIDEO if self._video else vision.RunningMode.IMAGE,
            num_faces=1,
            output_face_blendshapes=True,
        )
        with silent_stderr():
            self._landmarker = vision.FaceLandmarker.create_from_options(options)

    def detect(self, frame_rgb: np.ndarray, time_ms: int = 0) -> FaceMesh | None:
        """The face in an (H, W, 3) uint8 RGB image, or None. In video mode `time_ms` must increase with each call."""
        import mediapipe as mp

        height, width = frame_rgb.shape[:2]
        # The array must be contiguous, because MediaPipe reads a strided view as noise and reports no error.
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame_rgb))
        found = self._landmarker.detect_for_video(image, time_ms) if self._video else self._landmarker.detect(image)
        if found.points is None:
            return None
        return FaceMesh(found.points * np.array([width, height, width], np.float32), found.scores)

    def close(self) -> None:
        """Free the memory of MediaPipe's graph. Without this call, MediaPipe raises an error when Python exits."""
        with silent_stderr():
            self._landmarker.close()

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Result:
    """The landmarker's result as arrays. This class replaces MediaPipe's class for results.

    MediaPipe's class creates a Python object per point, which takes 1.2 of the 10 ms per picture.
    """

    def __init__(self, points: np.ndarray | None, scores: np.ndarray) -> None:
        self.points, self.scores = points, scores  # (478, 3) float32, 0 to 1; (52,) float32

    @classmethod
    def from_ctypes(cls, result: Any) -> _Result:
        """Copy the result out of MediaPipe's C struct, whose memory is freed after the call."""
        if not result.face_landmarks_count:
            return cls(None, np.zeros(0, np.float32))
        mesh, shapes = result.face_landmarks[0], result.face_blendshapes[0]
        points = [_floats(mesh.landmarks, mesh.landmarks_count, name) for name in "xyz"]
        return cls(np.stack(points, axis=1), _floats(shapes.categories, shapes.categories_count, "score").copy())


def _floats(first: Any, count: int, name: str) -> np.ndarray:
    """One field of an array of `count` C structs, as a (count,) float32 view. `first` points to the first struct."""
    struct = first._type_
    size = ctypes.sizeof(struct)
    memory: Any = ctypes.cast(first, ctypes.POINTER(ctypes.c_char * (count * size))).contents
    at = getattr(struct, name).offset
    return np.frombuffer(memory, np.dtype({"names": [name], "formats": ["<f4"], "offsets": [at], "itemsize": size}))[
        name
    ]


def landmarker_tag() -> str:
    """The name of the landmarks in signatures: the start of the network's SHA-256, and `mediapipe_suffix`."""
    return registered_hash("face_landmarker")[:8] + mediapipe_suffix()


@cache
def mediapipe_suffix() -> str:
    """`-mp0.10` for MediaPipe 0.10, and an empty text for later versions, whose landmarks differ from those of 0.10.

    The core installation has MediaPipe 0.10.31. On twelve GRID clips, its points differ from those of MediaPipe 1.2.2
    by 0.005 px on average and by 0.11 px at most. The points of 1.2.2 and 1.2.3 are equal.
    """
    try:
        return "-mp0.10" if version("mediapipe").startswith("0.") else ""
    except PackageNotFoundError:  # a signature is needed also where nothing is measured
        return ""


def tasks() -> tuple[Any, Any]:
    """MediaPipe's `vision` module and `BaseOptions` class. Raises UserError if MediaPipe cannot be loaded."""
    try:
        from mediapipe.tasks.python import BaseOptions, vision
        from mediapipe.tasks.python.vision import face_landmarker

        # Replace the class in MediaPipe's module. The replacement has an effect, because MediaPipe looks up the name of
        # the class at each call.
        face_landmarker.FaceLandmarkerResult = _Result  # type: ignore[misc, assignment]
    except OSError as error:
        raise UserError(
            f"MediaPipe cannot load ({error}).\nOn Debian or Ubuntu: apt-get install libegl1 libgles2"
        ) from None
    return vision, BaseOptions


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard all output to file descriptor 2 (stderr) inside the block.

    For each landmarker, MediaPipe's C++ code writes six log lines to stderr before MediaPipe's log filter is set up.
    """
    sys.stderr.flush()
    saved = os.dup(2)
    null = os.open(Path(os.devnull), os.O_WRONLY)
    try:
        os.dup2(null, 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)
        os.close(null)
