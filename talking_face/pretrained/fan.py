"""Finds 68 face points with the network 2D-FAN, after the face detector S3FD has found the face.

The results are those of the Python package face-alignment 1.5.0 with `FaceAlignment(LandmarksType.TWO_D,
flip_input=True)`. Only the face with the highest score is used.

Papers: Bulat & Tzimiropoulos 2017 (2D-FAN), Zhang et al. 2017 (S3FD). Source: github.com/1adrianb/face-alignment
(BSD-3-Clause), api.py, utils.py, models/fan.py, detection/sfd/. This module defines the networks itself, because the
package face-alignment needs numba and downloads files by itself. The weights of each network are a plain state dict,
which torch reads with `weights_only`.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import WeightFile, weight_file
from talking_face.pretrained.torch_nets import device, inference, load_network

CONFIDENCE = 0.5  # the score of a face must be higher than this value
_MEAN_BGR = (104.0, 117.0, 123.0)
_REFERENCE = 195.0  # px; a box whose width plus height is 195 px has scale 1, and its crop has a side of 200 px
_SIZE = 256  # side of FAN's input, px
_UP = 0.12  # the crop's centre is above the box's centre by this share of the box's height
# For each point, the index of the point at the same position in the mirrored picture.
# fmt: off
_MIRROR = [
    16, 15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 26, 25, 24, 23, 22, 21, 20, 19, 18, 17, 27, 28, 29, 30,
    35, 34, 33, 32, 31, 45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40, 54, 53, 52, 51, 50, 49, 48, 59, 58, 57, 56, 55,
    64, 63, 62, 61, 60, 67, 66, 65,
]
# fmt: on


def landmarks_fan(frame: np.ndarray, files: ModelFiles) -> np.ndarray | None:
    """Finds the 68 points of iBUG with 2D-FAN.

    Args:
        frame: (H, W, 3) uint8 RGB.

    Returns:
        (68, 2) float32, whole px of the frame, or None if no face is found. Raises MissingWeights.
    """
    import torch

    box = face_box(frame, files)
    if box is None:
        return None
    left, top, right, bottom = box
    centre = np.array([right - (right - left) / 2.0, bottom - (bottom - top) / 2.0 - (bottom - top) * _UP])
    scale = (right - left + bottom - top) / _REFERENCE
    crop = torch.from_numpy(_crop(frame, centre, scale).transpose(2, 0, 1).astype(np.float32) / 255.0)[None]
    net, where = cached_points_network(weight_file("fan_2d_4", files))
    with inference():
        heat = net(crop.to(where)) + net(crop.flip(-1).to(where))[:, _MIRROR].flip(-1)
    return _peaks(heat[0].cpu().numpy(), centre, scale)


def face_box(frame: np.ndarray, files: ModelFiles) -> tuple[float, float, float, float] | None:
    """The box of the face with the highest score in an (H, W, 3) uint8 RGB frame, or None if no face is found.

    The box is (left, top, right, bottom) in px.
    """
    import torch

    net, where = cached_boxes_network(weight_file("fan_s3fd", files))
    image = torch.from_numpy(np.ascontiguousarray(frame[..., ::-1].transpose(2, 0, 1))).to(where, torch.float32)[None]
    with inference():
        levels = net(image - torch.tensor(_MEAN_BGR, device=where).view(1, 3, 1, 1))
    best, box = CONFIDENCE, None
    for level, (classes, places) in enumerate(levels):
        score = torch.softmax(classes, dim=1)[0, 1].cpu().numpy()
        row, col = np.unravel_index(score.argmax(), score.shape)
        if score[row, col] > best:
            best = score[row, col]
            stride = 2 ** (level + 2)
            dx, dy, dw, dh = places[0, :, row, col].cpu().numpy().astype(np.float64)
            side = stride * 4.0
            width, height = side * np.exp(dw * 0.2), side * np.exp(dh * 0.2)
            left = stride / 2 + col * stride + dx * 0.1 * side - width / 2
            top = stride / 2 + row * stride + dy * 0.1 * side - height / 2
            box = (float(left), float(top), float(left + width), float(top + height))
    return box


def _matrix(centre: np.ndarray, scale: float, size: float) -> np.ndarray:
    """The 3x3 matrix that maps coordinates in the frame, px, to coordinates in a crop of `size` px."""
    side = 200.0 * scale
    out = np.eye(3)
    out[0, 0] = out[1, 1] = size / side
    out[:2, 2] = size * (-centre / side + 0.5)
    return out


def _crop(frame: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """Crops the square around `centre` and resizes it to (256, 256, 3) uint8. Pixels outside the frame are black."""
    import torch

    # The corners are computed in float32, as in the source, and truncated to whole px. float64 could give different
    # corners.
    back = torch.inverse(torch.from_numpy(_matrix(centre, scale, _SIZE)).float())
    (x0, y0), (x1, y1) = ((back @ torch.tensor([v, v, 1.0]))[:2].int().tolist() for v in (1.0, float(_SIZE)))
    height, width = frame.shape[:2]
    out = np.zeros((y1 - y0, x1 - x0, 3), np.uint8)
    to_x, to_y = max(1, 1 - x0) - 1, max(1, 1 - y0) - 1
    part = frame[max(1, y0 + 1) - 1 : min(y1, height), max(1, x0 + 1) - 1 : min(x1, width)]
    out[to_y : to_y + part.shape[0], to_x : to_x + part.shape[1]] = part
    return cv2.resize(out, (_SIZE, _SIZE), interpolation=cv2.INTER_LINEAR)


def _peaks(heat: np.ndarray, centre: np.ndarray, scale: float) -> np.ndarray:
    """The position of the maximum of each heat map, in whole px of the frame.

    If a maximum is not at the edge of its heat map, the position is moved by a quarter of a heat-map pixel towards the
    higher neighbour, in x and in y, before the conversion to px of the frame.
    """
    points, side = heat.shape[0], heat.shape[2]
    y, x = np.divmod(heat.reshape(points, -1).argmax(axis=1), side)
    place = np.stack([x + 1, y + 1], axis=1).astype(np.float32)
    for k in np.flatnonzero((x > 0) & (x < side - 1) & (y > 0) & (y < side - 1)):
        plane, px, py = heat[k], x[k], y[k]
        step = [plane[py, px + 1] - plane[py, px - 1], plane[py + 1, px] - plane[py - 1, px]]
        place[k] += np.sign(np.array(step)) * np.float32(0.25)
    place -= 0.5
    back = np.linalg.pinv(_matrix(centre, scale, side))
    return (np.c_[place, np.ones(points)] @ back.T)[:, :2].astype(np.int32).astype(np.float32)


@cache
def cached_points_network(file: WeightFile) -> tuple[Any, str]:
    return load_network(file, fan_network), device()


@cache
def cached_boxes_network(file: WeightFile) -> tuple[Any, str]:
    return load_network(file, s3fd_network), device()


# long: defines all layers of the published network. The classes are local, because torch is imported in the function
def fan_network(stacks: int = 4) -> Any:
    """The untrained network 2D-FAN: (N, 3, 256, 256) pictures to (N, 68, 64, 64) heat maps.

    The parameters have the names of the published file.
    """
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    def relu_of(norm: nn.Module, x: Tensor) -> Tensor:
        return functional.relu(norm(x))

    class Block(nn.Module):
        def __init__(self, taken: int, given: int) -> None:
            super().__init__()
            widths = [taken, given // 2, given // 4, given // 4]
            for k in (1, 2, 3):
                setattr(self, f"bn{k}", nn.BatchNorm2d(widths[k - 1]))
                setattr(self, f"conv{k}", nn.Conv2d(widths[k - 1], widths[k], 3, padding=1, bias=False))
            self.downsample = None
            if taken != given:
                shortcut = nn.Conv2d(taken, given, 1, bias=False)
                self.downsample = nn.Sequential(nn.BatchNorm2d(taken), nn.ReLU(), shortcut)

        def forward(self, x: Tensor) -> Tensor:
            parts, h = [], x
            for k in (1, 2, 3):
                h = getattr(self, f"conv{k}")(relu_of(getattr(self, f"bn{k}"), h))
                parts.append(h)
            return torch.cat(parts, 1) + (x if self.downsample is None else self.downsample(x))

    class HourGlass(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            names = [f"b{k}_{level}" for level in (4, 3, 2, 1) for k in (1, 2, 3)] + ["b2_plus_1"]
            for name in names:
                self.add_module(name, Block(256, 256))

        def level(self, n: int, x: Tensor) -> Tensor:
            low = getattr(self, f"b2_{n}")(functional.avg_pool2d(x, 2))
            low = self.level(n - 1, low) if n > 1 else self.get_submodule("b2_plus_1")(low)
            low = getattr(self, f"b3_{n}")(low)
            return getattr(self, f"b1_{n}")(x) + functional.interpolate(low, scale_factor=2, mode="nearest")

        def forward(self, x: Tensor) -> Tensor:
            return self.level(4, x)

    class Fan(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.bn1 = nn.Conv2d(3, 64, 7, stride=2, padding=3), nn.BatchNorm2d(64)
            self.conv2, self.conv3, self.conv4 = Block(64, 128), Block(128, 128), Block(128, 256)
            for k in range(stacks):
                self.add_module(f"m{k}", HourGlass())
                self.add_module(f"top_m_{k}", Block(256, 256))
                self.add_module(f"conv_last{k}", nn.Conv2d(256, 256, 1))
                self.add_module(f"bn_end{k}", nn.BatchNorm2d(256))
                self.add_module(f"l{k}", nn.Conv2d(256, 68, 1))
                if k < stacks - 1:
                    self.add_module(f"bl{k}", nn.Conv2d(256, 256, 1))
                    self.add_module(f"al{k}", nn.Conv2d(68, 256, 1))

        def forward(self, x: Tensor) -> Tensor:
            x = functional.avg_pool2d(self.conv2(relu_of(self.bn1, self.conv1(x))), 2)
            x = self.conv4(self.conv3(x))
            for k in range(stacks):
                h = getattr(self, f"conv_last{k}")(getattr(self, f"top_m_{k}")(getattr(self, f"m{k}")(x)))
                h = relu_of(getattr(self, f"bn_end{k}"), h)
                heat: Tensor = getattr(self, f"l{k}")(h)
                if k < stacks - 1:
                    x = x + getattr(self, f"bl{k}")(h) + getattr(self, f"al{k}")(heat)
            return heat

    return Fan()


def s3fd_network() -> Any:
    """The untrained network S3FD: (N, 3, H, W) BGR pictures minus the mean to six pairs (class scores, boxes).

    The parameters have the names of the package face-alignment.
    """
    import torch
    from torch import Tensor, nn
    from torch.nn import functional

    # Stages: input channels, output channels, number of layers. Each stage ends with a pool that halves the picture.
    stages = [(3, 64, 2), (64, 128, 2), (128, 256, 3), (256, 512, 3), (512, 512, 3)]
    # Layers that predict faces: name, number of channels, scale. The features are normalised to unit length and then
    # multiplied by the scale. With scale 0, the features are not normalised.
    heads = [("conv3_3_norm", 256, 10), ("conv4_3_norm", 512, 8), ("conv5_3_norm", 512, 5)]
    heads += [("fc7", 1024, 0), ("conv6_2", 512, 0), ("conv7_2", 256, 0)]

    class UnitLength(nn.Module):
        def __init__(self, channels: int, scale: float) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((channels,), float(scale)))

        def forward(self, x: Tensor) -> Tensor:
            length = x.pow(2).sum(dim=1, keepdim=True).sqrt() + 1e-10
            return x / length * self.weight.view(1, -1, 1, 1)

    class S3fd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            for stage, (taken, given, layers) in enumerate(stages, 1):
                for k in range(1, layers + 1):
                    self.add_module(f"conv{stage}_{k}", nn.Conv2d(taken if k == 1 else given, given, 3, padding=1))
            self.fc6, self.fc7 = nn.Conv2d(512, 1024, 3, padding=3), nn.Conv2d(1024, 1024, 1)
            self.conv6_1, self.conv6_2 = nn.Conv2d(1024, 256, 1), nn.Conv2d(256, 512, 3, stride=2, padding=1)
            self.conv7_1, self.conv7_2 = nn.Conv2d(512, 128, 1), nn.Conv2d(128, 256, 3, stride=2, padding=1)
            for name, channels, scale in heads:
                if scale:
                    self.add_module(name, UnitLength(channels, scale))
                classes = 4 if name == "conv3_3_norm" else 2
                self.add_module(f"{name}_mbox_conf", nn.Conv2d(channels, classes, 3, padding=1))
                self.add_module(f"{name}_mbox_loc", nn.Conv2d(channels, 4, 3, padding=1))

        def forward(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
            seen: dict[str, Tensor] = {}
            for stage, (_, _, layers) in enumerate(stages, 1):
                for k in range(1, layers + 1):
                    x = functional.relu(getattr(self, f"conv{stage}_{k}")(x))
                if stage >= 3:
                    seen[f"conv{stage}_3_norm"] = getattr(self, f"conv{stage}_3_norm")(x)
                x = functional.max_pool2d(x, 2)
            for name in ("fc6", "fc7", "conv6_1", "conv6_2", "conv7_1", "conv7_2"):
                x = seen[name] = functional.relu(getattr(self, name)(x))
            out = []
            for name, _, _ in heads:
                classes = getattr(self, f"{name}_mbox_conf")(seen[name])
                if classes.shape[1] == 4:  # of the scores of the three background classes, keep the highest
                    classes = torch.cat([classes[:, :3].amax(dim=1, keepdim=True), classes[:, 3:]], dim=1)
                out.append((classes, getattr(self, f"{name}_mbox_loc")(seen[name])))
            return out

    return S3fd()
