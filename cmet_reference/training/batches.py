"""Prepares the batches of the training loop as tensors, in this process or in worker processes."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from cmet_reference.training.stage import Stage
from talking_face.reasons import ClipError, UserError

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from torch.utils.data import DataLoader


@dataclass(frozen=True)
class TimedBatch:
    """The batch of one step, on the device, and the time that the loop waited for it."""

    tensors: Mapping[str, Tensor]
    samples: int  # number of samples in the batch
    waited: float  # seconds until the loader returned the batch


def loader(stage: Stage, steps: Sequence[int], workers: int, pin: bool = False) -> DataLoader:
    """A DataLoader of the batches of these steps, in order, as tensors on the CPU.

    If a batch fails with a UserError or ClipError, the loader yields the exception instead of the batch, and the caller
    must raise it.

    Args:
        steps: the numbers of the steps.
        workers: number of processes that prepare batches; 0 prepares them in this process.
        pin: put the tensors into pinned memory.
    """
    from torch.utils.data import DataLoader

    if workers and "cv2" in sys.modules:
        # A fork does not copy OpenCV's thread pool, so a forked worker would wait for the pool forever. With one
        # thread, OpenCV uses no thread pool. torch handles its own thread pool correctly.
        sys.modules["cv2"].setNumThreads(1)
    return DataLoader(
        _StepBatches(stage, steps),  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_identity,
        num_workers=workers,
        pin_memory=pin,
        # Forked workers share the clips in memory. Spawned workers would each receive a copy.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def timed_batches(stage: Stage, steps: Sequence[int], workers: int, device: torch.device) -> Iterator[TimedBatch]:
    """The batches of these steps on the device. Worker processes start at the call, not at the first `next`."""
    pin = device.type == "cuda"
    return _timed(iter(loader(stage, steps, workers, pin)), len(steps), device, pin)


def _timed(batches: Iterator, steps: int, device: torch.device, pin: bool) -> Iterator[TimedBatch]:
    for _ in range(steps):
        began = time.perf_counter()
        arrays = next(batches)
        waited = time.perf_counter() - began
        if isinstance(arrays, Exception):
            raise arrays
        samples = next((len(array) for array in arrays.values() if array.ndim), 1)
        yield TimedBatch({key: a.to(device, non_blocking=pin) for key, a in arrays.items()}, samples, waited)


class _StepBatches:
    """The batches of a stage as a data set for DataLoader: item i is the batch of `steps[i]`."""

    def __init__(self, stage: Stage, steps: Sequence[int]) -> None:
        self.stage, self.steps = stage, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> dict[str, Tensor] | Exception:
        import torch

        try:
            batch = self.stage.batch(self.steps[index])
        except (UserError, ClipError) as error:
            return error
        return {key: torch.from_numpy(np.require(value, None, ["C", "W"])) for key, value in batch.items()}


def _identity(item: object) -> object:
    return item
