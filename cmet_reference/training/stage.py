"""What a model brings to the training loop: one `Stage` for each network that is trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np


@dataclass(frozen=True)
class Optimizer:
    """AdamW (Adam where weight_decay is 0) of one player's parameters, all of them of the stage's `net`."""

    parameters: Sequence[Any]
    rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    # The rate rises through the first twentieth of the steps and falls by half a cosine to a hundredth. For short runs,
    # which end in the noise of a constant rate; the papers' rates are constant.
    annealed: bool = False

    def rate_at(self, step: int, steps: int) -> float:
        """The rate of a step, counted from 0."""
        if not self.annealed:
            return self.rate
        fall = 0.505 + 0.495 * np.cos(np.pi * step / max(1, steps))
        return self.rate * float(min(1.0, (step + 1) / max(1, steps // 20)) * fall)


class Stage(Protocol):
    """One network, how it is fed, and what it should become.

    A batch is a pure function of the settings and the step, so a run that was killed goes on to the very same curve,
    and batches can be made by any number of worker processes in any order.
    """

    name: str  # cmet, audio2mouth, aee, ebm, appearance, skin, renderer: the checkpoint's name
    net: Any  # torch.nn.Module: everything in its state dict is saved
    steps: int

    def players(self) -> Mapping[str, Optimizer]:
        """Who steps, in turn, at each step: {"net": ...}, or a discriminator and a generator."""
        ...

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        """The arrays of a step; draws from numpy.random.default_rng((seed, step))."""
        ...

    def loss(self, batch: Mapping[str, Any], player: str) -> tuple[Any, Mapping[str, Any]]:
        """(what the player makes small, its named parts) from the batch's tensors on the network's device."""
        ...

    def held_out(self) -> Mapping[str, float]:
        """Figures on speakers that were not trained on, for the curve and the card."""
        ...

    def record(self) -> Mapping[str, Any]:
        """What a loader needs beside the tensors to build the network again: plain JSON, kept in the file's header."""
        ...


@runtime_checkable
class ClosedForm(Stage, Protocol):
    """A stage of no steps, whose network is computed at once; making the stage itself is cheap."""

    def solve(self) -> None:
        """Fill the network; the same settings and clips give the same numbers."""
        ...
