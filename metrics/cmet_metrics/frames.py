"""Frame rules: which frame of a clip is compared with which frame of its ground truth; and the base of such metrics."""

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
        rule: `exact`: equal lengths, frame k with frame k. `min`: frame k with frame k up to the shorter length.
            `linspace`: both are sampled evenly to the shorter length, floor(k * n / min), as EAT's evaluation does.

    Returns:
        two (K,) int arrays.

    Raises:
        ClipError: length-mismatch under `exact`.
    """
    if rule not in get_args(FrameRule):
        raise ValueError(f"frame rule {rule!r} is unknown; known: {', '.join(get_args(FrameRule))}")
    n = min(n_pred, n_target)
    if rule == "exact" and n_pred != n_target:
        raise ClipError(Reason.LENGTH_MISMATCH, f"{n_pred} frames against {n_target}; frames:exact needs equal lengths")
    if rule == "linspace":
        # Through float steps, as the reference does: k * (N / n) can floor one lower than k * N // n.
        return tuple(np.linspace(0, m, n, endpoint=False).astype(np.int64) for m in (n_pred, n_target))  # type: ignore[return-value]
    return np.arange(n), np.arange(n)


@dataclass(frozen=True, kw_only=True)
class FrameByFrame(Metric):
    """A metric of each frame of RGB 0-255 against its partner of the same size, under a named frame rule."""

    frames: FrameRule = "exact"

    def settings(self) -> Settings:
        return {"colour": "rgb", "range": 255, "frames": self.frames}

    def paired(self, pred: Sample, target: Sample, at_least: int = 1) -> tuple[np.ndarray, np.ndarray]:
        """The frames to compare, (K, H, W, 3) each. Raises ClipError length-mismatch or size-mismatch."""
        check_same_size(pred, target, at_least)
        i, j = pair_frames(len(pred.frames), len(target.frames), self.frames)
        return pred.frames[i], target.frames[j]
