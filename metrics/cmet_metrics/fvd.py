"""FVD: the Frechet distance between I3D logits of generated and real videos, per pair as C-MET computes it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from talking_face.pretrained import i3d
from talking_face.pretrained.store import weight_tag

FRAMES, SIDE = 15, 64


def shown_clip(frames_rgb: np.ndarray) -> np.ndarray:
    """The 15 frames of a clip that are looked at, evenly from the first to the last; a shorter clip whole, its last
    frame held.

    Args:
        frames_rgb: (T, H, W, 3) uint8 RGB.

    Returns:
        (15, 64, 64, 3) uint8 RGB, stretched by OpenCV's bilinear resize.
    """
    n = len(frames_rgb)
    at = np.linspace(0, n - 1, FRAMES).astype(int) if n >= FRAMES else np.minimum(np.arange(FRAMES), n - 1)
    return np.stack([cv2.resize(frames_rgb[k], (SIDE, SIDE)) for k in at])


def logits(sample: Sample) -> np.ndarray:
    """(400,) float32 of a sample's `shown_clip`, found once a sample. Raises MissingWeights."""
    if sample.frames.dtype != np.uint8:
        raise ValueError(f"{sample.name}: FVD needs uint8 frames, got {sample.frames.dtype}")
    return sample.cached("fvd-i3d", lambda s: i3d.i3d_logits(shown_clip(s.frames)))


class PairFvd(Metric):
    """FVD of one video against its ground truth, as C-MET's evaluation computes it; the lengths may differ.

    It hands google-research's code a batch of 16 copies of one clip. Covariances of copies are 0, so the Frechet
    distance is the squared distance of two vectors of logits, which is what is computed here, from one copy. No
    distribution is compared, and the value can be held against nothing but itself. Stats: frames, target_frames.
    """

    name = "fvd"
    variant = "cmet-pair"
    higher_is_better = False
    unit = ""
    summary = "squared distance of I3D logits of each video to its ground truth's, mean over videos"

    def settings(self) -> Mapping[str, Any]:
        return {
            "net": f"i3d-kinetics400@{weight_tag(i3d.NAME)}",
            "colour": "rgb",
            "resize": "opencv-bilinear-64,tf1-bilinear-224",
            "codec": "none",
            "frames": f"linspace-{FRAMES}",
            "batch": "16-copies",
            "agg": "video-mean",
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        apart = logits(target).astype(np.float64) - logits(pred)
        stats = {"frames": float(len(pred.frames)), "target_frames": float(len(target.frames))}
        return Score(float(apart @ apart), FRAMES, None, "", stats)
