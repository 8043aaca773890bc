"""The interface between a model and the training loop: each network that is trained has a class with these members."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor, nn


@dataclass(frozen=True)
class Optimizer:
    """The settings of an AdamW optimizer for some of the parameters of the stage's `net`.

    With a weight decay of 0, AdamW equals Adam.
    """

    parameters: Sequence[nn.Parameter]
    learning_rate: float
    weight_decay: float = 0.0
    betas: tuple[float, float] = (0.9, 0.999)
    # True: the learning rate rises during the first twentieth of the steps, and then falls along half a cosine to one
    # hundredth. This helps short runs, because a constant learning rate leaves noise in the last weights. The papers'
    # learning rates are constant.
    annealed: bool = False

    def learning_rate_at(self, step: int, steps: int) -> float:
        """The learning rate of step number `step`, counted from 0, in a training of `steps` steps."""
        if not self.annealed:
            return self.learning_rate
        fall = 0.505 + 0.495 * np.cos(np.pi * step / max(1, steps))
        return self.learning_rate * float(min(1.0, (step + 1) / max(1, steps // 20)) * fall)


class Stage(Protocol):
    """One network with its data, its losses and its held-out figures.

    A batch is a pure function of the settings and the step. Therefore a resumed run continues the same curve, and any
    number of worker processes can prepare batches in any order.
    """

    name: str  # the checkpoint's name: cmet, audio2mouth, aee, ebm, appearance, skin or renderer
    steps: int

    @property
    def net(self) -> nn.Module:
        """The network. All values in the network's state dict are saved."""
        ...

    def optimizers(self) -> Mapping[str, Optimizer]:
        """The optimizers by name, in the order of their updates: {"net": ...}, or a critic and a generator."""
        ...

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        """The batch of a step as arrays, drawn with numpy.random.default_rng((seed, step))."""
        ...

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        """The loss that the named optimizer minimises, and its parts by name.

        Args:
            batch: the result of the method `batch`, as tensors on the network's device.
            optimizer: a key of `optimizers`.
        """
        ...

    def held_out(self) -> Mapping[str, float]:
        """Figures for the curve and the card, measured on speakers that are not in the training split."""
        ...

    def record(self) -> Mapping[str, object]:
        """JSON values that a loader needs in addition to the tensors. These values are stored in the file's header."""
        ...


@runtime_checkable
class ClosedForm(Stage, Protocol):
    """A stage without training steps: `solve` computes the whole network. The constructor is fast, `solve` is slow."""

    def solve(self) -> None:
        """Fill the network. The same settings and clips give the same numbers."""
        ...


@runtime_checkable
class Described(Stage, Protocol):
    """A stage that states facts about its data in the card, for example how many labels it found."""

    def about(self) -> Mapping[str, object]:
        """JSON values for the member `about` of the card."""
        ...
