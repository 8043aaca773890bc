"""Losses of the flow renderer: perceptual distance with VGG19, adversarial loss of a patch critic, feature matching.

Sources: the paper of CEM-Net (arXiv 2508.12368) gives only the names of these three losses and their weights 4, 0.25
and 1. The formulas and the other weights are those of IP-LAP (Weizhi-Zhong/IP_LAP: models/video_renderer.py,
train_video_renderer.py).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# The layers of VGG19 in five parts, which end in relu_1_1, 2_1, 3_1, 4_1 and 5_1. A number is a convolution with this
# number of channels; "M" is max pooling.
_VGG19 = ((64,), (64, "M", 128), (128, "M", 256), (256, 256, 256, "M", 512), (512, 512, 512, "M", 512))
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet, RGB in [0, 1]
STYLE = 250.0  # weight of the Gram matrices relative to the features, as in IP-LAP


class Vgg19(nn.Module):
    """Computes the features of VGG19 up to relu_5_1; it is not trained. Images are RGB in [0, 1].

    Images are normalised as in the training of VGG19. IP-LAP instead applies the normalisation for images in [-1, 1] to
    images in [0, 1].
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.parts = nn.ModuleList()
        before, index = 3, 0
        self.indices: list[int] = []  # positions of the convolutions in torchvision's `features`
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
        """Maps images (B, 3, H, W) to five feature maps with 64, 128, 256, 512 and 512 channels.

        Each feature map has half the height and width of the one before.
        """
        x, out = (images - self.mean) / self.std, []
        for part in self.parts:
            x = part(x)
            out.append(x)
        return out


def perceptual(network: Vgg19, drawn: Tensor, real: Tensor, style: float = STYLE) -> Tensor:
    """Perceptual loss of images, (B, 3, H, W) in [0, 1].

    It is the mean absolute difference of the features, summed over five layers and over images at full and at half
    size. At full size, `style` times the mean absolute difference of the features' Gram matrices is added.
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
    """Gram matrices of features: (B, C, H, W) to (B, C, C). Each matrix is divided by the number of values, C H W."""
    flat = features.flatten(2)
    return flat @ flat.transpose(1, 2) / (flat.shape[1] * flat.shape[2])


class PatchCritic(nn.Module):
    """The critic of pix2pixHD: `scales` networks with `layers` + 2 convolutions each.

    Each network reads the image at half the size that the network before reads. The networks use instance norm and
    leaky ReLU with slope 0.2. The paper gives no sizes; the defaults are the sizes in IP-LAP.
    """

    def __init__(self, width: int = 64, layers: int = 3, scales: int = 2) -> None:
        super().__init__()
        self.layers = layers
        self.networks = nn.ModuleList(nn.ModuleList(_critic(width, layers)) for _ in range(scales))

    def forward(self, images: Tensor) -> list[list[Tensor]]:
        """Maps images (B, 3, H, W) to the outputs of every layer, for each scale. The last output is the score.

        The score is a map (B, 1, h, w), with one value per patch.
        """
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
        # The convolution has no bias, because the norm after it subtracts the mean.
        block = (nn.Conv2d(width, wider, 4, stride, 2, bias=False), nn.InstanceNorm2d(wider), nn.LeakyReLU(0.2))
        out.append(nn.Sequential(*block))
        width = wider
    return [*out, nn.Conv2d(width, 1, 4, 1, 2)]


def least_squares(maps: Sequence[Sequence[Tensor]], real: bool) -> Tensor:
    """The mean squared difference between the critic's scores and 1 (if `real`) or 0, summed over scales."""
    wanted = 1.0 if real else 0.0
    return torch.stack([(scale[-1] - wanted).square().mean() for scale in maps]).sum()


def feature_matching(made: Sequence[Sequence[Tensor]], real: Sequence[Sequence[Tensor]]) -> Tensor:
    """The mean absolute difference of the critic's outputs for drawn and real images, as in pix2pixHD.

    The scores are left out. For each scale, the sum over the other outputs is multiplied by 4 / (layers + 1). The loss
    is the mean over scales.
    """
    total = [
        torch.stack([F.l1_loss(x, y.detach()) for x, y in zip(a[:-1], b[:-1], strict=True)]).sum() * 4 / (len(a) - 1)
        for a, b in zip(made, real, strict=True)
    ]
    return torch.stack(total).mean()
