"""Computes LPIPS, a learned distance between frames. The file is not named `lpips`, because a package has this name."""

from __future__ import annotations

import math
from dataclasses import dataclass

from cmet_metrics.base import Sample, Score, Settings, Variant
from cmet_metrics.frames import FrameByFrame
from talking_face.pretrained import lpips_alex
from talking_face.pretrained.store import weight_tag


@dataclass(frozen=True, kw_only=True)
class Lpips(FrameByFrame):
    """LPIPS 0.1 on AlexNet: the mean over frames, then the mean over clips. Stats: lpips (sum), frames."""

    name = "lpips"
    title = "LPIPS"
    pitfalls = (
        "The value depends on the size of the frames: the same blur has less effect on larger frames. LPIPS on "
        "VGG gives other numbers."
    )
    higher_is_better = False
    order = 150
    limits = (0.0, math.inf)
    profile = "paper"
    weights = (lpips_alex.BACKBONE, lpips_alex.HEADS)
    source = "Zhang et al. 2018; github.com/richzhang/PerceptualSimilarity, version 0.1"
    bibtex = """@inproceedings{zhang2018lpips,
  author = {Zhang, Richard and Isola, Phillip and Efros, Alexei A. and Shechtman, Eli and Wang, Oliver},
  title = {The unreasonable effectiveness of deep features as a perceptual metric},
  booktitle = {CVPR}, year = {2018}}"""
    variants = {"lpips:alex": Variant("learned perceptual distance of each frame, LPIPS 0.1 on AlexNet")}

    def settings(self) -> Settings:
        heads = f"lpips-0.1@{weight_tag(lpips_alex.HEADS, self.files)}"
        net = {"net": f"alexnet@{weight_tag(lpips_alex.BACKBONE, self.files)}", "heads": heads}
        return {**net, **super().settings(), "resize": "none", "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        a, b = self.paired(pred, target, lpips_alex.SMALLEST)
        values = lpips_alex.lpips_alex(a, b, self.files)
        total = math.fsum(float(value) for value in values)
        return Score(total / len(values), len(values), None, "", {"lpips": total, "frames": float(len(values))})


METRICS = (Lpips,)
