"""Seeded replacements for official weights, in the same form."""

from __future__ import annotations

from typing import Any

import numpy as np


def seeded(network: Any, seed: int = 0) -> dict[str, Any]:
    """A state dict that depends only on the seed and the names, scaled so that features stay finite."""
    import torch

    rng, out = np.random.default_rng(seed), {}
    for key, value in sorted(network.state_dict().items()):
        if key.endswith("num_batches_tracked"):
            out[key] = value
            continue
        x = rng.standard_normal(tuple(value.shape), dtype=np.float32)
        if key.endswith("running_var"):
            x = 1 + 0.1 * x**2
        elif x.ndim > 1:
            x *= (2 / np.prod(x.shape[1:])) ** 0.5
        else:
            x = 0.1 * x + (1.0 if key.endswith("weight") else 0.0)
        out[key] = torch.from_numpy(x.astype(np.float32))
    return out
