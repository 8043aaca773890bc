"""A small network that corrects the creases of the appearance model for one person's skin.

The creases of `Appearance` are the same for all people, and they do not remove lines of the skin that are already in
the source's picture. The network predicts a correction from these creases, the skin in the picture, the current
expression and the wanted expression. The network's prediction for two equal expressions is subtracted, so that a
picture does not change if the expression does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmet_reference.render.appearance import DARKEST, SIDE

_AT_ONCE = 32  # skins per batch at inference; the activations need 4 MB per skin
_FAINT = 0.03  # least log ratio of a visible crease
_CREASE_GAIN = 3.0  # factor of the creases in the input, because they are a tenth of the differences between skins


@dataclass(frozen=True)
class SkinNetSettings:
    """Sizes of the network, and the factor of its output."""

    width: int = 24  # channels at half of the square's resolution
    place: int = 8  # number of learnt channels that depend only on the position on the face
    hidden: int = 64  # hidden units of the network that reads the expressions
    # Factor of the output at inference. The factor is above 1, because the network predicts uncertain creases too
    # faint.
    strength: float = 1.6


class Skin(nn.Module):
    """Predicts corrected creases as log ratios of the light, (B, 128, 128).

    The names of layers and buffers are stored in checkpoints.
    """

    middle: Tensor  # (K,) mean of the coordinates of expressions
    spread: Tensor  # (K,) standard deviation of the coordinates, mostly due to differences between people
    apart: Tensor  # (K,) standard deviation of the difference between two expressions of one person
    face: Tensor  # (128, 128): 1 on the face, falling to 0 at the edge and the openings

    def __init__(self, settings: SkinNetSettings, axes: int) -> None:
        """`axes`: K, the number of coordinates of an expression (see `Appearance.coordinates`)."""
        super().__init__()
        self.settings = settings
        w = settings.width
        self.where = nn.Parameter(torch.zeros(1, settings.place, SIDE // 2, SIDE // 2))
        self.first = nn.Conv2d(8 + settings.place, w, 3, 1, 1)
        self.fine = nn.Conv2d(w, w, 3, 1, 1)
        self.down = nn.Conv2d(w, 2 * w, 3, 2, 1)
        self.coarse = nn.Conv2d(2 * w, 2 * w, 3, 1, 1)
        self.more = nn.Conv2d(2 * w, 2 * w, 3, 1, 1)
        self.up = nn.Conv2d(2 * w, w, 1)
        self.joined = nn.Conv2d(w, w, 3, 1, 1)
        self.last = nn.Conv2d(w, 4, 3, 1, 1, bias=False)  # no bias, because it would cancel in the difference
        self._sizes = [w, 2 * w, 2 * w, w]  # channels that the expression scales and shifts
        turns = nn.Linear(settings.hidden, 2 * sum(self._sizes))
        self.told = nn.Sequential(nn.Linear(2 * axes, settings.hidden), nn.SiLU(), turns)
        for weights in (*self.last.parameters(), *turns.parameters()):  # the correction starts at zero
            nn.init.zeros_(weights)
        self.register_buffer("middle", torch.zeros(axes))
        self.register_buffer("spread", torch.ones(axes))
        self.register_buffer("apart", torch.ones(axes))
        self.register_buffer("face", torch.ones(SIDE, SIDE))

    def forward(
        self, skin: Tensor, creases: Tensor, source: Tensor, target: Tensor, doubt: Tensor | None = None
    ) -> Tensor:
        """Args:
        skin: (B, 128, 128) natural logarithm of the grey level, 0 outside of the face.
        creases: (B, 128, 128) mean creases, as log ratios of the light.
        source, target: (B, K) coordinates of the current and of the wanted expression.
        doubt: (B, K) noise that is added to the source's coordinates in training, in standard deviations. For an
            unknown person, half of these coordinates come from the shape of the face, not from the expression.
        """
        level = (skin * self.face).sum(dim=(1, 2), keepdim=True) / self.face.sum()
        shown = (skin - level) * self.face
        at = (source - self.middle) / self.spread + (0 if doubt is None else doubt)
        change = (target - source) / self.apart
        # The first half of the batch has the change of expression, the second half has a change of zero.
        seen = torch.stack(
            [shown.repeat(2, 1, 1), _CREASE_GAIN * torch.cat([creases, torch.zeros_like(creases)])], dim=1
        )
        predicted = self._predict(
            seen, torch.cat([at.repeat(2, 1), torch.cat([change, torch.zeros_like(change)])], dim=1)
        )
        with_change, without = predicted.chunk(2)
        return creases + with_change - without

    def _predict(self, seen: Tensor, expressions: Tensor) -> Tensor:
        """Predicts corrections (B, 128, 128).

        Args:
            seen: (B, 2, 128, 128), the skin and the creases.
            expressions: (B, 2K), the source's expression and the change of expression.
        """
        modulation = self.told(expressions)
        scales = [part.chunk(2, dim=1) for part in modulation.split([2 * n for n in self._sizes], dim=1)]

        def modulated(x: Tensor, k: int) -> Tensor:
            scale, shift = (part[..., None, None] for part in scales[k])
            return functional.silu(x * (1 + scale) + shift)

        x = torch.cat([functional.pixel_unshuffle(seen, 2), self.where.expand(len(seen), -1, -1, -1)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)  # saves a third of the time on a CPU
        x = modulated(self.fine(functional.silu(self.first(x))), 0)
        low = modulated(self.down(x), 1)
        low = low + modulated(self.coarse(low), 2)
        low = low + functional.silu(self.more(low))
        x = x + functional.interpolate(self.up(low), scale_factor=2, mode="bilinear", align_corners=False)
        x = x + modulated(self.joined(x), 3)
        return functional.pixel_shuffle(self.last(x), 2)[:, 0]

    @torch.inference_mode()
    def change(self, skin: np.ndarray, creases: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The change of the light as log ratios, (N, 128, 128) float32, clipped to [-0.6, 0.6].

        The arguments are those of `forward`, as numpy arrays.
        """
        device, out = self.face.device, []
        for at in range(0, len(skin), _AT_ONCE):
            part = (x[at : at + _AT_ONCE] for x in (skin, creases, source, target))
            given = (torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device) for x in part)
            change = self.settings.strength * self(*given) * self.face
            out.append(change.clamp(-DARKEST, DARKEST).cpu().numpy())
        return np.concatenate(out)


def fine(x: Tensor) -> Tensor:
    """Subtracts from each pixel of (B, 128, 128) the mean over 9 x 9 px around it.

    This keeps creases and removes smooth changes of the light, for example if the head is rotated.
    """
    return x - functional.avg_pool2d(x[:, None], 9, 1, 4)[:, 0]


def loss(predicted: Tensor, change: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of the log ratios plus twice the loss of their fine part (see `fine`), and these two losses by name.

    The loss is L1 for errors above 0.03, where creases become visible, and quadratic for smaller errors. A pure L1 loss
    would not work: most of a skin does not change, so the median of the change is zero, and the network would keep its
    initial output of zero.

    Args:
        predicted, change, weight: (B, 128, 128).
    """
    error, total = predicted - change, weight.sum()

    def mean(x: Tensor) -> Tensor:
        return (functional.smooth_l1_loss(x, torch.zeros_like(x), beta=_FAINT, reduction="none") * weight).sum() / total

    parts = {"all": mean(error), "fine": mean(fine(error))}
    return parts["all"] + 2 * parts["fine"], parts
