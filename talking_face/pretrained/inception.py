"""The picture network Inception v3 in the form that FID uses: 2048 pooled features per picture.

Source of the network and its weights: mseitzer/pytorch-fid 0.3.0, inception.py. The network differs from torchvision's
Inception v3 in two points: average pools do not count the padding, and the last block has a max pool. This module needs
torch, but not torchvision.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import WeightFile, weight_file
from talking_face.pretrained.torch_nets import load_network, run_batches

NAME = "inception_fid"
DIMS = 2048
_SIZE = 299
_BATCH = 16

# A step is the name of a pool, or a convolution (name, channels, kernel, stride, padding), or a list of parallel
# branches.
_Step = Any


def _block_a(pool: int) -> list[list[_Step]]:
    return [
        [("branch1x1", 64, 1, 1, 0)],
        [("branch5x5_1", 48, 1, 1, 0), ("branch5x5_2", 64, 5, 1, 2)],
        [("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 1, 1)],
        ["avg", ("branch_pool", pool, 1, 1, 0)],
    ]


def _block_b() -> list[list[_Step]]:
    return [
        [("branch3x3", 384, 3, 2, 0)],
        [("branch3x3dbl_1", 64, 1, 1, 0), ("branch3x3dbl_2", 96, 3, 1, 1), ("branch3x3dbl_3", 96, 3, 2, 0)],
        ["max2"],
    ]


def _wide(name: str, channels: int, n: int = 7) -> _Step:
    return name, channels, (1, n), 1, (0, n // 2)


def _high(name: str, channels: int, n: int = 7) -> _Step:
    return name, channels, (n, 1), 1, (n // 2, 0)


def _block_c(c: int) -> list[list[_Step]]:
    double = [("branch7x7dbl_1", c, 1, 1, 0), _high("branch7x7dbl_2", c), _wide("branch7x7dbl_3", c)]
    return [
        [("branch1x1", 192, 1, 1, 0)],
        [("branch7x7_1", c, 1, 1, 0), _wide("branch7x7_2", c), _high("branch7x7_3", 192)],
        [*double, _high("branch7x7dbl_4", c), _wide("branch7x7dbl_5", 192)],
        ["avg", ("branch_pool", 192, 1, 1, 0)],
    ]


def _block_d() -> list[list[_Step]]:
    seven = [("branch7x7x3_1", 192, 1, 1, 0), _wide("branch7x7x3_2", 192), _high("branch7x7x3_3", 192)]
    return [
        [("branch3x3_1", 192, 1, 1, 0), ("branch3x3_2", 320, 3, 2, 0)],
        [*seven, ("branch7x7x3_4", 192, 3, 2, 0)],
        ["max2"],
    ]


def _block_e(pool: str) -> list[list[_Step]]:
    double = [("branch3x3dbl_1", 448, 1, 1, 0), ("branch3x3dbl_2", 384, 3, 1, 1)]
    return [
        [("branch1x1", 320, 1, 1, 0)],
        [("branch3x3_1", 384, 1, 1, 0), [_wide("branch3x3_2a", 384, 3), _high("branch3x3_2b", 384, 3)]],
        [*double, [_wide("branch3x3dbl_3a", 384, 3), _high("branch3x3dbl_3b", 384, 3)]],
        [pool, ("branch_pool", 192, 1, 1, 0)],
    ]


_STEM: tuple[_Step, ...] = (
    ("Conv2d_1a_3x3", 32, 3, 2, 0),
    ("Conv2d_2a_3x3", 32, 3, 1, 0),
    ("Conv2d_2b_3x3", 64, 3, 1, 1),
    "max2",
    ("Conv2d_3b_1x1", 80, 1, 1, 0),
    ("Conv2d_4a_3x3", 192, 3, 1, 0),
    "max2",
)
_BLOCKS: dict[str, list[list[_Step]]] = {
    "Mixed_5b": _block_a(32),
    "Mixed_5c": _block_a(64),
    "Mixed_5d": _block_a(64),
    "Mixed_6a": _block_b(),
    "Mixed_6b": _block_c(128),
    "Mixed_6c": _block_c(160),
    "Mixed_6d": _block_c(160),
    "Mixed_6e": _block_c(192),
    "Mixed_7a": _block_d(),
    "Mixed_7b": _block_e("avg"),
    "Mixed_7c": _block_e("max"),
}


def inception_features(frames_rgb: np.ndarray, files: ModelFiles) -> np.ndarray:
    """Features of whole pictures.

    Args:
        frames_rgb: (T, H, W, 3) uint8 RGB, T > 0. The pictures are resized to 299x299 by bilinear interpolation without
            averaging, and scaled to [-1, 1]. The aspect ratio is not kept.

    Returns:
        (T, 2048) float32. Raises MissingWeights. Takes 0.2 s per frame on one core.
    """
    network = cached_network(weight_file(NAME, files))
    return run_batches(network, frames_rgb, _BATCH, lambda batch: batch.permute(0, 3, 1, 2).float() / 255)


# long: defines all layers of the published network. The classes are local, because torch is imported in the function
def build() -> Any:
    """The untrained network as a torch module in evaluation mode: (N, 3, H, W) in [0, 1] to (N, 2048)."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Conv(nn.Module):
        def __init__(self, before: int, after: int, kernel: Any, stride: int, padding: Any) -> None:
            super().__init__()
            self.conv = nn.Conv2d(before, after, kernel, stride, padding, bias=False)
            self.bn = nn.BatchNorm2d(after, eps=0.001)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return functional.relu(self.bn(self.conv(x)))

    def add(owner: nn.Module, step: _Step, before: int) -> int:
        """Add the convolutions of a step to `owner`. Returns the number of channels after the step."""
        if isinstance(step, str):
            return before
        if isinstance(step, list):
            return sum(add(owner, one, before) for one in step)
        name, channels, kernel, stride, padding = step
        owner.add_module(name, Conv(before, channels, kernel, stride, padding))
        return int(channels)

    def go(owner: nn.Module, step: _Step, x: torch.Tensor) -> torch.Tensor:
        if step == "avg":
            return functional.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        if step == "max":
            return functional.max_pool2d(x, 3, 1, 1)
        if step == "max2":
            return functional.max_pool2d(x, 3, 2)
        if isinstance(step, list):
            return torch.cat([go(owner, one, x) for one in step], 1)
        return owner.get_submodule(step[0])(x)  # type: ignore[no-any-return]

    class Inception(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            width = 3
            for step in _STEM:
                width = add(self, step, width)
            for name, branches in _BLOCKS.items():
                block, widths = nn.Module(), []
                for branch in branches:
                    after = width
                    for step in branch:
                        after = add(block, step, after)
                    widths.append(after)
                self.add_module(name, block)
                width = sum(widths)
            self.fc = nn.Linear(width, 1008)  # in the weights file, but not used

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.interpolate(x, size=(_SIZE, _SIZE), mode="bilinear", align_corners=False)
            x = 2 * x - 1
            for step in _STEM:
                x = go(self, step, x)
            for name, branches in _BLOCKS.items():
                block, out = self.get_submodule(name), []
                for branch in branches:
                    y = x
                    for step in branch:
                        y = go(block, step, y)
                    out.append(y)
                x = torch.cat(out, 1)
            return x.mean(dim=(2, 3))

    return Inception().eval()


@cache
def cached_network(file: WeightFile) -> Any:
    return load_network(file, build)
