"""Seeded stand-ins of the same form as 2D-FAN's and S3FD's published files."""

from __future__ import annotations

from pathlib import Path

import torch

from talking_face.pretrained.fan import fan_network, s3fd_network


def write_stand_ins(folder: Path) -> None:
    """Both files, under the names the store looks for. S3FD is made to find faces of about 128 px only."""
    torch.manual_seed(20)
    fan, s3fd = fan_network(), s3fd_network()
    for net in (fan, s3fd):
        for module in net.modules():
            if isinstance(module, torch.nn.Conv2d):  # keep the signal's size through 20 layers
                torch.nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for name in ("conv3_3_norm", "conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2", "conv7_2"):
        getattr(s3fd, f"{name}_mbox_loc").weight.data *= 0.002
        if name != "fc7":
            getattr(s3fd, f"{name}_mbox_conf").bias.data[-1] -= 1000.0
    torch.save(fan.state_dict(), folder / "2DFAN4-11f355bf06.pth.tar")
    torch.save(s3fd.state_dict(), folder / "s3fd-619a316812.pth")
