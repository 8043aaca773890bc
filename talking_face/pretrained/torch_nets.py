"""Loads and runs the torch networks of this package on the GPU, or on the CPU if there is no GPU.

Both devices compute in full float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from talking_face.lines import one_line
from talking_face.packages import require
from talking_face.pretrained.store import MissingWeights, WeightFile
from talking_face.reasons import UserError


def device() -> str:
    """`cuda` if torch finds a GPU, else `cpu`."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


@contextmanager
def inference() -> Iterator[None]:
    """Disable gradients and, on a GPU, TensorFloat-32.

    TensorFloat-32 would change a SyncNet distance by about 1e-3.
    """
    import torch

    with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield


def load_network(file: WeightFile, build: Callable[[], Any], state: Callable[[Any], Mapping[str, Any]] = dict) -> Any:
    """The network that `build` returns, with the weights in `file`, in evaluation mode on the device `device()`.

    Args:
        file: a file that torch has written; the file is read with `weights_only`.
        build: function that returns the untrained module.
        state: function that converts the content of the file to the module's state dict.

    Raises:
        MissingWeights: torch is not installed, or cannot be loaded.
        UserError: the file does not contain weights of the network.
    """

    def read(path: Path) -> Mapping[str, Any]:
        import torch

        return state(torch.load(path, map_location="cpu", weights_only=True))

    return load_network_by(file, build, read)


def load_network_by(file: WeightFile, build: Callable[[], Any], read: Callable[[Path], Mapping[str, Any]]) -> Any:
    """Like `load_network`, but the function `read` reads the state dict from the path of the file."""
    require("torch", file.path.name, kind=MissingWeights)
    network = build()
    try:
        network.load_state_dict(read(file.path))
    except UserError:
        raise
    except Exception as error:  # if the file is damaged, any exception can occur
        what = one_line(error, 160)
        raise UserError(f"{file.path} does not hold the weights of {file.name}: {what}") from None
    return network.eval().to(device())


def run_batches(network: Any, arrays: np.ndarray, batch: int, prepare: Callable[[Any], Any]) -> np.ndarray:
    """The outputs of a network, (N, ...) float32, for N arrays, (N, ...).

    The network processes `batch` arrays at a time. The function `prepare` converts each batch, which is already on the
    device of the network, to the input of the network.
    """
    import torch

    where = next(network.parameters()).device
    with inference():
        parts = [
            network(prepare(torch.from_numpy(np.ascontiguousarray(arrays[k : k + batch])).to(where))).cpu()
            for k in range(0, len(arrays), batch)
        ]
    return np.asarray(torch.cat(parts).numpy())
