"""SyncNet v2 (Chung and Zisserman 2016): 1024-d embeddings of five frames of a mouth and of 0.2 s of sound.

The network is defined in SyncNetModel.py of github.com/joonson/syncnet_python; the weights file is `syncnet_v2.model`.
This module computes the same embeddings, up to 1e-5, in half the time. For this purpose, batch norms are folded into
the convolutions, arrays are stored channels last, and ReLU is applied after pooling. The first convolution, which takes
more than half of the time, is computed with the Toom-Cook scheme.
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
_ROWS, _ROWS_A_FRAME = 20, 4  # rows of cepstra per embedding; rows from the start of one embedding to the next


class _Conv(NamedTuple):
    """A convolution, followed by a batch norm, a ReLU and optionally a max pool.

    The batch norm is the next module of the state dict.
    """

    at: int  # index of the convolution in its nn.Sequential; the names of the weights contain this index
    shape: tuple[int, ...]  # shape of the weights
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
_EPS = 1e-5  # the constant that torch's batch norm adds to the variance

# The kernel of the first convolution spans five frames, so that four windows need 20 convolutions of one frame each.
# The Toom-Cook scheme treats the convolution over time as a product of two polynomials. The product is computed at
# eight points, so that only eight convolutions are needed. The sums before and after the eight convolutions take a
# tenth of the time of the convolutions. With the points below, the float32 error is 1e-5 of the largest value, as small
# as in a direct computation.
_TILE = 4  # number of windows that are computed together
_TIMES = (0.0, 1.0, -1.0, 2.0, -2.0, 0.5, -0.5)  # the eighth point is infinity
# Number of rows after pooling, and number of these rows that are computed at once (a band). With this size of a band,
# the eight products of a band (6 MB) stay in the CPU's cache.
_POOLED, _BAND = 54, 9


class SyncNet:
    """The lip branch and the sound branch of SyncNet. The function `syncnet` creates one object per process.

    `tag` is the name of the weights in signatures.
    """

    size = SIZE
    window = WINDOW

    def __init__(self, state: Mapping[str, Tensor], tag: str, device: str | None = None, batch: int = 8) -> None:
        """Check the weights and prepare them for fast convolutions.

        Args:
            state: a state dict of the class `S` of syncnet_python. The entries `num_batches_tracked` are not used and
                need not be present.
            tag: name of the weights in signatures.
            device: torch device; the default is the GPU if there is one.
            batch: windows per batch; the data of 8 windows fits into a core's caches.

        Raises:
            UserError: the names or shapes in the state dict differ from those of SyncNet.
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
            crops: (T, 224, 224, 3) uint8 RGB, T >= 5. The network was trained on BGR pictures with values 0-255. To
                avoid a reordering of the pixels, the weights of the first convolution are reordered to RGB.

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
            samples: (N,) int16, 16 kHz; sample 0 is at the first frame. N >= 640 (windows + 5) is enough. This number
                is larger than the length of all windows, because the last cepstra of a window need 25 ms of sound.

        Returns:
            (windows, 1024) float32; row i is the embedding of the 20 rows of cepstra that start at i times 0.04 s.
        """
        import torch

        rows = mfcc(samples).astype(np.float32)
        if len(rows) < _ROWS_A_FRAME * (windows - 1) + _ROWS or windows < 1:
            raise ValueError(f"{len(samples)} samples are too few for {windows} windows")
        # The windows overlap, but each window is computed separately, because the convolutions pad the ends of each
        # window.
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

        The parameters are the matrix (8, 8) from frames to sums of frames, eight RGB kernels (96, 3, 7, 7), the bias
        (96,), and the matrix (4, 8) from products to windows.
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
                # b pooled rows need 2 b + 1 rows before pooling, and 2 b + 1 rows need 4 b + 7 rows of the frames.
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
    """Apply pooling, then ReLU.

    In the opposite order the result would be the same, but ReLU would process four times as many elements.
    """
    from torch.nn import functional

    return functional.relu_(x if layer.pool is None else functional.max_pool2d(x, *layer.pool))


def _toom_cook() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The three matrices of the Toom-Cook scheme: `before` (8, 8), `middle` (8, 5) and `after` (4, 8).

    Let d be eight frames and g be five weights. The product after @ ((middle @ g) * (before @ d)) has four elements;
    element i is the sum of g[k] d[i + k] over k.
    """
    depth = _TILE + WINDOW - 1
    powers = np.vander(_TIMES, depth, increasing=True)

    def at_points(n: int) -> np.ndarray:
        # The last row is the point infinity, where the value of a polynomial is its last coefficient.
        return np.vstack([powers[:, :n], np.eye(n)[-1]])

    before = np.linalg.inv(at_points(depth)).T
    scale = np.abs(before).sum(axis=1, keepdims=True)  # keeps sums of frames within the value range of a frame
    return before / scale, at_points(WINDOW) * scale, at_points(_TILE).T


def syncnet(files: ModelFiles) -> SyncNet:
    """SyncNet with the official weights, loaded once per process. Raises MissingWeights if the file is absent."""
    return cached_syncnet(weight_file("syncnet_v2", files))


@cache
def cached_syncnet(file: WeightFile) -> SyncNet:
    return SyncNet(load_state(file.path), _tag(file.sha256))


def syncnet_tag() -> str:
    """The name of the official weights in signatures. The name is the same if the file is absent."""
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
    """The name and the shape of each tensor that a state dict of SyncNet must contain."""
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
    """Combines the layer `index` and its batch norm into one layer. Returns weight and bias of this layer, float64."""
    weight, bias = (state[f"{branch}.{index}.{name}"].double() for name in ("weight", "bias"))
    gain, shift, mean, variance = (
        state[f"{branch}.{index + 1}.{name}"].double() for name in ("weight", "bias", "running_mean", "running_var")
    )
    scale = gain / (variance + _EPS).sqrt()
    shape = (-1, *[1] * (weight.ndim - 1))
    return weight * scale.view(shape), (bias - mean) * scale + shift
