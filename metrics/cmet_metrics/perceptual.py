"""LPIPS of frames: a learned perceptual distance. Not called `lpips`, which is the name of the package it follows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from cmet_metrics.base import Sample, Score
from cmet_metrics.frames import FrameByFrame
from talking_face.pretrained import lpips_alex
from talking_face.pretrained.store import weight_tag


class Lpips(FrameByFrame):
    """Mean over frames of the frame's LPIPS 0.1 on AlexNet, then mean over clips. Stats: lpips (sum), frames."""

    name = "lpips"
    variant = "alex"
    higher_is_better = False
    unit = ""
    summary = "learned perceptual distance of each frame, LPIPS 0.1 on AlexNet"

    def settings(self) -> Mapping[str, Any]:
        heads = f"lpips-0.1@{weight_tag(lpips_alex.HEADS)}"
        net = {"net": f"alexnet@{weight_tag(lpips_alex.BACKBONE)}", "heads": heads}
        return {**net, **super().settings(), "resize": "none", "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        values = lpips_alex.lpips_alex(*self.paired(pred, target, lpips_alex.SMALLEST))
        total = math.fsum(float(value) for value in values)
        return Score(total / len(values), len(values), None, "", {"lpips": total, "frames": float(len(values))})
