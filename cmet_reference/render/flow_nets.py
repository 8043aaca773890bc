"""The networks of CEM-Net's flow renderer: flow estimator, generator and critic.

A learnt flow (a displacement for each pixel) warps the reference pictures to the landmarks. The weighted mean of the
warped pictures is an input of the generator, which draws the face. The paper describes the renderer in one sentence and
refers to IP-LAP (Weizhi-Zhong/IP_LAP, models/video_renderer.py). Therefore the networks are those of IP-LAP,
implemented again, with three differences:

- The audio is not an input, because the paper names no such input.
- A flow of zero leaves a picture unchanged. In IP-LAP, a flow of zero changes the picture slightly, because a grid for
  aligned corners is sampled without aligned corners.
- The crop of a face is the same square in all frames of a clip, so that the crop does not tremble. IP-LAP uses one box
  per frame.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from cmet_reference.render import losses


@dataclass(frozen=True)
class RendererSettings:
    """Sizes and training of the flow renderer. The defaults are the paper's, or IP-LAP's if the paper has none."""

    size: int = 128  # side of the crop, px
    region: Literal["lower", "whole"] = "lower"  # the part to draw: the lower half of the crop, or the whole face
    references: int = 3  # number of references in training; inference uses all references
    window: int = 5  # number of sketches: of the frame to draw and of its neighbours
    narrow: int = 32  # channels of the first layer, at full size
    wide: int = 256  # channels at half size; back at full size, there are a quarter of these channels
    hidden: int = 256  # hidden channels of the network in `Spade` that computes scales and shifts
    critic: int = 64  # channels of the critic's first layer
    steps: int = 100_000
    batch: int = 96
    rate: float = 1e-4  # learning rate
    warm_up: int = 12_000  # number of first steps that use only the loss of the warped references (IP-LAP: 25 epochs)
    # How drawn and real pictures are compared. "pixels" is the mean absolute difference; it needs no download.
    perceptual: Literal["vgg19", "pixels"] = "vgg19"
    w_warp: float = 2.5  # weight of the loss of the warped references (IP-LAP; the paper names no such loss)
    w_per: float = 4.0  # weight of the perceptual loss
    w_gan: float = 0.25  # weight of the adversarial loss
    w_fm: float = 1.0  # weight of the feature matching loss
    kept: int = 256  # greatest number of clips whose crops stay in memory: 2.5 MB per clip of 2 s at 128 px


class Spade(nn.Module):
    """Two convolutions with SPADE normalisation.

    The input of each convolution is normalised, then scaled and shifted. Scale and shift of each pixel are computed
    from a picture.
    """

    def __init__(self, channels: int, picture: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.InstanceNorm2d(channels)
        self.read = nn.ModuleList(nn.Conv2d(picture, hidden, 3, padding=1) for _ in range(2))
        self.turn = nn.ModuleList(nn.Conv2d(hidden, 2 * channels, 3, padding=1) for _ in range(2))
        # The convolutions have no biases, because the next normalisation would remove them.
        self.convolutions = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1, bias=False) for _ in range(2))

    def forward(self, x: Tensor, picture: Tensor) -> Tensor:
        """Maps (B, C, h, w) to (B, C, h, w). The picture, (B, P, H, W), is resized to h x w first."""
        picture = F.interpolate(picture, x.shape[-2:])
        for read, turn, convolution in zip(self.read, self.turn, self.convolutions, strict=True):
            scale, shift = turn(read(picture)).chunk(2, dim=1)  # no activation between the two layers, as in IP-LAP
            x = convolution(F.leaky_relu(self.norm(x) * (1 + scale) + shift, 0.2))
        return x


def _down(channels: int, s: RendererSettings) -> nn.ModuleList:
    full = nn.Sequential(nn.Conv2d(channels, s.narrow, 7, padding=3, bias=False), nn.BatchNorm2d(s.narrow), nn.ReLU())
    half = nn.Sequential(nn.Conv2d(s.narrow, s.wide, 3, 2, 1, bias=False), nn.BatchNorm2d(s.wide), nn.ReLU())
    return nn.ModuleList([full, half])


class FlowEstimator(nn.Module):
    """Estimates, for every reference, the flow to the wanted picture and the reference's weight at each pixel."""

    def __init__(self, s: RendererSettings) -> None:
        super().__init__()
        sketches = 3 * s.window
        self.down = _down(6, s)
        self.coarse = nn.ModuleList(Spade(s.wide, sketches, s.hidden) for _ in range(2))
        self.fine = Spade(s.wide // 4, sketches, s.hidden)
        self.flow = nn.Conv2d(s.wide // 4, 2, 7, padding=3)
        self.weight = nn.Sequential(
            nn.Conv2d(s.wide // 4, s.narrow, 7, padding=3), nn.ReLU(), nn.Conv2d(s.narrow, 1, 7, padding=3)
        )
        with torch.no_grad():  # the flow starts near zero
            self.flow.weight *= 0.1

    def forward(self, pictures: Tensor, sketches: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Warps the references to the wanted sketches, and computes the weighted mean over the references.

        Args:
            pictures, sketches: (B, N, 3, H, W) in [0, 1], the references and their sketches.
            wanted: (B, 3 T, H, W), the sketches of the wanted frame and its neighbours.

        Returns:
            the weighted means of the warped features, (B, narrow, H, W) and (B, wide, H/2, W/2), and of the warped
            pictures, (B, 3, H, W).
        """
        b, n = pictures.shape[:2]
        flat = pictures.flatten(0, 1)
        full = self.down[0](torch.cat([flat, sketches.flatten(0, 1)], dim=1))
        half = self.down[1](full)
        driving = wanted.repeat_interleave(n, dim=0)
        x = half
        for block in self.coarse:
            x = block(x, driving)
        x = self.fine(F.pixel_shuffle(x, 2), driving)
        grid = sampling_grid(self.flow(x))
        share = torch.sigmoid(self.weight(x)).unflatten(0, (b, n))
        share = share / (share.sum(dim=1, keepdim=True) + 1e-5)
        small = _resized_grid(grid, half.shape[-2:])
        half_share = F.interpolate(share.flatten(0, 1), half.shape[-2:]).unflatten(0, (b, n))

        def mean(x: Tensor, at: Tensor, weights: Tensor) -> Tensor:
            warped = F.grid_sample(x, at, padding_mode="border", align_corners=False)
            return (warped.unflatten(0, (b, n)) * weights).sum(dim=1)

        return mean(full, grid, share), mean(half, small, half_share), mean(flat, grid, share)


def sampling_grid(flow: Tensor) -> Tensor:
    """Converts a flow to the grid of `grid_sample` with `align_corners=False`: (B, H, W, 2).

    Args:
        flow: (B, 2, H, W) px, x first.
    """
    h, w = flow.shape[-2:]
    y = (torch.arange(h, device=flow.device, dtype=flow.dtype) + 0.5)[:, None].expand(h, w)
    x = (torch.arange(w, device=flow.device, dtype=flow.dtype) + 0.5)[None].expand(h, w)
    at = torch.stack([(x + flow[:, 0]) * (2 / w) - 1, (y + flow[:, 1]) * (2 / h) - 1], dim=-1)
    return at


def _resized_grid(grid: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(grid.permute(0, 3, 1, 2), tuple(size), mode="bilinear").permute(0, 2, 3, 1)


class Generator(nn.Module):
    """Draws the face from the sketches, the part of the picture that is not drawn, and the warped references."""

    def __init__(self, s: RendererSettings) -> None:
        super().__init__()
        self.down = _down(3 + 3 * s.window, s)
        self.coarse = Spade(s.wide, s.wide, s.hidden)
        self.fine = nn.ModuleList([Spade(s.wide // 4, s.narrow, s.hidden), Spade(s.wide // 4, 3, s.hidden)])
        self.last = nn.Conv2d(s.wide // 4, 3, 7, padding=3)

    def forward(self, masked: Tensor, wanted: Tensor, full: Tensor, half: Tensor, picture: Tensor) -> Tensor:
        """Draws the face, (B, 3, H, W) in [0, 1].

        Args:
            masked: (B, 3, H, W), the picture without the part to draw.
            wanted: (B, 3 T, H, W), the sketches.
            full, half, picture: the outputs of `FlowEstimator`.
        """
        x = self.down[1](self.down[0](torch.cat([masked, wanted], dim=1)))
        x = F.pixel_shuffle(self.coarse(x, half), 2)
        for block, seen in zip(self.fine, (full, picture), strict=True):
            x = block(x, seen)
        return torch.sigmoid(self.last(F.leaky_relu(x)))


class RendererNet(nn.Module):
    """Flow estimator and generator, and the critic of their adversarial loss."""

    def __init__(self, settings: RendererSettings) -> None:
        super().__init__()
        self.flow, self.generator = FlowEstimator(settings), Generator(settings)
        self.critic = losses.PatchCritic(settings.critic)

    def forward(self, masked: Tensor, wanted: Tensor, pictures: Tensor, sketches: Tensor) -> tuple[Tensor, Tensor]:
        """The drawn face and the mean of the warped references, (B, 3, H, W) in [0, 1] each.

        Arguments as in `FlowEstimator.forward` and `Generator.forward`.
        """
        full, half, picture = self.flow(pictures, sketches, wanted)
        return self.generator(masked, wanted, full, half, picture), picture
