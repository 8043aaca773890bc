"""Aligns faces in the same way as EAT's evaluation: the same template, fit, warp and rounding.

Source of every step and constant: github.com/yuangan/evaluation_eat at e39b004, code/utils_crop.py (`crop_and_align`).
The arithmetic is exactly that of scikit-image's `SimilarityTransform` and bilinear `warp`. Exact arithmetic is needed,
because dlib rounds its points: a pixel that differs by one grey level can move a point by a whole pixel. As in
scikit-image and dlib, the centre of the first pixel has the coordinates (0, 0).

The source code has a second template for faces with closed eyes. At commit e39b004 the two templates have the same
numbers; therefore this module uses one template for all faces.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import cv2
import numpy as np

from talking_face.pretrained.model_files import ModelFiles

WARPED = 163  # px, side of the template's image
CROP = slice(1, 129)  # rows and columns of the template's image that the crop contains
ALIGN_POINTS = slice(27, 45)  # as in the source: nose, eye on the image's left, half of the eye on the image's right
FIND_UPSAMPLE = 1  # the frame is enlarged to twice its size once before face detection


@cache
def template() -> np.ndarray:
    """The template: coordinates of the 68 points in the 163x163 image, (68, 2) float32."""
    table = np.loadtxt(Path(__file__).with_name("eat_template.csv"), delimiter=",", skiprows=4, dtype=np.float32)
    return table[:, 1:]


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """The 3x3 similarity transform that maps `source` (N, 2) to `target` (N, 2) with the least squared error.

    Source: Umeyama 1991, eqs. 38-43. The points must not all be equal. The precision is that of the input arrays.
    """
    source_mean, target_mean = source.mean(axis=0), target.mean(axis=0)
    source_0, target_0 = source - source_mean, target - target_mean
    covariance = target_0.T @ source_0 / len(source)
    u, s, v = np.linalg.svd(covariance)
    sign = np.array([1.0, -1.0 if np.linalg.det(covariance) < 0 else 1.0])
    rotation = u @ np.diag(sign) @ v
    scale = 1.0 / source_0.var(axis=0).sum() * (s @ sign)
    out = np.eye(3)
    out[:2, 2] = target_mean - scale * (rotation @ source_mean.T)
    out[:2, :2] = rotation
    out[:2, :2] *= scale
    return out


def warp_crop(image: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Warp a picture (bilinear) to the template's 163x163 image and return the part `CROP` of the result.

    Args:
        image: (H, W, 3) uint8.
        matrix: (3, 3) similarity from pixels of the 163x163 image to pixels of `image`.

    Returns:
        (128, 128, 3) uint8, black outside the image. As in the source, values are truncated, not rounded.
    """
    rows, cols = np.mgrid[CROP, CROP].astype(np.float64)
    x = matrix[0, 0] * cols + matrix[0, 1] * rows + matrix[0, 2]
    y = matrix[1, 0] * cols + matrix[1, 1] * rows + matrix[1, 2]
    left, top = np.floor(x), np.floor(y)
    dx, dy = (x - left)[..., None], (y - top)[..., None]
    # One black pixel is added on each side; coordinates outside the picture are mapped to the added pixels.
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)))
    height, width = image.shape[:2]
    column = [np.clip(c, -1, width).astype(np.int64) + 1 for c in (left, np.ceil(x))]
    row = [np.clip(r, -1, height).astype(np.int64) + 1 for r in (top, np.ceil(y))]
    unit = np.arange(256) * (1.0 / 255)  # uint8 to [0, 1]
    corner = [[unit[padded[r, c]] for c in column] for r in row]
    upper = (1 - dx) * corner[0][0] + dx * corner[0][1]
    lower = (1 - dx) * corner[1][0] + dx * corner[1][1]
    out = (1 - dy) * upper + dy * lower
    # As in scikit-image, values are clipped to the range of the picture's values. The range also includes black if a
    # pixel of the warped image is outside the picture.
    corners = matrix[:2] @ [[0, WARPED - 1, 0, WARPED - 1], [0, 0, WARPED - 1, WARPED - 1], [1, 1, 1, 1]]
    black_used = (corners <= -1).any() or (corners >= [[width], [height]]).any()
    np.clip(out, 0.0 if black_used else unit[image.min()], unit[image.max()], out=out)
    return (out * 255).astype(np.uint8)


def find_points(grey: np.ndarray, upsample: int, files: ModelFiles) -> np.ndarray | None:
    """The 68 points, (68, 2) float32 in whole px, of the face with the highest score in an (H, W) uint8 image.

    Returns None if no face is found.
    """
    from talking_face.pretrained.dlib_models import detect_faces_hog, landmarks68

    boxes = detect_faces_hog(grey, upsample)
    return landmarks68(grey, boxes[0], files) if boxes else None


def to_grey(rgb: np.ndarray) -> np.ndarray:
    """Converts an RGB picture to grey, (H, W) uint8, with the weights of red and blue exchanged.

    The weights are exchanged because the source code passes RGB pictures to a conversion for BGR pictures.
    """
    return cv2.cvtColor(rgb, cv2.COLOR_BGR2GRAY)
