"""Writes ETK's weights with the real shapes and random values, for tests of the recipe without the released weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace


def write(checkout: Path, weights: Path, seed: int) -> None:
    """Write `generator.pt`, with the prefix `module.` that the released file has."""
    sys.path.insert(0, str(checkout))
    import torch
    from models import GENERATOR

    torch.manual_seed(seed)
    settings = json.loads((checkout / "model" / "args.txt").read_text())
    model = GENERATOR(SimpleNamespace(**settings, device=torch.device("cpu")), train=False, debug=True)
    torch.save({f"module.{key}": value for key, value in model.state_dict().items()}, weights / "generator.pt")
