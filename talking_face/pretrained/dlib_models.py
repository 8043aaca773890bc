"""dlib: the HOG face finder, the 68-point predictor and the face ResNet. RGB or grey uint8 in, numpy out."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import WeightFile, weight_file


class Box(NamedTuple):
    """A face rectangle in pixels of the image it was found in, edges included as dlib gives them, and its score."""

    left: float
    top: float
    right: float
    bottom: float
    score: float = 0.0

    @property
    def width(self) -> float:
        return self.right - self.left

    @property
    def height(self) -> float:
        return self.bottom - self.top


@cache
def _dlib() -> Any:
    import dlib

    return dlib


@cache
def _detector() -> Any:
    return _dlib().get_frontal_face_detector()


@cache
def _predictor(file: WeightFile) -> Any:
    return _dlib().shape_predictor(str(file.path))


@cache
def _resnet(file: WeightFile) -> Any:
    return _dlib().face_recognition_model_v1(str(file.path))


def detect_faces_hog(image: np.ndarray, upsample: int = 0, threshold: float = 0.0) -> list[Box]:
    """Frontal faces found by dlib's HOG detector, in dlib's own order (strongest first).

    Args:
        image: (H, W) or (H, W, 3) uint8, RGB or grey. The smallest face found is about 80 px high; each
            `upsample` halves that and costs 4 times the work (6 ms for 256x256, 8 ms for 360x288, one thread).
        threshold: detector score to accept; dlib's default is 0.
    """
    rectangles, scores, _ = _detector().run(np.ascontiguousarray(image), upsample, threshold)
    return [Box(r.left(), r.top(), r.right(), r.bottom(), float(s)) for r, s in zip(rectangles, scores, strict=True)]


def landmarks68(image: np.ndarray, box: Box, files: ModelFiles) -> np.ndarray:
    """(68, 2) float32 iBUG points in pixels of `image`, (H, W) or (H, W, 3) uint8, for the face in `box`."""
    points = _shape(image, box, files)
    return np.array([(p.x, p.y) for p in points.parts()], np.float32)


def face_embedding(image: np.ndarray, box: Box, files: ModelFiles) -> np.ndarray:
    """(128,) float32 identity embedding of the face in `box` of an (H, W, 3) uint8 RGB image.

    Aligned to a 150 px chip by the 68 points, without jitter. dlib's own threshold: a distance under 0.6 is one person.
    """
    image = np.ascontiguousarray(image)
    network = _resnet(weight_file("dlib_face_resnet", files))
    return np.array(network.compute_face_descriptor(image, _shape(image, box, files)), np.float32)


def _shape(image: np.ndarray, box: Box, files: ModelFiles) -> Any:
    rectangle = _dlib().rectangle(*(int(v) for v in box[:4]))
    return _predictor(weight_file("dlib_68", files))(np.ascontiguousarray(image), rectangle)
