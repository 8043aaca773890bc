"""LPIPS 0.1 with AlexNet (Zhang, Isola, Efros, Shechtman & Wang 2018): a learned distance between two pictures.

Source: richzhang/PerceptualSimilarity, the package lpips 0.1.4, lpips.py: `LPIPS(net="alex")`. The weights of the five
linear heads are a file of the package lpips; the package is not imported. The weights of AlexNet are those of
torchvision; torchvision is not needed.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import WeightFile, weight_file
from talking_face.pretrained.torch_nets import inference, load_network

BACKBONE, HEADS = "alexnet", "lpips_alex"
SMALLEST = 31  # px; on a smaller picture the output of AlexNet's second max pool is empty
_BATCH = 16
_MEAN, _STD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # mean and deviation of ImageNet's RGB in [-1, 1]
_EPSILON = 1e-10
# Convolutions by their index in torchvision's `features`: channels, kernel, stride, padding. LPIPS uses the output of
# the ReLU after each convolution. A 3x3 max pool of stride 2 comes before the second and before the third convolution.
_LAYERS: dict[int, tuple[int, int, int, int]] = {
    0: (64, 11, 4, 2),
    3: (192, 5, 1, 2),
    6: (384, 3, 1, 1),
    8: (256, 3, 1, 1),
    10: (256, 3, 1, 1),
}
_POOLED = (3, 6)


def lpips_alex(a_rgb: np.ndarray, b_rgb: np.ndarray, files: ModelFiles) -> np.ndarray:
    """Distance between the pictures of each pair.

    Args:
        a_rgb, b_rgb: (T, H, W, 3) RGB with values 0-255, H and W at least 31. The pictures are scaled to [-1, 1].

    Returns:
        (T,) float32. The distance is 0 for equal pictures, and does not change if `a_rgb` and `b_rgb` are exchanged.
        Raises MissingWeights.
    """
    if a_rgb.shape != b_rgb.shape or a_rgb.ndim != 4 or a_rgb.shape[-1] != 3 or min(a_rgb.shape[1:3]) < SMALLEST:
        raise ValueError(f"pictures must be (T, H >= {SMALLEST}, W, 3) twice, got {a_rgb.shape} and {b_rgb.shape}")
    features = cached_features(weight_file(BACKBONE, files))
    heads = cached_heads(weight_file(HEADS, files))
    import torch

    where = next(features.parameters()).device

    def shown(frames: np.ndarray) -> torch.Tensor:
        x = torch.from_numpy(np.ascontiguousarray(frames)).to(where).permute(0, 3, 1, 2).float() / 127.5 - 1
        mean, std = (torch.tensor(v, device=where).view(1, 3, 1, 1) for v in (_MEAN, _STD))
        return (x - mean) / std

    parts = []
    with inference():
        for k in range(0, len(a_rgb), _BATCH):
            total = torch.zeros((), device=where)
            both = (features(shown(frames[k : k + _BATCH])) for frames in (a_rgb, b_rgb))
            for x, y, head in zip(*both, heads, strict=True):
                total = total + head((_unit(x) - _unit(y)) ** 2).mean(dim=(1, 2, 3))
            parts.append(total.cpu())
    return np.asarray(torch.cat(parts).numpy())


def _unit(x: Any) -> Any:
    """Scale the channel vector at each position to length 1."""
    return x / (x.pow(2).sum(dim=1, keepdim=True).sqrt() + _EPSILON)


def build_features() -> Any:
    """The untrained AlexNet without classifier: (N, 3, H, W) to five feature maps. Names are those of torchvision."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Features(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features, wide = nn.Module(), 3
            for k, (channels, kernel, stride, padding) in _LAYERS.items():
                self.features.add_module(str(k), nn.Conv2d(wide, channels, kernel, stride, padding))
                wide = channels

        def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
            out = []
            for k in _LAYERS:
                x = functional.max_pool2d(x, 3, 2) if k in _POOLED else x
                x = functional.relu(self.features.get_submodule(str(k))(x))
                out.append(x)
            return out

    return Features().eval()


def build_heads() -> Any:
    """The untrained heads: a list of five 1x1 convolutions. Each head has one output channel and no bias."""
    from torch import nn

    heads = [nn.Conv2d(channels, 1, 1, bias=False) for channels, *_ in _LAYERS.values()]
    return nn.ModuleList(heads).eval()


@cache
def cached_features(file: WeightFile) -> Any:
    return load_network(
        file, build_features, lambda state: {k: v for k, v in state.items() if k.startswith("features.")}
    )


@cache
def cached_heads(file: WeightFile) -> Any:
    return load_network(
        file, build_heads, lambda state: {f"{k}.weight": state[f"lin{k}.model.1.weight"] for k in range(len(_LAYERS))}
    )
