"""Writes random weights of PD-FGC, in the form and with the shapes that its `make_model` loads."""

from __future__ import annotations

from pathlib import Path

import compat


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Writes the four plain state dicts into `weights`. The checkout is on the import path."""
    compat.torchvision_operators()
    with compat.arguments("inference.py", "--cfg_file", str(checkout / "configs" / "inference.yaml"), "--all"):
        from lib.config.config import cfg
    import torch
    from lib.models.networks import define_networks

    torch.manual_seed(seed)
    for name in ("appearance", "motion", "audio", "generator"):
        part = cfg.model["net_" + name]
        state = define_networks(cfg, part.model_name, part.model_type).state_dict()
        # The initial weights of the last layers hardly move the picture: all its values are between 117 and 129.
        for key in state:
            if key.endswith("_embed.1.weight"):
                state[key] *= 100
        torch.save(state, weights / f"{name}_model.pth")
