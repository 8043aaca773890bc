"""Copies videos into a format that every browser can play: H.264 4:2:0 with AAC sound.

The videos that this suite generates are H.264 4:4:4, and few browsers can play this format.
"""

from __future__ import annotations

from pathlib import Path

from talking_face.media.reading import read_audio, read_frames
from talking_face.media.writing import Encoding, write_video
from talking_face.reasons import ClipError


def write_web_video(source: Path, target: Path, crf: int = 18) -> None:
    """Writes a copy of `source` at 25 frames/s. An odd width or height is cropped by one pixel.

    If the source has no sound, the copy has no sound.

    Raises:
        ClipError: the source cannot be read.
    """
    frames = read_frames(source)
    height, width = (side - side % 2 for side in frames.shape[1:3])
    try:
        audio = read_audio(source)
    except ClipError:
        audio = None
    encoding = Encoding(pix_fmt="yuv420p", crf=crf, audio_bitrate=64_000)
    write_video(target, frames[:, :height, :width], audio=audio, encoding=encoding)
