"""Decodes video to frames at exact times and sound to 16 kHz mono, and encodes both so that files are reproducible."""

from talking_face.media.picture import ArrayPicture, Picture
from talking_face.media.reading import (
    AUDIO_RATE,
    FPS,
    AudioInfo,
    MediaInfo,
    VideoInfo,
    iter_frames,
    iter_pictures,
    probe,
    read_audio,
    read_frames,
)
from talking_face.media.writing import Encoding, write_audio, write_video

__all__ = [
    "AUDIO_RATE",
    "FPS",
    "ArrayPicture",
    "AudioInfo",
    "Encoding",
    "MediaInfo",
    "Picture",
    "VideoInfo",
    "iter_frames",
    "iter_pictures",
    "probe",
    "read_audio",
    "read_frames",
    "write_audio",
    "write_video",
]
