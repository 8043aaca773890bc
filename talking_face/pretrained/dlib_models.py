"""Runs dlib's HOG face detector, 68-point predictor and face ResNet on uint8 numpy images, RGB or grey."""

from __future__ import annotations

from functools import cache
from typing import Any, NamedTuple

import numpy as np

from talking_face.packages import require
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights, WeightFile, weight_file


class Box(NamedTuple):
    """A face rectangle in px of the image, and its detection score. As in dlib, all four edges are inside the box."""

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
def load_dlib() -> Any:
    """The module dlib. Raises MissingWeights if it is not installed."""
    return require("dlib", "dlib's face detection", kind=MissingWeights)


@cache
def _detector() -> Any:
    return load_dlib().get_frontal_face_detector()


@cache
def _predictor(file: WeightFile) -> Any:
    return load_dlib().shape_predictor(str(file.path))


@cache
def _resnet(file: WeightFile) -> Any:
    return load_dlib().face_recognition_model_v1(str(file.path))


def detect_faces_hog(image: np.ndarray, upsample: int = 0, threshold: float = 0.0) -> list[Box]:
    """Frontal faces found by dlib's HOG detector, in dlib's own order (highest score first).

    Without upsampling, the smallest face that is found is about 80 px high. The detector takes 6 ms for 256x256 px and
    8 ms for 360x288 px, on one thread.

    Args:
        image: (H, W) uint8 grey, or (H, W, 3) uint8 RGB.
        upsample: number of times that the image is enlarged to twice its size. Each enlargement halves the size of the
            smallest face that is found, and makes the detector four times slower.
        threshold: lowest accepted detection score; dlib's default is 0.
    """
    rectangles, scores, _ = _detector().run(np.ascontiguousarray(image), upsample, threshold)
    return [Box(r.left(), r.top(), r.right(), r.bottom(), float(s)) for r, s in zip(rectangles, scores, strict=True)]


def landmarks68(image: np.ndarray, box: Box, files: ModelFiles) -> np.ndarray:
    """The 68 iBUG points, (68, 2) float32 in pixels of `image`, of the face in `box`.

    `image`: (H, W) or (H, W, 3) uint8.
    """
    points = _shape(image, box, files)
    return np.array([(p.x, p.y) for p in points.parts()], np.float32)


def face_embedding(image: np.ndarray, box: Box, files: ModelFiles) -> np.ndarray:
    """The identity embedding, (128,) float32, of the face in `box` of an (H, W, 3) uint8 RGB image.

    With the 68 points, the face is aligned to a crop of 150 px. dlib's option to average over randomly moved crops
    (jitter) is not used. dlib's documentation states that two embeddings with a distance below 0.6 show the same
    person.
    """
    image = np.ascontiguousarray(image)
    network = _resnet(weight_file("dlib_face_resnet", files))
    return np.array(network.compute_face_descriptor(image, _shape(image, box, files)), np.float32)


def _shape(image: np.ndarray, box: Box, files: ModelFiles) -> Any:
    rectangle = load_dlib().rectangle(*(int(v) for v in box[:4]))
    return _predictor(weight_file("dlib_68", files))(np.ascontiguousarray(image), rectangle)
