"""Prepares torch and Accelerate for a training: device, precision, number of threads, random state."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from talking_face.packages import require
from talking_face.pretrained import torch_nets
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from accelerate import Accelerator

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # maps the names of this project to Accelerate's names


@contextmanager
def repeatable(threads: int = 1) -> Iterator[None]:
    """Inside the block, torch uses a fixed number of threads. The block's end restores threads and random state."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


def resolved(device: str) -> str:
    """The torch device that an option `--device` means: `auto` is a GPU if the machine has one, else the CPU."""
    return torch_nets.device() if device == "auto" else device


def make_accelerator(device: str, precision: str) -> Accelerator:
    """An Accelerator for one stage. Accelerate's global state is reset first.

    Raises:
        UserError: Accelerate is not installed; the device is absent; the precision is unknown or needs a GPU.
    """
    for package in ("torch", "accelerate"):
        require(package, "training", "reference")
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    _check_device(device, precision)
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    added = {"ACCELERATE_TORCH_DEVICE": device} if ":" in device else {}
    os.environ.update(added)
    try:
        return Accelerator(
            cpu=device == "cpu",
            mixed_precision=PRECISIONS[precision],
            # This setting is needed because the loss of one optimizer gives gradients for only a part of the network.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    finally:
        for name in added:
            del os.environ[name]


def _check_device(device: str, precision: str) -> None:
    import torch

    cuda = torch.cuda.is_available()
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) or (device.startswith("cuda") and not cuda):
        raise UserError(f"no device {device!r} here; use auto, cpu, cuda or cuda:N")
    if ":" in device and int(device[5:]) >= torch.cuda.device_count():
        raise UserError(f"no device {device!r} here; the machine has {torch.cuda.device_count()} GPUs")
    if precision not in PRECISIONS:
        raise UserError(f"no precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if precision == "fp16" and (device == "cpu" or not cuda):
        raise UserError("fp16 needs a GPU; use bf16 or fp32")
