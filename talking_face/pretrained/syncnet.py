"""SyncNet v2 (Chung and Zisserman 2016): 1024-d embeddings of five frames of a mouth and of 0.2 s of sound.

The network is SyncNetModel.py of github.com/joonson/syncnet_python with the weights file `syncnet_v2.model`. This code
gives the same embeddings, to 1e-5, in half the time. Batch norm is folded into the convolutions, memory is channels
last, and ReLU comes after pooling. The first convolution, more than half of the work, uses the Toom-Cook scheme.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from talking_face.pretrained import torch_nets
from talking_face.pretrained.mfcc import mfcc
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import WeightFile, registered_hash, weight_file
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from torch import Tensor

SIZE = 224  # side of the crop, px
WINDOW = 5  # frames per embedding, at 25 frames/s
_ROWS, _ROWS_A_FRAME = 20, 4  # rows of cepstra per embedding; rows from one window to the next


class _Conv(NamedTuple):
    """A convolution, its batch norm (the next module of the state dict), ReLU, and optionally a max pool."""

    at: int  # index of the module in its nn.Sequential, part of the weights' names
    shape: tuple[int, ...]  # of the weights
    stride: int = 1
    padding: int = 0
    pool: tuple[int, int | tuple[int, int], int] | None = None  # kernel, stride, padding


_LIP = (
    _Conv(0, (96, 3, 5, 7, 7), 2, 0, (3, 2, 0)),
    _Conv(4, (256, 96, 1, 5, 5), 2, 1, (3, 2, 1)),
    _Conv(8, (256, 256, 1, 3, 3), 1, 1),
    _Conv(11, (256, 256, 1, 3, 3), 1, 1),
    _Conv(14, (256, 256, 1, 3, 3), 1, 1, (3, 2, 0)),
    _Conv(18, (512, 256, 1, 6, 6)),
)
_SOUND = (
    _Conv(0, (64, 1, 3, 3), 1, 1),
    _Conv(4, (192, 64, 3, 3), 1, 1, (3, (1, 2), 0)),
    _Conv(8, (384, 192, 3, 3), 1, 1),
    _Conv(11, (256, 384, 3, 3), 1, 1),
    _Conv(14, (256, 256, 3, 3), 1, 1, (3, 2, 0)),
    _Conv(18, (512, 256, 5, 4)),
)
_HEAD = ((0, (512, 512)), (3, (1024, 512)))  # Linear, batch norm, ReLU; Linear
_EPS = 1e-5  # of torch's batch norm

# The first convolution spans five frames, so that four windows need 20 convolutions of one frame each. The Toom-Cook
# scheme multiplies polynomials in time at eight points and needs only eight convolutions. The sums before and after
# them cost a tenth as much as the convolutions. With these points the float32 error stays as small as in the plain sum:
# 1e-5 of the largest value.
_TILE = 4  # windows
_TIMES = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # the eighth point is infinity
# Rows after pooling, and rows that are computed at once, so that the eight products of a band (6 MB) stay in the cache.
_POOLED, _BAND = 54, 9


class SyncNet:
    """The lip branch and the sound branch. `syncnet()` builds one object per process.

    `tag` is the name of the weights in signatures.
    """

    size = SIZE
    window = WINDOW

    def __init__(self, state: Mapping[str, Tensor], tag: str, device: str | None = None, batch: int = 8) -> None:
        """Check the weights and prepare them for fast convolutions.

        Args:
            state: a state dict of syncnet_python's `S`. `num_batches_tracked` is not used and may be absent.
            tag: name of the weights in signatures.
            device: torch device; the default is the GPU if there is one.
            batch: windows per batch; the data of 8 windows fits into a core's caches.

        Raises:
            UserError: the state dict has other names or shapes.
        """
        self.tag = tag
        self.batch = batch
        self.device = device or torch_nets.device()
        state = {name: value for name, value in state.items() if not name.endswith("num_batches_tracked")}
        _check(state)
        self._toom_cook = self._first_folded(state)
        self._lip = [self._folded(state, "netcnnlip", layer) for layer in _LIP[1:]]
        self._sound = [self._folded(state, "netcnnaud", layer) for layer in _SOUND]
        self._lip_head, self._sound_head = (self._folded_head(state, name) for name in ("netfclip", "netfcaud"))

    def lip(self, crops: np.ndarray) -> np.ndarray:
        """Embeddings of all windows of five consecutive frames.

        Args:
            crops: (T, 224, 224, 3) uint8 RGB, T >= 5. The network was trained on BGR, 0-255, without any scaling. The
                weights of its first convolution are reordered to RGB, so that the pixels need not be reordered.

        Returns:
            (T - 4, 1024) float32; row i is the embedding of frames i to i + 4.
        """
        import torch

        if crops.dtype != np.uint8 or crops.shape[1:] != (SIZE, SIZE, 3) or len(crops) < WINDOW:
            raise ValueError(f"crops must be (T >= 5, 224, 224, 3) uint8, got {crops.shape} {crops.dtype}")
        out = []
        with torch_nets.inference():
            for i in range(0, len(crops) - WINDOW + 1, self.batch):
                part = torch.from_numpy(np.ascontiguousarray(crops[i : i + self.batch + WINDOW - 1]))
                x = self._first(part.to(self.device).float())
                out.append(self._run(x, self._lip, self._lip_head))
            return torch.cat(out).cpu().numpy()

    def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
        """Embeddings of the sound that belongs to the first `windows` lip embeddings.

        Args:
            samples: (N,) int16, 16 kHz; sample 0 is at the first frame. N >= 640 (windows + 5) is enough. This is
                more than the five frames of the last window, because its last cepstra need 25 ms of sound.

        Returns:
            (windows, 1024) float32; row i is the embedding of the 20 rows of cepstra that start at 0.04 i s.
        """
        import torch

        rows = mfcc(samples).astype(np.float32)
        if len(rows) < _ROWS_A_FRAME * (windows - 1) + _ROWS or windows < 1:
            raise ValueError(f"{len(samples)} samples are too few for {windows} windows")
        # Windows overlap but share no computation, because the convolutions pad each window at its own ends.
        view = np.lib.stride_tricks.sliding_window_view(rows, _ROWS, axis=0)[::_ROWS_A_FRAME][:windows]
        out = []
        with torch_nets.inference():
            for i in range(0, windows, 4 * self.batch):
                part = torch.from_numpy(np.ascontiguousarray(view[i : i + 4 * self.batch])).to(self.device)
                out.append(self._run(part[:, None], self._sound, self._sound_head))
            return torch.cat(out).cpu().numpy()

    def _folded(self, state: Mapping[str, Tensor], branch: str, layer: _Conv) -> tuple[Tensor, Tensor, _Conv]:
        import torch

        weight, bias = _fold(state, branch, layer.at)
        weight = weight.flatten(1, 2) if weight.ndim == 5 else weight  # kernels of the lip branch span one frame
        weight = weight.float().to(self.device).contiguous(memory_format=torch.channels_last)
        return weight, bias.float().to(self.device), layer

    def _first_folded(self, state: Mapping[str, Tensor]) -> tuple[Tensor, list[Tensor], Tensor, Tensor]:
        """The parameters of `_first`.

        They are the matrix (8, 8) from frames to sums of frames, eight RGB kernels (96, 3, 7, 7), the bias (96,), and
        the matrix (4, 8) from products to windows.
        """
        import torch

        weight, bias = _fold(state, "netcnnlip", 0)
        before, middle, after = (torch.from_numpy(matrix) for matrix in _toom_cook())
        # (out, BGR, time, y, x) to (point, out, RGB, y, x)
        at_points = torch.einsum("nt,octyx->nocyx", middle, weight.flip(1))
        layouts = [w.contiguous(memory_format=torch.channels_last) for w in at_points.float().to(self.device)]
        return before.float().to(self.device), layouts, bias.float().to(self.device), after.float().to(self.device)

    def _first(self, frames: Tensor) -> Tensor:
        """Run the first layer and its pooling: (n + 4, 224, 224, 3) RGB float to (n, 96, 54, 54), channels last."""
        import torch
        from torch.nn import functional

        before, weights, bias, after = self._toom_cook
        layer, kernel = _LIP[0], weights[0].shape[-1]
        n, depth = len(frames) - WINDOW + 1, len(before)
        frames = functional.pad(frames, (0, 0, 0, 0, 0, 0, 0, -n % _TILE))
        out = frames.new_empty(len(frames) - WINDOW + 1, _POOLED, _POOLED, len(bias))
        for i in range(0, n, _TILE):
            tile = frames[i : i + depth]
            sums = (before @ tile.flatten(1)).view_as(tile).permute(0, 3, 1, 2)
            for top in range(0, _POOLED, _BAND):
                # b pooled rows need 2 b + 1 rows before pooling, and these need 4 b + 7 rows of the frames.
                rows = sums[:, :, 4 * top : 4 * (top + _BAND) + kernel]
                # Point k = 1 has the weight 1 in all four windows, so that the bias is added there.
                parts = [
                    functional.conv2d(rows[k : k + 1], weight, bias if k == 1 else None, layer.stride)
                    for k, weight in enumerate(weights)
                ]
                products = torch.cat([part.permute(0, 2, 3, 1) for part in parts])
                windows = (after @ products.flatten(1)).view(_TILE, *products.shape[1:])
                pooled = _finish(windows.permute(0, 3, 1, 2), layer)
                out[i : i + _TILE, top : top + _BAND] = pooled.permute(0, 2, 3, 1)
        return out[:n].permute(0, 3, 1, 2)

    def _folded_head(self, state: Mapping[str, Tensor], branch: str) -> tuple[Tensor, ...]:
        last = (state[f"{branch}.3.weight"].float(), state[f"{branch}.3.bias"].float())
        return tuple(value.float().to(self.device) for value in (*_fold(state, branch, 0), *last))

    def _run(self, x: Tensor, layers: list[tuple[Tensor, Tensor, _Conv]], head: tuple[Tensor, ...]) -> Tensor:
        import torch
        from torch.nn import functional

        x = x.contiguous(memory_format=torch.channels_last)
        for weight, bias, layer in layers:
            x = _finish(functional.conv2d(x, weight, bias, layer.stride, layer.padding), layer)
        hidden = functional.relu_(functional.linear(x.flatten(1), head[0], head[1]))
        return functional.linear(hidden, head[2], head[3])


def _finish(x: Tensor, layer: _Conv) -> Tensor:
    """Pooling, then ReLU. The opposite order gives the same result, but ReLU processes four times as many elements."""
    from torch.nn import functional

    return functional.relu_(x if layer.pool is None else functional.max_pool2d(x, *layer.pool))


def _toom_cook() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Matrices before (8, 8), middle (8, 5) and after (4, 8) of the Toom-Cook scheme.

    For eight frames d and five weights g, after @ ((middle @ g) * (before @ d)) has four elements: element i is the sum
    over k of g[k] d[i + k].
    """
    depth = _TILE + WINDOW - 1
    powers = np.vander(_TIMES, depth, increasing=True)

    def at_points(n: int) -> np.ndarray:
        return np.vstack([powers[:, :n], np.eye(n)[-1]])  # a polynomial's value at infinity is its last coefficient

    before = np.linalg.inv(at_points(depth)).T
    scale = np.abs(before).sum(axis=1, keepdims=True)  # keeps sums of frames within the value range of a frame
    return before / scale, at_points(WINDOW) * scale, at_points(_TILE).T


