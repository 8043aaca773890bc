"""A small network that sees a face's skin and says how its creases change from one expression to another.

`Appearance`'s creases are the same for everyone; what a source's picture shows of its own stays. The network corrects
them: it is told what they say, sees the skin as it is, which shows what there is to be taken away, and where the
expression comes from and goes to. What it says where the two are one is taken from that, so that a picture which is
asked for nothing stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmet_reference.render.appearance import DARKEST, SIDE

_AT_ONCE = 32  # skins; of 4 MB each on their way
_FAINT = 0.03
_LOUDER = 3.0  # creases are a tenth of what sets skins apart


@dataclass(frozen=True)
class SkinNetSettings:
    """Sizes, and how much of what the network says is done."""

    width: int = 24  # channels at half of the square's resolution
    place: int = 8  # maps that are learnt for themselves: shifted windows do not know where on the face they are
    hidden: int = 64
    # Creases whose place or depth is uncertain come out too faint.
    strength: float = 1.6


class Skin(nn.Module):
    """Skin (B, 128, 128), everyone's creases (B, 128, 128) and coordinates of two expressions (B, K) to (B, 128, 128),
    the logarithm of the ratio of the light: the creases, corrected."""

    middle: Tensor  # (K,) mean of coordinates
    spread: Tensor  # (K,) their deviation, most of which is what sets people apart
    apart: Tensor  # (K,) deviation of what one person's expressions differ by
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
        self.last = nn.Conv2d(w, 4, 3, 1, 1, bias=False)  # it would be taken from itself
        self._sizes = [w, 2 * w, 2 * w, w]  # channels that the expression scales and shifts
        turns = nn.Linear(settings.hidden, 2 * sum(self._sizes))
        self.told = nn.Sequential(nn.Linear(2 * axes, settings.hidden), nn.SiLU(), turns)
        for weights in (*self.last.parameters(), *turns.parameters()):  # begins by correcting nothing
            nn.init.zeros_(weights)
        self.register_buffer("middle", torch.zeros(axes))
        self.register_buffer("spread", torch.ones(axes))
        self.register_buffer("apart", torch.ones(axes))
        self.register_buffer("face", torch.ones(SIDE, SIDE))

    def forward(
        self, skin: Tensor, creases: Tensor, source: Tensor, target: Tensor, doubt: Tensor | None = None
    ) -> Tensor:
        """Args:
        skin: (B, 128, 128) natural logarithm of the grey, 0 off the face.
        creases: (B, 128, 128) what they change of it, by everyone's.
        source, target: (B, K) coordinates of the expression that it has, and of the wanted one.
        doubt: (B, K) noise on the source's, in units of their deviation: half of a stranger's is the shape of
            his face, and no expression.
        """
        level = (skin * self.face).sum(dim=(1, 2), keepdim=True) / self.face.sum()
        shown = (skin - level) * self.face
        at = (source - self.middle) / self.spread + (0 if doubt is None else doubt)
        way = (target - source) / self.apart
        # Asked for the change, and for none.
        seen = torch.stack([shown.repeat(2, 1, 1), _LOUDER * torch.cat([creases, torch.zeros_like(creases)])], dim=1)
        said = self._says(seen, torch.cat([at.repeat(2, 1), torch.cat([way, torch.zeros_like(way)])], dim=1))
        some, none = said.chunk(2)
        return creases + some - none

    def _says(self, seen: Tensor, asked: Tensor) -> Tensor:
        """Skins and creases (B, 2, 128, 128), and from where to where (B, 2K), to (B, 128, 128)."""
        told = self.told(asked)
        scales = [part.chunk(2, dim=1) for part in told.split([2 * n for n in self._sizes], dim=1)]

        def turned(x: Tensor, k: int) -> Tensor:
            scale, shift = (part[..., None, None] for part in scales[k])
            return functional.silu(x * (1 + scale) + shift)

        x = torch.cat([functional.pixel_unshuffle(seen, 2), self.where.expand(len(seen), -1, -1, -1)], dim=1)
        x = x.contiguous(memory_format=torch.channels_last)  # a third less time on a CPU
        x = turned(self.fine(functional.silu(self.first(x))), 0)
        low = turned(self.down(x), 1)
        low = low + turned(self.coarse(low), 2)
        low = low + functional.silu(self.more(low))
        x = x + functional.interpolate(self.up(low), scale_factor=2, mode="bilinear", align_corners=False)
        x = x + turned(self.joined(x), 3)
        return functional.pixel_shuffle(self.last(x), 2)[:, 0]

    @torch.inference_mode()
    def change(self, skin: np.ndarray, creases: np.ndarray, source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """What is done: (N, 128, 128) float32, the logarithm of the ratio, within 0.6 of 0. Arguments as above."""
        device, out = self.face.device, []
        for at in range(0, len(skin), _AT_ONCE):
            part = (x[at : at + _AT_ONCE] for x in (skin, creases, source, target))
            given = (torch.from_numpy(np.ascontiguousarray(x, np.float32)).to(device) for x in part)
            said = self.settings.strength * self(*given) * self.face
            out.append(said.clamp(-DARKEST, DARKEST).cpu().numpy())
        return np.concatenate(out)


def fine(x: Tensor) -> Tensor:
    """(B, 128, 128) less its mean over 9 x 9 px: creases, and not the light that a turned head changes."""
    return x - functional.avg_pool2d(x[:, None], 9, 1, 4)[:, 0]


def loss(said: Tensor, change: Tensor, weight: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Of the logarithm and of its fine part, the latter twice as heavy, and both; (B, 128, 128) each.

    L1 above 0.03, where creases begin, and quadratic below: most of a skin does not change, and a network that begins
    with nothing would stay at that median.
    """
    wrong, total = said - change, weight.sum()

    def mean(x: Tensor) -> Tensor:
        return (functional.smooth_l1_loss(x, torch.zeros_like(x), beta=_FAINT, reduction="none") * weight).sum() / total

    parts = {"all": mean(wrong), "fine": mean(fine(wrong))}
    return parts["all"] + 2 * parts["fine"], parts
