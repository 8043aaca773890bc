"""The arguments of a training: its options, and the provenance of the stage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(frozen=True)
class TrainOptions:
    """How a stage is trained. Only `seed`, `precision` and `threads` change the result on the CPU."""

    seed: int = 0  # of the batches, of dropout and of everything else that draws from torch during a step
    device: str = "auto"  # auto (a GPU where the machine has one), cpu, cuda or cuda:N
    precision: str = "fp32"  # fp32, bf16 or fp16 (autocast; weights stay float32)
    workers: int = 0  # processes that prepare batches; 0 prepares each batch between two steps
    checkpoint_every: int = 1000  # steps between two checkpoints; each one adds held-out figures to the curve
    threads: int = 1  # of torch on the CPU; the last bits of a sum depend on it
    resume: bool = True  # False discards earlier results of the stage
    quiet: bool = False  # no progress lines


@dataclass(frozen=True)
class Provenance:
    """The origin of a stage: settings, data, earlier checkpoints. It is stored in the checkpoint's header."""

    config: Mapping[str, object] = field(default_factory=dict)  # settings of the stage, as JSON values
    data: Mapping[str, Path] = field(default_factory=dict)  # shard sets by name; all their training clips count as seen
    built_on: Mapping[str, str] = field(default_factory=dict)  # revisions of the earlier checkpoints, by kind
