"""Predicts a speaker's lips in the head frame of Audio2Mouth: from sound, reference landmarks and a source video."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from cmet_reference.cem_net.audio2mouth import Audio2Mouth
from cmet_reference.geometry import Pose, fit_pose, to_head


class Spoken(NamedTuple):
    """The lips that Audio2Mouth predicts for T frames, and what they were predicted from.

    Attributes:
        pose: the head pose of the source, for T frames.
        source: (T, 478, 3), the source in the head's frame.
        take: (N,), the indices of the references that Audio2Mouth reads.
        rest: (478, 3), the mean of these references in the head's frame.
        mouth: (T, 57, 3), lips and jaw in the head's frame: MediaPipe's points `audio2mouth.POINTS`.
    """

    pose: Pose
    source: np.ndarray
    take: np.ndarray
    rest: np.ndarray
    mouth: np.ndarray


def spoken(
    mouths: Audio2Mouth, audio: np.ndarray, references: np.ndarray, source_landmarks: np.ndarray, frames: int
) -> Spoken:
    """The lips for a sound.

    Args:
        mouths: the network.
        audio: (N,) int16, 16 kHz.
        references: (R, 478, 3) px, no NaN: landmarks of the speaker.
        source_landmarks: (S, 478, 3) px, no NaN. If there are fewer than `frames`, the last frame is repeated.
        frames: T, the number of output frames.
    """
    template = mouths.template.cpu().numpy()
    held = source_landmarks[np.minimum(np.arange(frames), len(source_landmarks) - 1)]
    pose = fit_pose(held, template)
    source = to_head(held, pose)
    known = to_head(references, fit_pose(references, template))
    take = np.linspace(0, len(known) - 1, mouths.settings.references).round().astype(int)
    return Spoken(pose, source, take, known[take].mean(axis=0), mouths.mouth(audio, known[take], source, frames))
