"""Writes video and sound to mp4, mkv, m4a and wav files. The same input always gives a file with the same bytes.

A file gets its final name by an atomic rename.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import numpy as np
from av.audio.stream import AudioStream
from av.container import OutputContainer
from av.video.stream import VideoStream

from talking_face.files import replacing
from talking_face.media.reading import AUDIO_RATE, FPS

# Usual codec name -> FFmpeg's name of the encoder.
_CODECS = {"h264": "libx264", "h265": "libx265", "flv1": "flv"}
_AUDIO_CHUNK = 1024  # samples; the length of an AAC frame


@dataclass(frozen=True, slots=True)
class Encoding:
    """How `write_video` encodes pictures and sound. With the default, the PSNR on faces is about 47 dB."""

    codec: str = "h264"
    crf: int = 10  # quality, 0 is lossless; used by H.264 and H.265 only
    pix_fmt: str = "yuv444p"
    preset: str = "veryfast"  # used by H.264 and H.265 only
    audio_codec: str = "aac"
    audio_channels: int = 1  # number of channels to which mono sound is copied
    audio_bitrate: int = 128_000  # bits/s; used by AAC only
    options: Mapping[str, str] = field(default_factory=dict)  # additional options of the video encoder


_DEFAULT = Encoding()


def write_video(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float = FPS,
    audio: np.ndarray | None = None,
    audio_rate: int = AUDIO_RATE,
    encoding: Encoding = _DEFAULT,
) -> None:
    """Write frames and optional sound to a video file. The suffix of `path` determines the container format.

    Args:
        path: the file; it gets its final name by an atomic rename.
        frames: (T, H, W, 3) uint8 RGB, or an iterable of (H, W, 3); at least one.
        fps: frames/s.
        audio: (N,) int16 mono, or (N, C) int16.
        audio_rate: sample rate of `audio`, Hz; the encoder does not resample.
        encoding: codecs, quality, pixel format and channels.

    Raises:
        ValueError: there is no frame, a frame is not uint8 RGB, or the frames have different sizes.
        OSError: the disk is full or not writable.
    """
    path = Path(path)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: no frame to write")
    if first.dtype != np.uint8 or first.ndim != 3 or first.shape[2] != 3:
        raise ValueError(f"{path}: frames must be (H, W, 3) uint8 RGB, got {first.shape} {first.dtype}")
    rate = Fraction(fps).limit_denominator(1001)
    with _container(path) as container:
        video = _video_stream(container, rate, first.shape[:2], encoding)
        sound = None if audio is None else _AudioTrack(container, audio, audio_rate, encoding)
        for index, rgb in enumerate(chain([first], iterator)):
            if rgb.shape != first.shape:
                raise ValueError(f"{path}: frame {index} is {rgb.shape}, the first was {first.shape}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts = index
            frame.time_base = 1 / rate
            container.mux(video.encode(frame))
            if sound is not None:
                sound.write_until((index + 1) / fps)
        container.mux(video.encode(None))
        if sound is not None:
            sound.finish()


def _video_stream(container: OutputContainer, rate: Fraction, size: tuple[int, ...], encoding: Encoding) -> VideoStream:
    """Adds the video stream for pictures of `size`, (height, width)."""
    options: dict[str, str] = {}
    if encoding.codec in ("h264", "h265"):
        options = {"crf": str(encoding.crf), "preset": encoding.preset}
    if encoding.codec == "h264":
        # x264's option mbtree is switched off, because its vector code reads past the last blocks of a picture, so that
        # the output is not reproducible. With mbtree, 15 runs with the same frames at 320x240 gave 13 different files.
        options["x264-params"] = "mbtree=0"
    codec = _CODECS.get(encoding.codec, encoding.codec)
    stream = container.add_stream(codec, rate=rate, options={**options, **encoding.options})
    assert isinstance(stream, VideoStream)
    stream.height, stream.width = size
    stream.pix_fmt = encoding.pix_fmt
    stream.codec_context.thread_count = 1  # x264's output depends on its thread count
    stream.codec_context.flags |= av.codec.context.Flags.bitexact
    return stream


def write_audio(
    path: str | Path,
    samples: np.ndarray,
    rate: int,
    *,
    codec: str = "aac",
    channels: int = 1,
    bitrate: int = 128_000,
) -> None:
    """Write (N,) or (N, C) int16 samples to an .m4a file (codec "aac") or a .wav file (codec "pcm_s16le").

    The file gets its final name by an atomic rename. The same samples give the same bytes.
    """
    encoding = Encoding(audio_codec=codec, audio_channels=channels, audio_bitrate=bitrate)
    with _container(Path(path)) as container:
        _AudioTrack(container, samples, rate, encoding).finish()


def copy_sound(video: str | Path, path: str | Path) -> None:
    """Copies the sound track of a video to a file of its own, an .m4a for AAC, without encoding it again.

    The bytes are those of `write_audio` with the samples and the channels that the video was written with, in a
    sixth of the time. The file gets its final name by an atomic rename.
    """
    with av.open(str(video)) as source, _container(Path(path)) as container:
        stream = container.add_stream_from_template(source.streams.audio[0])
        for packet in source.demux(audio=0):
            if packet.dts is not None:
                packet.stream = stream
                container.mux(packet)


class _AudioTrack:
    """One audio stream. Sound and pictures are written alternately, so that players need no large buffer."""

    def __init__(self, container: OutputContainer, samples: np.ndarray, rate: int, encoding: Encoding) -> None:
        """Adds the stream. `samples`: (N,) or (N, C) int16. Raises ValueError for any other shape or type."""
        self._container, self._rate, self._at = container, rate, 0
        samples = np.asarray(samples)
        if samples.dtype != np.int16 or samples.ndim not in (1, 2):
            raise ValueError(f"sound must be (N,) or (N, C) int16, got {samples.shape} {samples.dtype}")
        if samples.ndim == 1:
            samples = np.repeat(samples[:, None], encoding.audio_channels, axis=1)
        self._layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        self._samples = samples
        stream = container.add_stream(encoding.audio_codec, rate=rate, layout=self._layout)
        assert isinstance(stream, AudioStream)
        self._stream = stream
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if encoding.audio_codec == "aac":
            self._stream.bit_rate = encoding.audio_bitrate

    def write_until(self, seconds: float) -> None:
        """Writes all complete chunks that end at or before the time `seconds`."""
        end = min(len(self._samples), int(seconds * self._rate))
        while self._at + _AUDIO_CHUNK <= end:
            self._write(_AUDIO_CHUNK)

    def finish(self) -> None:
        """Writes the remaining samples and flushes the encoder."""
        while self._at < len(self._samples):
            self._write(min(_AUDIO_CHUNK, len(self._samples) - self._at))
        self._container.mux(self._stream.encode(None))

    def _write(self, count: int) -> None:
        chunk = np.ascontiguousarray(self._samples[self._at : self._at + count]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._at
        frame.time_base = Fraction(1, self._rate)
        self._at += count
        self._container.mux(self._stream.encode(frame))


@contextmanager
def _container(path: Path) -> Iterator[OutputContainer]:
    """An open output container. At the end of the block the written file gets the name `path`."""
    options = {"movflags": "+faststart"} if path.suffix in (".mp4", ".mov", ".m4a") else {}
    with (
        replacing(path) as temporary,
        av.open(temporary, "w", options={"fflags": "+bitexact", **options}) as container,
    ):
        yield container
