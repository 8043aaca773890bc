"""Feeds the training loop: batches as tensors, prepared in this process or in worker processes."""

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
    """One step's batch on the device, and the time it took."""

    tensors: Mapping[str, Tensor]
    samples: int
    waited: float  # seconds until the loader returned it


def loader(stage: Stage, steps: Sequence[int], workers: int, pin: bool = False) -> DataLoader:
    """A DataLoader of the batches of these steps, in order, as tensors on the CPU.

    Where a batch fails with a UserError or ClipError, the loader yields the exception in its place, for the caller to
    raise.

    Args:
        workers: processes that prepare batches; 0 prepares them in this process.
        pin: put the tensors into pinned memory.
    """
    from torch.utils.data import DataLoader

    if workers and "cv2" in sys.modules:
        # A fork does not copy OpenCV's thread pool, and the child would wait for it forever. One thread needs no pool.
        # torch handles its own pool.
        sys.modules["cv2"].setNumThreads(1)
    return DataLoader(
        _StepBatches(stage, steps),  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_identity,
        num_workers=workers,
        pin_memory=pin,
        # Forked workers share the clips in memory; spawned ones would each receive a copy.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


def timed_batches(stage: Stage, steps: Sequence[int], workers: int, device: torch.device) -> Iterator[TimedBatch]:
    """The batches of these steps on the device. Worker processes start at the call, before the first `next`."""
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
    """The batches of a stage as a map-style data set."""

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
