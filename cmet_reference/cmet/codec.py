"""The interface of face codecs: encode a video's expression as a few numbers per frame, and draw a face from them.

C-MET changes codes and never sees pictures. `blendshape` is the default and needs no download. `edtalk` (the paper's
codec) and `pd_fgc` (its plug-in test) load the authors' weights.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from talking_face.reasons import ClipError, Reason


@dataclass(frozen=True)
class Face:
    """The known parts of a video of one person, T frames at 25 frames/s; a codec asks for those that it needs."""

    frames: np.ndarray | None = None  # (T, H, W, 3) uint8 RGB
    landmarks: np.ndarray | None = None  # (T, 478, 3) px, no NaN
    blendshapes: np.ndarray | None = None  # (T, 52) in [0, 1], no NaN

    def need(self, part: str, who: str) -> np.ndarray:
        """The part. Raises ClipError where it is absent or empty."""
        value = getattr(self, part)
        if value is None or not len(value):
            raise ClipError(Reason.MISSING_FILE, f"{who} needs {part} of the video, which are absent")
        return value


class FaceCodec(Protocol):
    """Encodes and decodes the expression of a face."""

    name: str
    size: int  # numbers of a code

    def encode(self, face: Face) -> np.ndarray:
        """(T, size) float32 expression codes."""
        ...

    def lips(self, audio: np.ndarray, identity: Face, frames: int) -> np.ndarray:
        """The lip motion of audio, (N,) int16 at 16 kHz: (frames, ...) in the codec's own form."""
        ...

    def decode(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB of a face with this identity, lip motion, head pose and expression.

        T is the number of lip motions. Shorter codes (T', size) and poses hold their last frame.
        """
        ...


def held(track: np.ndarray, frames: int) -> np.ndarray:
    """A track cut to `frames` frames, or its last row repeated: (T, ...) to (frames, ...)."""
    return track[np.minimum(np.arange(frames), len(track) - 1)]


def smoothed_lips(lips: np.ndarray) -> np.ndarray:
    """(T, C) under a three-tap Gaussian of deviation 1: .274, .452, .274. Source: conv_feat in src/util.py of C-MET.

    Beyond the ends are zeros, as there.
    """
    taps = np.exp(-np.array([1.0, 0.0, 1.0]) / 2)
    taps /= taps.sum()
    wide = np.pad(lips, ((1, 1), (0, 0)))
    return (taps[0] * wide[:-2] + taps[1] * wide[1:-1] + taps[2] * wide[2:]).astype(np.float32)
