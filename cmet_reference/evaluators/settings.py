"""The settings for the training of the evaluators."""

from __future__ import annotations

from dataclasses import dataclass

from cmet_reference.evaluators.data import MAX_CLIPS


@dataclass(frozen=True)
class EvaluatorSettings:
    """The settings that change the result. They are stored in the header of each evaluator's file and in its card."""

    seed: int = 0
    max_clips: int = MAX_CLIPS  # greatest number of training clips
    syncnet_steps: int = 300
    syncnet_clips: int = 8  # clips per step
    syncnet_frames: int = 40  # frames per clip and step
    syncnet_rate: float = 2e-3  # highest learning rate
    emotion_copies: int = 3  # number of augmented copies of each clip, in addition to the clip itself
    # Share of the covariance that is replaced by a multiple of the identity, for each of the two discriminants. The
    # values were chosen in tests that left out one training speaker at a time.
    emotion_shrink_blendshapes: float = 0.1
    emotion_shrink_gradients: float = 0.6
    # Threads of torch. The last bits of a sum depend on the number of threads. More than one thread is not faster on a
    # busy machine, because the threads wait for each other.
    threads: int = 1
