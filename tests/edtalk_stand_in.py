"""A checkout in the form of EDTalk's repository, with small networks of the same names and call signatures."""

from __future__ import annotations

from pathlib import Path

import torch

from cmet_reference.cmet import edtalk

GENERATOR = """
import torch
from torch import nn
from .encoder import Encoder

class Bank(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.eye(8))
    def get_shared_out(self, weights, bank):
        return weights[:, :, None]
    def get_exp_latent(self, shared):
        return shared[:, 26:].sum(1)
    def forward(self, weights, bank):
        return weights.mean(1, keepdim=True).cuda()

class Generator(nn.Module):
    def __init__(self, size, style_dim, lip_dim, pose_dim, exp_dim, channel_multiplier):
        super().__init__()
        self.enc, self.fc = Encoder(), nn.Linear(16, 16)
        self.exp_fc, self.pose_fc = nn.Linear(16, exp_dim), nn.Linear(16, pose_dim)
        self.direction_lipnonlip, self.direction_exp = Bank(), Bank()
    def dec(self, style, features, expression):
        return features[0] * style.mean(1)[:, None, None, None] + expression[:, :, None, None]
"""
ENCODER = """
from torch import nn

class Encoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 4, 4)
    def forward(self, source, target, h_start=None):
        return self.conv(source).mean((2, 3)), None, [source], None
"""
LIPS = """
from torch import nn

class Audio2Lip(nn.Module):
    def __init__(self):
        super().__init__()
        self.mapping = nn.Linear(1, 20)
    def forward(self, x, batch_size, T):
        return self.mapping(x.mean((1, 2, 3))[:, None]).reshape(batch_size, T, -1)
"""


def write_code(folder: Path) -> None:
    """Writes the modules generator, encoder and audio_encoder to FOLDER/networks."""
    (folder / "networks").mkdir(parents=True)
    for name, text in (("generator", GENERATOR), ("encoder", ENCODER), ("audio_encoder", LIPS)):
        (folder / "networks" / f"{name}.py").write_text(text)


def write_checkout(folder: Path, seed: int = 0) -> Path:
    """Writes the code and seeded weights. Returns the folder."""
    write_code(folder)
    weights = folder / "pretrained_weights"
    weights.mkdir()
    torch.manual_seed(seed)
    generator = edtalk.import_from(folder / "networks", "generator").Generator(256, 512, 20, 6, 10, 1)
    torch.save({"gen": generator.state_dict()}, weights / "EDTalk.pt")
    lips = edtalk.import_from(folder / "networks", "audio_encoder").Audio2Lip()
    torch.save({"audio2lip": lips.state_dict()}, weights / "Audio2Lip.pt")
    return folder
