"""Defines how long and how large a media file may be. Every function that decodes takes these limits as an argument."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Limits:
    """The longest and the largest media that a function decodes. A longer or larger file ends as a ClipError.

    The limits are checked against the header before the first frame is decoded, and against the decoded times and sizes
    before frames are repeated, before zeros are added to the sound and before arrays are allocated. Therefore a file
    that states wrong times needs no more memory than a file of the largest allowed size.

    Attributes:
        seconds: the longest picture and the longest sound, s.
        pixels: the largest picture, width times height, px, after the pixels were made square.
        gap_s: the longest time for which one frame is shown, s.
        frame_bytes: the largest array of `read_frames`, bytes. Twice this memory is used for a short time.
    """

    seconds: float = 600.0
    pixels: int = 1 << 26  # 8192 x 8192; an 8K picture has half as many
    gap_s: float = 10.0
    frame_bytes: int = 4 << 30


LIMITS = Limits()
