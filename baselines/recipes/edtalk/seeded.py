"""Writes random weights of EDTalk, in the form and with the shapes that its script loads."""

from __future__ import annotations

import argparse
from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Writes EDTalk.pt and Audio2Lip.pt into `weights`. `checkout` is on the import path."""
    compat.torchvision_operators()
    import torch
    from networks.audio_encoder import Audio2Lip
    from networks.generator import Generator

    torch.manual_seed(seed)
    options = argparse.Namespace(size=256)  # EDTalk's trainers store theirs in each file
    generator = Generator(256, 512, 20, 6, 10, 1)
    torch.save({"gen": generator.state_dict(), "args": options}, weights / "EDTalk.pt")
    torch.save({"audio2lip": Audio2Lip().state_dict(), "args": options}, weights / "Audio2Lip.pt")
