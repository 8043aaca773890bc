"""Emotion-FAN, an emotion classifier for videos, in the two forms that published evaluations use.

Faces are cropped with dlib ("chips"), and a ResNet-18 computes features of each chip. EAT's form has eight classes and
combines the frames with attention. C-MET's form has seven classes and averages the logits of 16 frames.

Sources:
    - Faces: Open-Debin/Emotion-FAN, data/face_alignment_code/lib/face_align_cuda.py.
    - Eight classes: yuangan/evaluation_eat, code/emotionfan_basiccode/networks.py and code/_acc_test.py.
    - Seven classes: C-MET's evaluation README and its description.
The checkpoints are on cloud drives, whose addresses are in the repositories of the papers. `cmet-eval weights fetch`
cannot download the checkpoints.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

from talking_face.pretrained.dlib_models import load_dlib
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import WeightFile, weight_file
from talking_face.pretrained.torch_nets import inference, load_network

SEVEN, EIGHT = "emotion_fan_7", "emotion_fan_8"
LABELS: dict[str, tuple[str, ...]] = {
    SEVEN: ("happy", "angry", "disgusted", "fear", "sad", "contempt", "surprised"),
    EIGHT: ("happy", "angry", "disgusted", "fear", "sad", "neutral", "surprised", "contempt"),
}
_CHIP, _PADDING = 224, 0.25
_BATCH = 16


# -- faces -------------------------------------------------------------------------------------------------------------


def face_chip(frame_rgb: np.ndarray, files: ModelFiles) -> np.ndarray | None:
    """The chip, (224, 224, 3) uint8 RGB, of the first face in an (H, W, 3) uint8 RGB frame, or None without a face.

    First, dlib's HOG detector runs on the frame. If the HOG detector finds no face, dlib's CNN detector runs on the
    frame. As long as no face is found, the picture is changed by `stretched`, then by `clahe_colour`, then by
    `equalised`, and the CNN detector runs after each change. Each function changes the result of the previous function.
    Both detectors enlarge their picture to twice its size. The chip is cropped from the picture in which the face was
    found. As in the source, `clahe_colour` and `equalised` swap red and blue.
    """
    image = np.ascontiguousarray(frame_rgb)
    found = _hog()(image, 1)
    for change in (lambda x: x, stretched, clahe_colour, equalised):
        if len(found):
            break
        image = change(image)
        found = [detection.rect for detection in _cnn(weight_file("dlib_mmod", files))(image, 1)]
    if not len(found):
        return None
    points = _five(weight_file("dlib_5", files))(image, found[0])
    return np.asarray(load_dlib().get_face_chip(image, points, size=_CHIP, padding=_PADDING))


def stretched(image: np.ndarray) -> np.ndarray:
    """Stretch the levels so that the first channel's darkest level becomes 0 and its brightest level becomes 255.

    All channels are converted with the same table of levels. As in the source, whose histogram ends at level 254, the
    search for the brightest level ignores level 255.
    """
    seen = image[..., 0][image[..., 0] < 255]
    low, high = (int(seen.min()), int(seen.max())) if seen.size else (0, 255)
    levels = np.arange(256)
    # If the first channel has only one level (high == low), higher levels become 255, and all other levels become 0.
    table = np.where(levels > high, 255, (255.0 * (levels - low) / max(1, high - low) + 0.5).astype(int))
    return cv2.LUT(image, np.where(levels < low, 0, table).astype(np.uint8))


def clahe_colour(image: np.ndarray) -> np.ndarray:
    """Apply CLAHE to the luma of an (H, W, 3) uint8 RGB picture. Returns BGR, as the source does."""
    return _by_luma(image, cv2.createCLAHE(clipLimit=2.5, tileGridSize=(8, 8)).apply)


def equalised(image: np.ndarray) -> np.ndarray:
    """Equalise the luma histogram of an (H, W, 3) uint8 RGB picture. Returns BGR, as the source does."""
    return _by_luma(image, cv2.equalizeHist)


def _by_luma(image: np.ndarray, change: Any) -> np.ndarray:
    parts = cv2.cvtColor(image, cv2.COLOR_RGB2YCR_CB)
    parts[..., 0] = change(np.ascontiguousarray(parts[..., 0]))
    return cv2.cvtColor(parts, cv2.COLOR_YCR_CB2BGR)


@cache
def _hog() -> Any:
    return load_dlib().get_frontal_face_detector()


@cache
def _cnn(file: WeightFile) -> Any:
    return load_dlib().cnn_face_detection_model_v1(str(file.path))


@cache
def _five(file: WeightFile) -> Any:
    return load_dlib().shape_predictor(str(file.path))


# -- networks ----------------------------------------------------------------------------------------------------------


def emotions(chips_rgb: np.ndarray, name: str, files: ModelFiles) -> np.ndarray:
    """Emotion probabilities of a clip, (C,) float32 in the order of `LABELS[name]`.

    Args:
        chips_rgb: (K, 224, 224, 3) uint8 RGB, K > 0. For the network EIGHT, the chips of all frames; for the network
            SEVEN, the chips of 16 frames.

    Raises MissingWeights.
    """
    network = cached_network(weight_file(name, files))
    import torch

    where = next(network.parameters()).device
    with inference():
        parts = np.split(chips_rgb, range(_BATCH, len(chips_rgb), _BATCH))
        rows = [network.features(torch.from_numpy(to_tensor(part)).to(where)) for part in parts]
        return network.judge(torch.cat(rows)).softmax(dim=-1).cpu().numpy()  # type: ignore[no-any-return]


def check(name: str, files: ModelFiles) -> None:
    """Load the network, so that errors are reported early.

    Raises MissingWeights if the file is absent, or UserError if the file contains a different network.
    """
    cached_network(weight_file(name, files))


def to_tensor(chips_rgb: np.ndarray) -> np.ndarray:
    """Converts chips, (K, H, W, 3) uint8, to (K, 3, H, W) float32 in [0, 1]. No mean is subtracted."""
    return np.ascontiguousarray(chips_rgb.transpose(0, 3, 1, 2)).astype(np.float32) / 255


# long: defines all layers of the published network. The classes are local, because torch is imported in the function
def build(name: str) -> Any:
    """The untrained network in evaluation mode, with the parameter names of its checkpoint.

    `features` maps (K, 3, 224, 224) to (K, 512). `judge` maps the (K, 512) features of one clip to logits (C,).
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class Block(nn.Module):
        def __init__(self, before: int, wide: int, stride: int) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(before, wide, 3, stride, 1, bias=False), nn.BatchNorm2d(wide)
            self.conv2, self.bn2 = nn.Conv2d(wide, wide, 3, 1, 1, bias=False), nn.BatchNorm2d(wide)
            self.downsample = None
            if stride != 1:
                self.downsample = nn.Sequential(nn.Conv2d(before, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
            return functional.relu(y + (x if self.downsample is None else self.downsample(x)))

    class ResNet18(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64)
            before = 64
            for k, wide in enumerate((64, 128, 256, 512)):
                blocks = Block(before, wide, 1 if k == 0 else 2), Block(wide, wide, 1)
                self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
                before = wide

        def features(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.max_pool2d(functional.relu(self.bn1(self.conv1(x))), 3, 2, 1)
            for k in range(4):
                x = self.get_submodule(f"layer{k + 1}")(x)
            return x.mean(dim=(2, 3))

    class Plain(ResNet18):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(512, len(LABELS[SEVEN]))

        def judge(self, rows: torch.Tensor) -> torch.Tensor:
            return self.fc(rows).mean(dim=0)  # type: ignore[no-any-return]

    class Attention(ResNet18):
        def __init__(self) -> None:
            super().__init__()
            self.alpha = nn.Sequential(nn.Linear(512, 1), nn.Sigmoid())
            self.beta = nn.Sequential(nn.Linear(1024, 1), nn.Sigmoid())
            # The checkpoint contains the two layers `pred_fc1` and `pred_fc2`; only `pred_fc2` is used.
            self.pred_fc1, self.pred_fc2 = nn.Linear(512, 8), nn.Linear(1024, 8)

        def judge(self, rows: torch.Tensor) -> torch.Tensor:
            alpha = self.alpha(rows)
            mean = (rows * alpha).sum(dim=0) / alpha.sum(dim=0)
            both = torch.cat([rows, mean.expand_as(rows)], dim=1)
            # As in EAT's evaluation, the weights of the sum are alpha, but the divisor is the sum of alpha * beta.
            return self.pred_fc2((both * alpha).sum(dim=0) / (alpha * self.beta(both)).sum(dim=0))  # type: ignore[no-any-return]

    return (Plain() if name == SEVEN else Attention()).eval()


@cache
def cached_network(file: WeightFile) -> Any:

    def state(held: Any) -> dict[str, Any]:
        out = {key.removeprefix("module."): value for key, value in held.get("state_dict", held).items()}
        if file.name == EIGHT:  # remove the unused last layer of the ResNet-18 that was fine-tuned to this network
            out = {key: value for key, value in out.items() if not key.startswith("fc.")}
        return out

    return load_network(file, lambda: build(file.name), state)
