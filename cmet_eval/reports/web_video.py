"""Copies videos into a form that every browser plays: H.264 4:2:0 with AAC.

Few browsers play the 4:4:4 files that this suite writes.
"""

from __future__ import annotations

from pathlib import Path

from talking_face.media.reading import read_audio, read_frames
from talking_face.media.writing import Encoding, write_video
from talking_face.reasons import ClipError


def write_web_video(source: Path, target: Path, crf: int = 18) -> None:
    """Writes a copy at 25 frames/s. Odd sides are cropped by one pixel. The copy has no sound if the source has none.

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
