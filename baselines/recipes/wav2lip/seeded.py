"""Writes seeded weights of Wav2Lip and of its face detector, in the form of the published files."""

from __future__ import annotations

from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Write every weight file of the recipe into the folder `weights`. `checkout` is on the import path."""
    compat.numpy_names()
    import torch
    from face_detection.detection.sfd.net_s3fd import s3fd
    from models import Wav2Lip

    torch.manual_seed(seed)
    for name in ("wav2lip.pth", "wav2lip_gan.pth"):
        state = {f"module.{key}": value for key, value in Wav2Lip().state_dict().items()}
        torch.save({"state_dict": state}, weights / name)
    detector = s3fd()
    # Random weights find no face or thousands, and the script stops or takes minutes. These find one face at each place
    # of the map with a stride of 64 px, 256 px wide, and none elsewhere, so that every step of the script runs.
    for name, layer in detector.named_modules():
        if "_mbox_" in name:
            torch.nn.init.zeros_(layer.weight)
            torch.nn.init.zeros_(layer.bias)
        if name.endswith("_mbox_conf"):
            layer.bias.data[-1] = 5.0 if name.startswith("conv6_2") else -5.0
    torch.save(detector.state_dict(), weights / "s3fd-619a316812.pth")
