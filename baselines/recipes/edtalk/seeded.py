"""Writes random weights of EDTalk, in the form and with the shapes that its script loads."""

from __future__ import annotations

from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Writes EDTalk.pt and Audio2Lip.pt into `weights`. `checkout` is on the import path."""
    compat.torchvision_operators()
    import torch
    from networks.audio_encoder import Audio2Lip
    from networks.generator import Generator

    torch.manual_seed(seed)
    torch.save({"gen": Generator(256, 512, 20, 6, 10, 1).state_dict()}, weights / "EDTalk.pt")
    torch.save({"audio2lip": Audio2Lip().state_dict()}, weights / "Audio2Lip.pt")
