"""ArcFace identity embeddings, 512-d, by two networks: insightface's w600k_r50 and arcface_torch's iresnet100.

The weights of w600k_r50 are an ONNX file. The weights of iresnet100 are a state dict of torch.

Sources: deepinsight/insightface, python-package/insightface/model_zoo/arcface_onnx.py and
recognition/arcface_torch/backbones/iresnet.py.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.onnx_sessions import onnx_run
from talking_face.pretrained.store import WeightFile, weight_file
from talking_face.pretrained.torch_nets import load_network, run_batches

R50, R100 = "arcface_w600k_r50", "arcface_r100"
_LAYERS = (3, 13, 30, 3)
_BATCH = 16


def embed(crops_rgb: np.ndarray, name: str = R50, *, files: ModelFiles) -> np.ndarray:
    """Identity embeddings of aligned faces. The length of the embeddings is not normalised.

    Args:
        crops_rgb: (N, 112, 112, 3) uint8 RGB; the network's input is (x - 127.5) / 127.5.
        name: registry entry of the network, which must be an ONNX file.

    Returns:
        (N, D) float32. Raises MissingWeights.
    """
    shown = network_input(crops_rgb)
    return np.concatenate([onnx_run(name, shown[k : k + _BATCH], files) for k in range(0, len(shown), _BATCH)])


def embed_r100(crops_rgb: np.ndarray, files: ModelFiles) -> np.ndarray:
    """Identity embeddings as in `embed`, but by the network iresnet100 in torch."""
    return run_batches(cached_r100(weight_file(R100, files)), network_input(crops_rgb), _BATCH, lambda batch: batch)


def network_input(crops_rgb: np.ndarray) -> np.ndarray:
    """Converts crops, (N, 112, 112, 3) uint8 RGB with N > 0, to (N, 3, 112, 112) float32 in [-1, 1]."""
    if crops_rgb.ndim != 4 or crops_rgb.shape[1:] != (112, 112, 3) or not len(crops_rgb):
        raise ValueError(f"faces must be (N, 112, 112, 3) with N > 0, got {crops_rgb.shape}")
    return np.ascontiguousarray(((crops_rgb.astype(np.float32) - 127.5) / 127.5).transpose(0, 3, 1, 2))


def iresnet(layers: tuple[int, ...] = _LAYERS) -> Any:
    """An untrained iresnet as a torch module in evaluation mode. The parameters have the names of arcface_torch."""
    import torch
    from torch import nn

    class Block(nn.Module):
        def __init__(self, wide_in: int, wide: int, stride: int) -> None:
            super().__init__()
            self.bn1 = nn.BatchNorm2d(wide_in)
            self.conv1 = nn.Conv2d(wide_in, wide, 3, 1, 1, bias=False)
            self.bn2 = nn.BatchNorm2d(wide)
            self.prelu = nn.PReLU(wide)
            self.conv2 = nn.Conv2d(wide, wide, 3, stride, 1, bias=False)
            self.bn3 = nn.BatchNorm2d(wide)
            self.downsample = None
            if stride != 1:
                self.downsample = nn.Sequential(nn.Conv2d(wide_in, wide, 1, stride, bias=False), nn.BatchNorm2d(wide))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.bn3(self.conv2(self.prelu(self.bn2(self.conv1(self.bn1(x))))))
            return y + (x if self.downsample is None else self.downsample(x))  # type: ignore[no-any-return]

    class IResNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1 = nn.Conv2d(3, 64, 3, 1, 1, bias=False)
            self.bn1 = nn.BatchNorm2d(64)
            self.prelu = nn.PReLU(64)
            before = 64
            for k, (wide, n) in enumerate(zip((64, 128, 256, 512), layers, strict=True)):
                blocks = [Block(before if i == 0 else wide, wide, 2 if i == 0 else 1) for i in range(n)]
                self.add_module(f"layer{k + 1}", nn.Sequential(*blocks))
                before = wide
            self.bn2 = nn.BatchNorm2d(512)
            self.fc = nn.Linear(512 * 7 * 7, 512)
            self.features = nn.BatchNorm1d(512)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.prelu(self.bn1(self.conv1(x)))
            for k in range(4):
                x = self.get_submodule(f"layer{k + 1}")(x)
            return self.features(self.fc(torch.flatten(self.bn2(x), 1)))  # type: ignore[no-any-return]

    return IResNet().eval()


@cache
def cached_r100(file: WeightFile) -> Any:
    return load_network(file, iresnet, lambda state: {k.removeprefix("module."): v for k, v in state.items()})
