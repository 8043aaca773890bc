"""MediaPipe Face Landmarker (Tasks API): 478 points and 52 blendshape coefficients per face."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_path
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

    x points right and y points down, in pixels of the input image; 0 is its left or top edge. z is negative towards the
    viewer and has the scale of x.
    """

    landmarks: np.ndarray  # (478, 3) float32
    blendshapes: np.ndarray  # (52,) float32 in [0, 1]


class FaceLandmarker:
    """The landmarker of one clip; a context manager.

    In video mode it keeps state: if it has tracked another clip before, landmarks differ by up to 1.5 px. Therefore
    make one landmarker per clip (42 ms) and close it.
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
        # MediaPipe reads a strided view as noise and reports no error.
        image = mp.Image(image_format=mp.ImageFormat.SRGB, data=np.ascontiguousarray(frame_rgb))
        found = self._landmarker.detect_for_video(image, time_ms) if self._video else self._landmarker.detect(image)
        if found.points is None:
            return None
        return FaceMesh(found.points * np.array([width, height, width], np.float32), found.scores)

    def close(self) -> None:
        """Free the graph. Without this call, MediaPipe raises an error when the interpreter exits."""
        with silent_stderr():
            self._landmarker.close()

    def __enter__(self) -> FaceLandmarker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _Result:
    """The landmarker's result as arrays, used in place of MediaPipe's class.

    MediaPipe's class makes a Python object per point, which takes 1.2 of the 10 ms per picture.
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
    """One field of `count` C structs in a row, as (count,) float32, a view; `first` is a ctypes pointer to them."""
    struct = first._type_
    size = ctypes.sizeof(struct)
    memory: Any = ctypes.cast(first, ctypes.POINTER(ctypes.c_char * (count * size))).contents
    at = getattr(struct, name).offset
    return np.frombuffer(memory, np.dtype({"names": [name], "formats": ["<f4"], "offsets": [at], "itemsize": size}))[
        name
    ]


def tasks() -> tuple[Any, Any]:
    """MediaPipe's `vision` module and `BaseOptions`. Raises UserError if its library cannot be loaded."""
    try:
        from mediapipe.tasks.python import BaseOptions, vision
        from mediapipe.tasks.python.vision import face_landmarker

        # MediaPipe looks this name up at each call.
        face_landmarker.FaceLandmarkerResult = _Result  # type: ignore[misc, assignment]
    except OSError as error:
        raise UserError(
            f"MediaPipe cannot load ({error}).\nOn Debian or Ubuntu: apt-get install libegl1 libgles2"
        ) from None
    return vision, BaseOptions


@contextmanager
def silent_stderr() -> Iterator[None]:
    """Discard what is written to file descriptor 2 inside the block.

    MediaPipe's C++ code logs six lines per landmarker there before its own log filter is set up.
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
