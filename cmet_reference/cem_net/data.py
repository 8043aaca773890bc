"""What CEM-Net's stages are fed: clips in the head's frame with their sound, and draws from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cmet_reference.cem_net import audio as sound
from cmet_reference.clips import ClipArrays
from cmet_reference.geometry import fit_pose, template_of, to_head

TEMPLATE_FRAMES = 512  # of all clips, evenly spread: a mean face needs no more


@dataclass(frozen=True)
class Face:
    """One clip as the networks see it. T frames."""

    clip: ClipArrays
    head: np.ndarray  # (T, 478, 3) float32, head's frame
    mel: np.ndarray  # (80, C) float32
    cepstra: np.ndarray  # (R, 12) float32

    def __len__(self) -> int:
        return len(self.head)


def mean_face(clips: Sequence[ClipArrays]) -> np.ndarray:
    """The template of a training split, (478, 3) float32; the same for every stage that is given the same clips."""
    every = np.concatenate([c.landmarks for c in clips])
    return template_of(every[np.linspace(0, len(every) - 1, TEMPLATE_FRAMES).round().astype(int)])


def prepare(clips: Sequence[ClipArrays], template: np.ndarray) -> list[Face]:
    """Clips in the frame of a template; 4 ms a clip of 2 s."""
    return [
        Face(
            c,
            to_head(c.landmarks, fit_pose(c.landmarks, template)),
            sound.mel(c.audio),
            sound.cepstra(c.audio),
        )
        for c in clips
    ]


def outside(length: int, start: int, width: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """`n` different frames of a clip that are not in [start, start + width); all of them again where they are few."""
    left = np.concatenate([np.arange(start), np.arange(start + width, length)])
    return rng.choice(left if len(left) else np.arange(length), n, replace=len(left) < n)
