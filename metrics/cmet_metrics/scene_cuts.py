"""Divides a clip into scenes as PySceneDetect's `ContentDetector` does, which pipelines of lip-sync metrics call.

Sources: PySceneDetect 0.5.1 (the requirement of joonson/syncnet_python at 6efbb1c) and 0.6.1 (the requirement of
bytedance/LatentSync at a229c39), detectors/content_detector.py, scene_manager.py and video_manager.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import cv2
import numpy as np

from cmet_metrics.pictures import check_uint8

Scenes = Literal["one", "pyscenedetect-0.5.1", "pyscenedetect-0.6.1"]

_MIN_LENGTH = 15  # frames from one cut to the next
_SKIPS = ((3200, 12), (2100, 8), (1700, 6), (1200, 5), (900, 4), (600, 3), (400, 2))  # 0.5.1: (width in px, step)
_MIN_WIDTH = 256  # px; 0.6.1 divides the width by a whole number and keeps at least this width


@dataclass(frozen=True)
class _Rule:
    threshold: float  # a cut has at least this mean difference of hue, saturation and value
    first: int  # frames before the first cut
    last_left_out: bool  # whether the scene after the last cut ends one frame before the end of the clip


_RULES: dict[Scenes, _Rule] = {
    "pyscenedetect-0.5.1": _Rule(30.0, 1, False),
    "pyscenedetect-0.6.1": _Rule(27.0, _MIN_LENGTH, True),
}


def find_scenes(frames: np.ndarray, rule: Scenes) -> list[tuple[int, int]]:
    """The scenes of a clip, as (first frame, frame after the last one).

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        rule: `one`: the whole clip is one scene. Otherwise the version of PySceneDetect.

    Raises TypeError or ValueError for an array of another form.
    """
    check_uint8(frames, "frames")
    if rule == "one":
        return [(0, len(frames))]
    cuts: list[int] = []
    last = 0
    for t, change in enumerate(_changes(frames, rule), 1):
        if change >= _RULES[rule].threshold and t - last >= (_MIN_LENGTH if cuts else _RULES[rule].first):
            cuts.append(t)
            last = t
    end = len(frames) - (1 if cuts and _RULES[rule].last_left_out else 0)
    return list(zip([0, *cuts], [*cuts, end], strict=True))


def _changes(frames: np.ndarray, rule: Scenes) -> list[float]:
    """The difference of each frame from the one before, (T - 1,): mean over pixels and over hue, saturation, value."""
    hsv = [cv2.cvtColor(_shrunk(frame, rule), cv2.COLOR_RGB2HSV).astype(np.int16) for frame in frames]
    return [float(np.abs(b - a).mean(axis=(0, 1)).sum()) / 3 for a, b in pairwise(hsv)]


def _shrunk(frame: np.ndarray, rule: Scenes) -> np.ndarray:
    height, width = frame.shape[:2]
    if rule == "pyscenedetect-0.5.1":
        step = next((step for least, step in _SKIPS if width >= least), 1)
        return np.ascontiguousarray(frame[::step, ::step])
    factor = max(1, width // _MIN_WIDTH)
    return frame if factor == 1 else cv2.resize(frame, (round(width / factor), round(height / factor)))
