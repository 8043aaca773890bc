"""Seeded replacements for the variables of I3D, in the form of the package that distributes them."""

from __future__ import annotations

from typing import Any

import numpy as np


def variables(seed: int = 0) -> dict[str, Any]:
    """Seeded variables in the form of the package: names of TensorFlow, kernels (time, height, width, in, out)."""
    rng = np.random.default_rng(seed)

    def unit(before: int, after: int, side: int) -> tuple[dict[str, Any], dict[str, Any]]:
        kernel = rng.standard_normal((side, side, side, before, after), dtype=np.float32)
        bias, mean = (0.1 * rng.standard_normal((2, after), dtype=np.float32)).astype(np.float32)
        var = 1 + rng.random(after, dtype=np.float32)
        params = {"Conv_0": {"kernel": kernel * np.float32((2 / (before * side**3)) ** 0.5)}}
        return {**params, "BatchNorm_0": {"bias": bias}}, {"BatchNorm_0": {"mean": mean, "var": var}}

    params: dict[str, Any] = {}
    stats: dict[str, Any] = {}
    for name, before, after, side in (
        ("Conv3d_1a_7x7", 3, 64, 7),
        ("Conv3d_2b_1x1", 64, 64, 1),
        ("Conv3d_2c_3x3", 64, 192, 3),
    ):
        params[name], stats[name] = unit(before, after, side)
    before = 192
    for name, (a, b, c, d, e, f) in {
        "Mixed_3b": (64, 96, 128, 16, 32, 32),
        "Mixed_3c": (128, 128, 192, 32, 96, 64),
        "Mixed_4b": (192, 96, 208, 16, 48, 64),
        "Mixed_4c": (160, 112, 224, 24, 64, 64),
        "Mixed_4d": (128, 128, 256, 24, 64, 64),
        "Mixed_4e": (112, 144, 288, 32, 64, 64),
        "Mixed_4f": (256, 160, 320, 32, 128, 128),
        "Mixed_5b": (256, 160, 320, 32, 128, 128),
        "Mixed_5c": (384, 192, 384, 48, 128, 128),
    }.items():
        inside = {
            "Branch_0/Conv3d_0a_1x1": unit(before, a, 1),
            "Branch_1/Conv3d_0a_1x1": unit(before, b, 1),
            "Branch_1/Conv3d_0b_3x3": unit(b, c, 3),
            "Branch_2/Conv3d_0a_1x1": unit(before, d, 1),
            "Branch_2/Conv3d_0b_3x3": unit(d, e, 3),
            "Branch_3/Conv3d_0b_1x1": unit(before, f, 1),
        }
        params[name], stats[name] = ({branch: pair[k] for branch, pair in inside.items()} for k in (0, 1))
        before = a + c + e + f
    last = rng.standard_normal((1, 1, 1, before, 400), dtype=np.float32) / np.float32(before**0.5)
    params["Logits/Conv3d_0c_1x1"] = {"Conv_0": {"kernel": last, "bias": np.linspace(-1, 1, 400, dtype=np.float32)}}
    return {"params": params, "batch_stats": stats}
