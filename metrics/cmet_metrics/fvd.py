"""Computes FVD: the Frechet distance between I3D logits of a generated and a real video, as in C-MET's evaluation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import cv2
import numpy as np

from cmet_metrics.base import Metric, Sample, Score, Settings, Variant
from cmet_metrics.pictures import check_uint8
from talking_face.pretrained import i3d
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_tag

FRAMES, SIDE = 15, 64


def shown_clip(frames_rgb: np.ndarray) -> np.ndarray:
    """The 15 frames of a clip that the network receives, evenly spaced from the first to the last frame.

    If the clip has fewer than 15 frames, all its frames are used and the last frame is repeated.

    Args:
        frames_rgb: (T, H, W, 3) uint8 RGB.

    Returns:
        (15, 64, 64, 3) uint8 RGB, resized by OpenCV's bilinear resize without keeping the aspect ratio.

    Raises TypeError or ValueError for an array of another form, or without a frame.
    """
    check_uint8(frames_rgb, "frames_rgb")
    if not len(frames_rgb):
        raise ValueError("frames_rgb has no frame")
    n = len(frames_rgb)
    at = np.linspace(0, n - 1, FRAMES).astype(int) if n >= FRAMES else np.minimum(np.arange(FRAMES), n - 1)
    return np.stack([cv2.resize(frames_rgb[k], (SIDE, SIDE)) for k in at])


def logits(sample: Sample, files: ModelFiles) -> np.ndarray:
    """(400,) float32 logits of a sample's `shown_clip`, computed once per sample. Raises MissingWeights."""
    return sample.cached("fvd-i3d", lambda s: i3d.i3d_logits(shown_clip(s.pictures), files))


@dataclass(frozen=True, kw_only=True)
class PairFvd(Metric):
    """FVD between one video and its ground truth, as C-MET's evaluation computes it. The lengths can differ.

    C-MET's evaluation calls google-research's code with a batch of 16 copies of one clip. The covariance of equal
    copies is 0, so the Frechet distance is the squared distance between two vectors of logits. This class computes this
    distance from one copy. The value does not compare distributions, so compare it only with values that have the same
    signature. Stats: frames, target_frames.
    """

    name = "fvd"
    title = "FVD"
    pitfalls = (
        "This is not the usual FVD of a data set. It is a squared distance between two vectors, and compression "
        "alone changes it. C-MET's script was not available, so two details are an interpretation."
    )
    higher_is_better = False
    order = 120
    limits = (0.0, math.inf)
    profile = "paper"
    weights = (i3d.NAME,)
    ms_per_frame = 50.0  # 2.5 s for a pair of any length
    source = "Unterthiner et al. 2018, per pair as in C-MET's evaluation"
    bibtex = """@article{unterthiner2018fvd,
  author = {Unterthiner, Thomas and van Steenkiste, Sjoerd and Kurach, Karol and Marinier, Raphael and
            Michalski, Marcin and Gelly, Sylvain},
  title = {Towards accurate generative models of video: A new metric \\& challenges},
  journal = {arXiv:1812.01717}, year = {2018}}"""
    variants = {
        "fvd:cmet-pair": Variant("squared distance of I3D logits of each video to its ground truth's, mean over videos")
    }

    def settings(self) -> Settings:
        return {
            "net": f"i3d-kinetics400@{weight_tag(i3d.NAME, self.files)}",
            "colour": "rgb",
            "resize": "opencv-bilinear-64,tf1-bilinear-224",
            "codec": "none",
            "frames": f"linspace-{FRAMES}",
            "batch": "16-copies",
            "agg": "video-mean",
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        difference = logits(target, self.files).astype(np.float64) - logits(pred, self.files)
        stats = {"frames": float(len(pred.frames)), "target_frames": float(len(target.frames))}
        return Score(float(difference @ difference), FRAMES, None, "", stats)


METRICS = (PairFvd,)
