"""A small network that corrects the creases of `Appearance` for one person's skin.

The creases of `Appearance` are the same for everyone, and lines in the source's picture stay. The network predicts a
correction from these creases, the skin in the picture, and both expressions. Its prediction for equal expressions is
subtracted, so that a picture without a change of expression does not change.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmet_reference.render.appearance import DARKEST, SIDE

_AT_ONCE = 32  # skins per batch at inference; activations take 4 MB each
_FAINT = 0.03  # log ratio at which creases start
_CREASE_GAIN = 3.0  # creases are a tenth of the differences between skins


@dataclass(frozen=True)
class SkinNetSettings:
    """Sizes of the network, and the factor of its output."""

    width: int = 24  # channels at half of the square's resolution
    place: int = 8  # learnt maps of the position on the face
    hidden: int = 64
    # Factor of the output: uncertain creases are predicted too faint.
    strength: float = 1.6


class Skin(nn.Module):
    """Predicts corrected creases, the log ratio of the light: (B, 128, 128). Names of layers and buffers are stored."""

    middle: Tensor  # (K,) mean of coordinates
    spread: Tensor  # (K,) their standard deviation, mostly between people
    apart: Tensor  # (K,) standard deviation of the differences between one person's expressions
    face: Tensor  # (128, 128): 1 on the face, falling to 0 at its edge and openings

    def __init__(self, settings: SkinNetSettings, axes: int) -> None:
        """`axes`: K, coordinates of an expression (`Appearance.coordinates`)."""
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
        self.last = nn.Conv2d(w, 4, 3, 1, 1, bias=False)  # it would cancel in the difference
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
        creases: (B, 128, 128) its change by the mean creases.
        source, target: (B, K) coordinates of the current expression and of the wanted one.
        doubt: (B, K) noise on the source's coordinates, in standard deviations: half of an unknown person's are the
            shape of the face.
        """
        level = (skin * self.face).sum(dim=(1, 2), keepdim=True) / self.face.sum()
        shown = (skin - level) * self.face
        at = (source - self.middle) / self.spread + (0 if doubt is None else doubt)
        change = (target - source) / self.apart
        # With the change, and without.
        seen = torch.stack(
            [shown.repeat(2, 1, 1), _CREASE_GAIN * torch.cat([creases, torch.zeros_like(creases)])], dim=1
        )
        predicted = self._predict(
            seen, torch.cat([at.repeat(2, 1), torch.cat([change, torch.zeros_like(change)])], dim=1)
        )
        with_change, without = predicted.chunk(2)
        return creases + with_change - without

    def _predict(self, seen: Tensor, expressions: Tensor) -> Tensor:
        """Skins with creases (B, 2, 128, 128), and source with change (B, 2K), to corrections (B, 128, 128)."""
        modulation = self.told(expressions)
        scales = [part.chunk(2, dim=1) for part in modulation.split([2 * n for n in self._sizes], dim=1)]

        def modulated(x: Tensor, k: int) -> Tensor:
            scale, shift = (part[..., None, None] for part in scales[k])
            return functional.silu(x * (1 + scale) + shift)

        x = torch.cat([functional.pixel_unshuffle(seen, 2), self.where.expand(len(seen), -1, -1, -1)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)  # a third less time on a CPU
        x = modulated(self.fine(functional.silu(self.first(x))), 0)
        low = modulated(self.down(x), 1)
        low = low + modulated(self.coarse(low), 2)
        low = low + functional.silu(self.more(low))
        x = x + functional.interpolate(self.up(low), scale_factor=2, mode="bilinear", align_corners=False)
        x = x + modulated(self.joined(x), 3)
        return functional.pixel_shuffle(self.last(x), 2)[:, 0]

    @torch.inference_mode()
    def change(self, skin: np.ndarray, creases: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """The change of the light: (N, 128, 128) float32 log ratios, clipped to 0.6. Arguments as in `forward`."""
        device, out = self.face.device, []
        for at in range(0, len(skin), _AT_ONCE):
            part = (x[at : at + _AT_ONCE] for x in (skin, creases, source, target))
            given = (torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device) for x in part)
            change = self.settings.strength * self(*given) * self.face
            out.append(change.clamp(-DARKEST, DARKEST).cpu().numpy())
        return np.concatenate(out)


def fine(x: Tensor) -> Tensor:
    """(B, 128, 128) minus its mean over 9 x 9 px: creases without the light of a turned head."""
    return x - functional.avg_pool2d(x[:, None], 9, 1, 4)[:, 0]


def loss(predicted: Tensor, change: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss of log ratios plus twice that of their fine part, and both parts.

    It is L1 above 0.03, where creases start, and quadratic below. Most of a skin does not change, and a network that
    starts at zero would stay at that median.

    Args:
        predicted, change, weight: (B, 128, 128).
    """
    error, total = predicted - change, weight.sum()

    def mean(x: Tensor) -> Tensor:
        return (functional.smooth_l1_loss(x, torch.zeros_like(x), beta=_FAINT, reduction="none") * weight).sum() / total

    parts = {"all": mean(error), "fine": mean(fine(error))}
    return parts["all"] + 2 * parts["fine"], parts
