"""The interface of everything that turns landmarks into pictures."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Renderer(Protocol):
    """Draws a known face at given landmarks."""

    revision: str  # changes whenever the pictures may change

    def frames(
        self,
        landmarks: np.ndarray,
        reference_frames: np.ndarray,
        reference_landmarks: np.ndarray,
        base_frames: np.ndarray | None = None,
        base_landmarks: np.ndarray | None = None,
    ) -> np.ndarray:
        """The face of the references at the landmarks.

        Args:
            landmarks: (T, 478, 3) px of the output.
            reference_frames: (N, H, W, 3) uint8 RGB of the same person: skin, teeth, open and shut mouths.
            reference_landmarks: (N, 478, 3) px in them, no NaN.
            base_frames: (T, H, W, 3) uint8 RGB that are to be changed, which give backdrop, hair and neck; without
                them the first reference is what is moved.
            base_landmarks: (T, 478, 3) px in them.

        Returns:
            (T, H, W, 3) uint8 RGB.
        """
        ...
