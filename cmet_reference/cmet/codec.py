"""The interface of face codecs: they encode an expression as a few numbers per frame, and draw a face from numbers.

C-MET changes only these numbers, which are called a code; the network of C-MET does not read pictures. `blendshape` is
the default codec and needs no download. `edtalk` is the codec of the C-MET paper, and `pd_fgc` is a second codec with
which the paper tests C-MET. `edtalk` and `pd_fgc` load the weights of their authors.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np

from talking_face.files import sha256_of
from talking_face.reasons import ClipError, Reason
from talking_face.signature import digest

if TYPE_CHECKING:
    from torch import Tensor

# The checkpoints that generation with each codec needs, in addition to `cmet`. The codecs of other authors draw the
# face themselves, with the weights in the checkout.
NEEDED_STAGES: Mapping[str, tuple[str, ...]] = {
    "blendshape": ("audio2mouth", "appearance", "skin"),
    "edtalk": (),
    "pd-fgc": (),
}


@dataclass(frozen=True)
class Face:
    """The known data of a video of one person: T frames at 25 frames/s. Each codec uses only some of the arrays."""

    frames: np.ndarray | None = None  # (T, H, W, 3) uint8 RGB
    landmarks: np.ndarray | None = None  # (T, 478, 3) px, no NaN
    blendshapes: np.ndarray | None = None  # (T, 52) in [0, 1], no NaN

    def need(self, part: str, who: str) -> np.ndarray:
        """The array called `part`. Raises ClipError if it is absent or empty; the message names its user, `who`."""
        value = getattr(self, part)
        if value is None or not len(value):
            raise ClipError(Reason.MISSING_FILE, f"{who} needs {part} of the video, which are absent")
        return value


class FaceCodec(Protocol):
    """Encodes and decodes the expression of a face."""

    name: str  # a key of NEEDED_STAGES
    size: int  # number of values in a code
    # A digest of the code and the weights in the codec's checkout, 12 hexadecimal digits. "" for the blendshape codec,
    # whose arrays are in the checkpoint of `cmet`.
    revision: str

    def encode(self, face: Face) -> np.ndarray:
        """The expression codes of a face, (T, size) float32."""
        ...

    def lips(self, audio: np.ndarray, identity: Face, frames: int) -> np.ndarray:
        """The lip motion for audio, (N,) int16 at 16 kHz. Returns (frames, ...); the form depends on the codec."""
        ...

    def decode(self, identity: Face, lips: np.ndarray, pose: Face, codes: np.ndarray) -> np.ndarray:
        """Draws a face with this identity, lip motion, head pose and expression: (T, H, W, 3) uint8 RGB.

        T is the number of frames of `lips`. If `codes` or `pose` have fewer frames, their last frame is repeated.
        """
        ...


def held(track: np.ndarray, frames: int) -> np.ndarray:
    """Truncates a track (T, ...) to (frames, ...), or repeats its last row until it has that length."""
    return track[np.minimum(np.arange(frames), len(track) - 1)]


def smoothed_lips(lips: np.ndarray) -> np.ndarray:
    """Smooths (T, C) over time with a Gaussian of three weights, 0.274, 0.452 and 0.274 (standard deviation 1).

    Source: conv_feat in src/util.py of C-MET. As in that function, values before the start and after the end are zero,
    and torch convolves in float32. The result equals that function's in every bit on a CPU.
    """
    from torch import from_numpy
    from torch.nn.functional import conv1d

    taps = np.exp(-np.array([1.0, 0.0, 1.0]) / 2)
    kernel = from_numpy((taps / taps.sum()).astype(np.float32))[None, None]
    tracks = from_numpy(np.ascontiguousarray(lips.T, np.float32))[:, None]
    return np.ascontiguousarray(conv1d(tracks, kernel, padding=1)[:, 0].T.numpy())


def as_bytes(video: Tensor, stretched: bool = False) -> np.ndarray:
    """Converts a network's output, (T, 3, H, W) in [-1, 1], to (T, H, W, 3) uint8 RGB. Other values are clamped.

    Args:
        video: the output.
        stretched: True: stretch the values of the whole video to 0 to 255 and truncate fractions, as save_video in
            src/util.py of C-MET does. False: convert -1 to 0 and 1 to 255, and round.
    """
    video = video.clamp(-1, 1).permute(0, 2, 3, 1)
    if stretched:
        low, high = video.min(), video.max()
        return np.ascontiguousarray(((video - low) / (high - low).clamp(min=1e-12) * 255).byte().numpy())
    return np.ascontiguousarray(video.add(1).mul(127.5).round().byte().numpy())


def hash_of(files: Iterable[Path], root: Path) -> str:
    """A digest of the paths below `root` and the contents of files, 12 hexadecimal digits."""
    return digest(sorted((path.relative_to(root).as_posix(), sha256_of(path)) for path in files), 12)
