"""Methods that need no network: the ceiling and two floors that every board shows."""

from __future__ import annotations

import numpy as np

from baselines.method import Case


class GroundTruth:
    """The real clip. It is written and read back through the same file format as any method's output, so its scores
    are the best a method can reach through that format."""

    name = "ground-truth"
    revision = "1"
    sees = frozenset({"ground-truth"})

    def generate(self, case: Case) -> np.ndarray:
        return case.ground_truth_frames


class StaticReference:
    """The first reference frame, held still for the length of the driving audio: what a metric gives for no motion."""

    name = "static-reference"
    revision = "1"
    sees = frozenset({"reference-frames"})

    def generate(self, case: Case) -> np.ndarray:
        frame = case.reference_frames[0]
        return np.broadcast_to(frame, (case.n_frames, *frame.shape))


class SourceVideo:
    """The source clip, unedited: what a metric gives for the right person who says and feels something else."""

    name = "source-video"
    revision = "1"
    sees = frozenset({"source-video"})

    def generate(self, case: Case) -> np.ndarray:
        return fit_length(case.source_frames, case)


def fit_length(frames: np.ndarray, case: Case, rule: str = "cut-or-hold-last") -> np.ndarray:
    """The video in the case's length, with a note where that changed it; `as-is` leaves it. (T, H, W, 3)."""
    if rule == "as-is" or len(frames) == case.n_frames:
        return frames
    if len(frames) > case.n_frames:
        case.note(f"cut-or-hold-last: cut from {len(frames)} to {case.n_frames} frames")
    else:
        case.note(f"cut-or-hold-last: last of {len(frames)} frames held to {case.n_frames}")
    return cut_or_hold_last(frames, case.n_frames)


def cut_or_hold_last(frames: np.ndarray, n: int) -> np.ndarray:
    """The first `n` frames; a shorter video is held on its last frame. (T, H, W, 3) -> (n, H, W, 3), T >= 1, n >= 1."""
    indices = np.minimum(np.arange(n), len(frames) - 1)
    return frames[: len(indices)] if len(frames) >= n else frames[indices]
