"""Loads and runs the torch networks of this folder: on the GPU if there is one, in full float32 as on the CPU."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

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
    """The network of `build` with the weights in `file`, in evaluation mode on `device()`.

    Args:
        file: a file written by torch; it is read with `weights_only`.
        build: returns the untrained module.
        state: converts the content of the file to the module's state dict.

    Raises:
        MissingWeights: torch is not on this machine.
        UserError: the file does not contain weights of this network.
    """

    def read(path: Path) -> Mapping[str, Any]:
        import torch

        return state(torch.load(path, map_location="cpu", weights_only=True))

    return load_network_by(file, build, read)


def load_network_by(file: WeightFile, build: Callable[[], Any], read: Callable[[Path], Mapping[str, Any]]) -> Any:
    """Like `load_network`, but `read` returns the state dict from the file's path."""
    if importlib.util.find_spec("torch") is None:
        raise MissingWeights(f"{file.path.name} is here, but torch, which runs it, is not.\nRun `pip install torch`.")
    network = build()
    try:
        network.load_state_dict(read(file.path))
    except UserError:
        raise
    except Exception as error:  # reading a foreign file can raise anything
        what = " ".join(str(error).split())[:160]
        raise UserError(f"{file.path} does not hold the weights of {file.name}: {what}") from None
    return network.eval().to(device())


def run_batches(network: Any, arrays: np.ndarray, batch: int, prepare: Callable[[Any], Any]) -> np.ndarray:
    """The network's outputs, (N, ...) float32, for (N, ...) arrays.

    `batch` arrays are run at a time. `prepare` converts each batch to the network's input, on the network's device.
    """
    import torch

    where = next(network.parameters()).device
    with inference():
        parts = [
            network(prepare(torch.from_numpy(np.ascontiguousarray(arrays[k : k + batch])).to(where))).cpu()
            for k in range(0, len(arrays), batch)
        ]
    return np.asarray(torch.cat(parts).numpy())
