"""Decodes video to frames at exact times and sound to 16 kHz mono, and encodes both so that files are reproducible."""

from talking_face.media.limits import LIMITS, Limits
from talking_face.media.picture import ArrayPicture, Picture
from talking_face.media.reading import (
    AUDIO_RATE,
    FPS,
    AudioInfo,
    Choice,
    MediaInfo,
    Sound,
    Video,
    VideoInfo,
    file_start,
    iter_frames,
    iter_pictures,
    probe,
    read_audio,
    read_frames,
    read_sound,
    read_video,
)
from talking_face.media.writing import Encoding, write_audio, write_video

__all__ = [
    "AUDIO_RATE",
    "FPS",
    "LIMITS",
    "ArrayPicture",
    "AudioInfo",
    "Choice",
    "Encoding",
    "Limits",
    "MediaInfo",
    "Picture",
    "Sound",
    "Video",
    "VideoInfo",
    "file_start",
    "iter_frames",
    "iter_pictures",
    "probe",
    "read_audio",
    "read_frames",
    "read_sound",
    "read_video",
    "write_audio",
    "write_video",
]
