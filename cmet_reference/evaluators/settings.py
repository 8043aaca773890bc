"""The settings of the evaluators' training."""

from __future__ import annotations

from dataclasses import dataclass

from cmet_reference.evaluators.data import MAX_CLIPS


@dataclass(frozen=True)
class EvaluatorSettings:
    """All settings that the result depends on, except the data. They are stored in the file's header and the card."""

    seed: int = 0
    max_clips: int = MAX_CLIPS
    syncnet_steps: int = 300
    syncnet_clips: int = 8  # per step
    syncnet_frames: int = 40  # of a clip per step
    syncnet_rate: float = 2e-3  # highest learning rate
    emotion_copies: int = 3  # augmented copies of each clip, next to the clip itself
    # Shrinkage of the covariances towards a multiple of the identity, chosen by leaving one training speaker out.
    emotion_shrink_blendshapes: float = 0.1
    emotion_shrink_gradients: float = 0.6
    threads: int = 1  # the last bits of a sum depend on it; two threads on a busy machine wait for each other