def syncnet(files: ModelFiles) -> SyncNet:
    """The official network, loaded once per process. Raises MissingWeights if its file is absent."""
    return cached_syncnet(weight_file("syncnet_v2", files))


@cache
def cached_syncnet(file: WeightFile) -> SyncNet:
    return SyncNet(load_state(file.path), _tag(file.sha256))


def syncnet_tag() -> str:
    """The official network's name in signatures. It does not depend on whether the file is present."""
    return _tag(registered_hash("syncnet_v2"))


def _tag(sha256: str) -> str:
    return f"syncnet-v2@{sha256[:8]}"


def load_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a state dict file, in torch's old or new format; no code in the file is executed."""
    import torch

    state = torch.load(path, map_location="cpu", weights_only=True)
    if not isinstance(state, Mapping):
        raise UserError(f"{path} holds no state dict but {type(state).__name__}")
    return dict(state)


def state_shapes() -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor that a state dict must have."""
    out: dict[str, tuple[int, ...]] = {}
    for branch, layers in (("netcnnlip", _LIP), ("netcnnaud", _SOUND)):
        for layer in layers:
            out |= _layer_shapes(branch, layer.at, layer.shape, normed=True)
    for branch in ("netfclip", "netfcaud"):
        for index, shape in _HEAD:
            out |= _layer_shapes(branch, index, shape, normed=index == 0)
    return out


def _layer_shapes(branch: str, index: int, shape: tuple[int, ...], normed: bool) -> dict[str, tuple[int, ...]]:
    names = [f"{index}.bias"]
    if normed:
        names += [f"{index + 1}.{name}" for name in ("weight", "bias", "running_mean", "running_var")]
    return {f"{branch}.{index}.weight": shape, **{f"{branch}.{name}": shape[:1] for name in names}}


def _check(state: Mapping[str, Tensor]) -> None:
    expected = state_shapes()
    odd = sorted(expected.keys() ^ state.keys()) or [n for n, s in expected.items() if tuple(state[n].shape) != s]
    if odd:
        raise UserError(f"these are not SyncNet v2's weights: {len(odd)} tensors differ, the first is {odd[0]}")


def _fold(state: Mapping[str, Tensor], branch: str, index: int) -> tuple[Tensor, Tensor]:
    """Weight and bias, float64, of one layer that is equal to the layer `index` followed by its batch norm."""
    weight, bias = (state[f"{branch}.{index}.{name}"].double() for name in ("weight", "bias"))
    gain, shift, mean, variance = (
        state[f"{branch}.{index + 1}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (variance + _EPS).sqrt()
    shape = (-1, *[1] * (weight.ndim - 1))
    return weight * scale.view(shape), (bias - mean) * scale + shift
