"""Audio2Mouth alone: the upper face of the source, with lips and jaw that follow the sound, without emotion."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from scipy.interpolate import RBFInterpolator

from cmet_reference.cem_net import audio2mouth
from cmet_reference.cem_net.audio2mouth import POINTS, UPPER
from cmet_reference.cem_net.spoken import spoken
from cmet_reference.geometry import to_picture

_KNOWN = [*UPPER, *POINTS]


class LipsOnlyFace:
    """Audio2Mouth as a model of its own. It needs no emotion labels, so it can be trained on neutral speech alone."""

    def __init__(self, path: Path, device: str = "cpu") -> None:
        """`path`: the file audio2mouth.safetensors. Raises the errors of `audio2mouth.load`."""
        self.mouths = audio2mouth.load(path).to(device)
        self.spread = spread_of(self.mouths.template.cpu().numpy())

    def landmarks(
        self, audio: np.ndarray, reference_landmarks: np.ndarray, source_landmarks: np.ndarray, frames: int
    ) -> np.ndarray:
        """The landmarks of a face that speaks the audio.

        The 74 points of the upper face (eyes, brows, nose, and the outline above the jaw) come from the source. The 57
        points of lips and jaw come from the network. The other 347 points follow these 131 points by a smooth
        interpolation, so no point of the source's lower face reaches the output.

        Args:
            audio: (N,) int16, 16 kHz.
            reference_landmarks: (R, 478, 3) px, no NaN: the speaker.
            source_landmarks: (S, 478, 3) px, no NaN. If there are fewer than `frames`, the last frame is repeated.
            frames: the number of output frames.

        Returns:
            (frames, 478, 3) float32 px of the source.
        """
        pose, source, _, rest, mouth = spoken(self.mouths, audio, reference_landmarks, source_landmarks, frames)
        moved = np.concatenate([source[:, UPPER] - rest[list(UPPER)], mouth - rest[list(POINTS)]], axis=1)
        face = (rest + np.einsum("pk,tkc->tpc", self.spread, moved)).astype(np.float32)
        return to_picture(face, pose)


def spread_of(template: np.ndarray) -> np.ndarray:
    """The linear map from the displacements of `UPPER` and `POINTS` to those of all 478 points, (478, 131) float32.

    It is a thin-plate interpolation over the template's x and y. The known points keep their displacements.

    Args:
        template: (478, 3) in the head's frame.
    """
    flat = template[:, :2].astype(np.float64)
    weights = RBFInterpolator(flat[_KNOWN], np.eye(len(_KNOWN)), kernel="thin_plate_spline", degree=1)(flat)
    weights[_KNOWN] = np.eye(len(_KNOWN))  # without the rounding errors of the solution
    return np.asarray(weights, np.float32)
