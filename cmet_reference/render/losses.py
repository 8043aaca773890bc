"""Losses of the flow renderer: perceptual distance on VGG19, least-squares patch critic, feature matching.

Sources: CEM-Net (arXiv 2508.12368) gives only the three names and their weights 4, 0.25, 1. The forms and the other
weights are IP-LAP's (Weizhi-Zhong/IP_LAP: models/video_renderer.py, train_video_renderer.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# Runs of convolutions that end in relu_1_1, 2_1, 3_1, 4_1 and 5_1; "M" is max pooling.
_VGG19 = ((64,), (64, "M", 128), (128, "M", 256), (256, 256, 256, "M", 512), (512, 512, 512, "M", 512))
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB 0 to 1
STYLE = 250.0  # weight of the Gram matrices relative to the features: IP-LAP's


class Vgg19(nn.Module):
    """The features of VGG19 up to relu_5_1, frozen. Images are RGB in [0, 1].

    IP-LAP applies a normalisation for [-1, 1] to images in [0, 1]; here images are normalised as in the training of the
    network.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        before, index = 3, 0
        self.indices: list[int] = []  # of the convolutions in torchvision's `features`
        for run in _VGG19:
            layers: list[nn.Module] = []
            for wanted in run:
                if isinstance(wanted, int):
                    layers += [nn.Conv2d(before, wanted, 3, padding=1), nn.ReLU()]
                    self.indices.append(index)
                    before, index = wanted, index + 2
                else:
                    layers.append(nn.MaxPool2d(2))
                    index += 1
            self.parts.append(nn.Sequential(*layers))
        self.register_buffer("mean", torch.tensor(_MEAN)[:, None, None], persistent=False)
        self.register_buffer("std", torch.tensor(_STD)[:, None, None], persistent=False)
        self.requires_grad_(False)

    def fill(self, state: dict[str, Tensor]) -> Vgg19:
        """Copy the weights of torchvision's vgg19; its other layers are not used."""
        convolutions = [layer for layer in self.parts.modules() if isinstance(layer, nn.Conv2d)]
        for index, layer in zip(self.indices, convolutions, strict=True):
            layer.weight.data.copy_(state[f"features.{index}.weight"])
            layer.bias.data.copy_(state[f"features.{index}.bias"])  # type: ignore[union-attr]
        return self

    def forward(self, images: Tensor) -> list[Tensor]:
        """(B, 3, H, W) to five maps of 64, 128, 256, 512 and 512 channels, each half as high as the one before."""
        x, out = (images - self.mean) / self.std, []
        for part in self.parts:
            x = part(x)
            out.append(x)
        return out


def perceptual(network: Vgg19, drawn: Tensor, real: Tensor, style: float = STYLE) -> Tensor:
    """Perceptual loss of images, (B, 3, H, W) in [0, 1].

    The mean absolute difference of features, summed over five layers at full and half size, plus `style` times that of
    their Gram matrices at full size.
    """
    loss = drawn.new_zeros(())
    for scale in range(2):
        if scale:
            drawn, real = (F.interpolate(x, scale_factor=0.5, mode="bilinear") for x in (drawn, real))
        with torch.no_grad():
            wanted = network(real)
        for a, b in zip(network(drawn), wanted, strict=True):
            loss = loss + F.l1_loss(a, b)
            if style and not scale:
                loss = loss + style * F.l1_loss(gram(a), gram(b))
    return loss


def gram(features: Tensor) -> Tensor:
    """Gram matrices of features: (B, C, H, W) to (B, C, C), divided by the number of values."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


class PatchCritic(nn.Module):
    """pix2pixHD's critic: `scales` networks of `layers` + 2 convolutions, each at half the size of the one before.

    Instance norm, leaky ReLU 0.2. The paper gives no sizes; IP-LAP's are 64, 3 and 2.
    """

    def __init__(self, width: int = 64, layers: int = 3, scales: int = 2) -> None:
        super().__init__()
        self.layers = layers
        self.networks = nn.ModuleList(nn.ModuleList(_critic(width, layers)) for _ in range(scales))

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """(B, 3, H, W) to the maps of every layer for each scale; the last one is the score (B, 1, h, w)."""
        out = []
        for number, network in enumerate(self.networks):
            if number:
                images = F.avg_pool2d(images, 3, 2, 1, count_include_pad=False)
            x, maps = images, []
            for layer in network:  # type: ignore[attr-defined]
                x = layer(x)
                maps.append(x)
            out.append(maps)
        return out


def _critic(width: int, layers: int) -> list[nn.Module]:
    out: list[nn.Module] = [nn.Sequential(nn.Conv2d(3, width, 4, 2, 2), nn.LeakyReLU(0.2))]
    for number in range(1, layers + 1):
        wider = min(8 * 64, 2 * width)
        stride = 2 if number < layers else 1
        # No bias before a norm that subtracts the mean.
        block = (nn.Conv2d(width, wider, 4, stride, 2, bias=False), nn.InstanceNorm2d(wider), nn.LeakyReLU(0.2))
        out.append(nn.Sequential(*block))
        width = wider
    return [*out, nn.Conv2d(width, 1, 4, 1, 2)]


def least_squares(maps: Sequence[Sequence[Tensor]], real: bool) -> Tensor:
    """The mean squared distance of the critic's scores from 1 (`real`) or 0, summed over scales."""
    wanted = 1.0 if real else 0.0
    return torch.stack([(scale[-1] - wanted).square().mean() for scale in maps]).sum()


def feature_matching(made: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """The mean absolute difference of the critic's maps except the scores, as in pix2pixHD.

    It is the mean over scales of 4 / (layers + 1) times the sum over maps.
    """
    total = [
        torch.stack([F.l1_loss(x, y.detach()) for x, y in zip(a[:-1], b[:-1], strict=True)]).sum() * 4 / (len(a) - 1)
        for a, b in zip(made, real, strict=True)
    ]
    return torch.stack(total).mean()
