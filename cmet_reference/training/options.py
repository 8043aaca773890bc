"""The arguments of a training: its options, and the provenance of the stage (settings, data, earlier checkpoints)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TrainOptions:
    """How a stage is trained. On the CPU, only `seed`, `precision` and `threads` change the result."""

    seed: int = 0  # seed of the batches, of dropout and of all other random numbers
    device: str = "auto"  # auto (a GPU if the machine has one), cpu, cuda or cuda:N
    precision: str = "fp32"  # fp32, bf16 or fp16 (autocast; weights stay float32)
    workers: int = 0  # number of processes that prepare batches; 0: the training process prepares them
    checkpoint_every: int = 1000  # steps between two checkpoints; each adds the losses on held-out clips to the curve
    threads: int = 1  # number of torch's threads on the CPU; the last bits of a sum depend on it
    resume: bool = True  # False ignores and replaces earlier results of the stage
    quiet: bool = False  # no progress lines
    most_clips: int | None = None  # read only this many clips of each split, to measure a few steps; see rehearsal.py


@dataclass(frozen=True)
class Provenance:
    """The inputs from which a stage is trained. They are recorded in the header of its checkpoint."""

    config: Mapping[str, object] = field(default_factory=dict)  # settings of the stage, as JSON values
    # Shard sets by name. All clips of their training splits are recorded as used for the training.
    data: Mapping[str, Path] = field(default_factory=dict)
    built_on: Mapping[str, str] = field(default_factory=dict)  # revisions of the earlier checkpoints, by kind
