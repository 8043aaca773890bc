"""The interface of the renderers, which turn landmarks into pictures."""

from __future__ import annotations

from typing import Protocol

import numpy as np


class Renderer(Protocol):
    """Draws the face of a known person at given landmarks."""

    revision: str  # a text; it differs between two versions if their pictures can differ

    def frames(
        self,
        landmarks: np.ndarray,
        reference_frames: np.ndarray,
        reference_landmarks: np.ndarray,
        base_frames: np.ndarray | None = None,
        base_landmarks: np.ndarray | None = None,
    ) -> np.ndarray:
        """Draws the face of the reference frames at the landmarks.

        Args:
            landmarks: (T, 478, 3) px of the output.
            reference_frames: (N, H, W, 3) uint8 RGB of the same person. These frames show skin, teeth, open and closed
                mouths.
            reference_landmarks: (N, 478, 3) px of the reference frames, no NaN.
            base_frames: (T, H, W, 3) uint8 RGB of the same person, over which the face is drawn. Backdrop, hair and
                neck are kept. Default: T copies of the first reference frame.
            base_landmarks: (T, 478, 3) px of the base frames.

        Returns:
            (T, H, W, 3) uint8 RGB.
        """
        ...


def base_of(
    n: int,
    reference_frames: np.ndarray,
    reference_landmarks: np.ndarray,
    base_frames: np.ndarray | None,
    base_landmarks: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """The base frames and base landmarks of `n` output frames. The default is `n` copies of the first reference frame.

    Raises:
        ValueError: only one of `base_frames` and `base_landmarks` is None, or the length of one of these arrays is not
            `n`.
    """
    if (base_frames is None) != (base_landmarks is None):
        raise ValueError("base frames and base landmarks come together")
    if base_frames is None or base_landmarks is None:
        base_frames = np.broadcast_to(reference_frames[:1], (n, *reference_frames.shape[1:]))
        base_landmarks = np.broadcast_to(reference_landmarks[:1], (n, *reference_landmarks.shape[1:]))
    if not len(base_frames) == len(base_landmarks) == n:
        raise ValueError(f"{n} landmark sets, {len(base_frames)} base frames, {len(base_landmarks)} of their sets")
    return base_frames, base_landmarks
