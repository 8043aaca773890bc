"""Defines frame rules, which pair the frames of a clip and its ground truth, and a base class of frame metrics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from cmet_metrics.base import Metric, Sample, Settings, check_same_size
from talking_face.reasons import ClipError, Reason

FrameRule = Literal["exact", "linspace", "min"]


def pair_frames(n_pred: int, n_target: int, rule: FrameRule) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the frames to compare.

    Args:
        n_pred, n_target: lengths of the two clips, in frames.
        rule: `exact`: the lengths must be equal, and frame k is compared with frame k. `min`: frame k is compared with
            frame k, up to the shorter length. `linspace`: both clips are sampled evenly to the shorter length, as in
            EAT's evaluation; index k of a clip with n frames is floor(k * n / min).

    Returns:
        two (K,) int arrays.

    Raises:
        ClipError: length-mismatch if the rule is `exact` and the lengths differ.
    """
    if rule not in get_args(FrameRule):
        raise ValueError(f"frame rule {rule!r} is unknown; known: {', '.join(get_args(FrameRule))}")
    n = min(n_pred, n_target)
    if rule == "exact" and n_pred != n_target:
        raise ClipError(Reason.LENGTH_MISMATCH, f"{n_pred} frames against {n_target}; frames:exact needs equal lengths")
    if rule == "linspace":
        # Use float steps, as EAT's evaluation does: the floor of k * (N / n) can be one lower than k * N // n.
        return tuple(np.linspace(0, m, n, endpoint=False).astype(np.int64) for m in (n_pred, n_target))  # type: ignore[return-value]
    return np.arange(n), np.arange(n)


@dataclass(frozen=True, kw_only=True)
class FrameByFrame(Metric):
    """The base class of metrics that compare RGB frames (0-255, equal size). A frame rule pairs the frames."""

    frames: FrameRule = "exact"

    def settings(self) -> Settings:
        return {"colour": "rgb", "range": 255, "frames": self.frames}

    def paired(self, pred: Sample, target: Sample, at_least: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The frames of both clips to compare, (K, H, W, 3) each.

        Raises ClipError with reason length-mismatch or size-mismatch.
        """
        check_same_size(pred, target, at_least)
        i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
        return pred.frames[i], target.frames[j]
