"""Writes random weights of IP-LAP, in the form and with the shapes that its script loads."""

from __future__ import annotations

from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Writes the checkpoints of the landmark generator and of the renderer. The checkout is on the import path."""
    compat.torchvision_operators()
    compat.stub("lws")
    import torch
    import torchvision

    vgg19 = torchvision.models.vgg19
    torchvision.models.vgg19 = lambda pretrained: vgg19(weights=None)
    from models import Landmark_generator, Renderer

    torch.manual_seed(seed)
    generator = Landmark_generator(T=5, d_model=512, nlayers=4, nhead=4, dim_feedforward=1024, dropout=0.1)
    torch.save({"state_dict": generator.state_dict()}, weights / "landmarkgenerator_checkpoint.pth")
    torch.save({"state_dict": Renderer().state_dict()}, weights / "renderer_checkpoint.pth")
