"""Media out: mp4, mkv, m4a and wav, written atomically and with the same bytes every time."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.container import OutputContainer

from talking_face.media.reading import AUDIO_RATE, FPS

# FFmpeg's names differ from what people write.
_CODECS = {"h264": "libx264", "h265": "libx265", "flv1": "flv"}
_AUDIO_CHUNK = 1024  # samples; AAC's frame


def write_video(
    path: str | Path,
    frames: np.ndarray | Iterable[np.ndarray],
    fps: float = FPS,
    audio: np.ndarray | None = None,
    audio_rate: int = AUDIO_RATE,
    *,
    codec: str = "h264",
    crf: int = 10,
    pix_fmt: str = "yuv444p",
    preset: str = "veryfast",
    audio_codec: str = "aac",
    audio_channels: int = 1,
    audio_bitrate: int = 128_000,
    options: dict[str, str] | None = None,
) -> None:
    """Write frames, and sound when given, to the container that `path`'s suffix names.

    Args:
        path: written under a temporary name in the same folder, then renamed.
        frames: (T, H, W, 3) uint8 RGB, or an iterable of (H, W, 3); at least one.
        fps: frames/s.
        audio: (N,) int16 mono, or (N, C) int16; mono is copied to `audio_channels` channels.
        audio_rate: Hz of `audio`; the encoder gets it as it is.
        codec, crf, pix_fmt, preset: video encoder settings; crf 10 in 4:4:4 keeps about 47 dB on faces. `crf` and
            `preset` are passed to H.264 and H.265 alone.
        options: further encoder options.

    Raises:
        ValueError: no frame, or frames that are not uint8 RGB of one size. OSError: the disk.
    """
    path = Path(path)
    iterator = iter(frames)
    first = next(iterator, None)
    if first is None:
        raise ValueError(f"{path}: no frame to write")
    if first.dtype != np.uint8 or first.ndim != 3 or first.shape[2] != 3:
        raise ValueError(f"{path}: frames must be (H, W, 3) uint8 RGB, got {first.shape} {first.dtype}")
    with _container(path) as container:
        settings = {"crf": str(crf), "preset": preset} if codec in ("h264", "h265") else {}
        if codec == "h264":
            # x264's vector code for mbtree reads past the picture's last blocks: with it the same frames gave 13
            # different files in 15 at 320x240.
            settings["x264-params"] = "mbtree=0"
        video: Any = container.add_stream(
            _CODECS.get(codec, codec),
            rate=Fraction(fps).limit_denominator(1001),
            options={**settings, **(options or {})},
        )
        video.height, video.width = first.shape[:2]
        video.pix_fmt = pix_fmt
        video.codec_context.thread_count = 1  # x264's output depends on its thread count
        video.codec_context.flags |= av.codec.context.Flags.bitexact
        sound = _AudioTrack(container, audio, audio_rate, audio_codec, audio_channels, audio_bitrate)
        for index, rgb in enumerate(_chain(first, iterator)):
            if rgb.shape != first.shape:
                raise ValueError(f"{path}: frame {index} is {rgb.shape}, the first was {first.shape}")
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24")
            frame.pts = index
            frame.time_base = 1 / Fraction(fps).limit_denominator(1001)
            container.mux(video.encode(frame))
            sound.write_until((index + 1) / fps)
        container.mux(video.encode(None))
        sound.finish()


def write_audio(
    path: str | Path,
    samples: np.ndarray,
    rate: int,
    *,
    codec: str = "aac",
    channels: int = 1,
    bitrate: int = 128_000,
) -> None:
    """Write (N,) or (N, C) int16 samples to .m4a (codec "aac") or .wav ("pcm_s16le"); atomic and deterministic."""
    with _container(Path(path)) as container:
        _AudioTrack(container, samples, rate, codec, channels, bitrate).finish()


class _AudioTrack:
    """One audio stream, fed in step with the picture so that players and FFmpeg's muxer need not buffer it."""

    def __init__(
        self, container: OutputContainer, samples: np.ndarray | None, rate: int, codec: str, channels: int, bitrate: int
    ) -> None:
        self._container, self._rate, self._at = container, rate, 0
        self._samples = None
        if samples is None:
            return
        samples = np.asarray(samples)
        if samples.dtype != np.int16 or samples.ndim not in (1, 2):
            raise ValueError(f"sound must be (N,) or (N, C) int16, got {samples.shape} {samples.dtype}")
        if samples.ndim == 1:
            samples = np.repeat(samples[:, None], channels, axis=1)
        self._layout = {1: "mono", 2: "stereo", 6: "5.1"}[samples.shape[1]]
        self._samples = samples
        stream: Any = container.add_stream(codec, rate=rate, layout=self._layout)
        self._stream = stream
        self._stream.codec_context.thread_count = 1
        self._stream.codec_context.flags |= av.codec.context.Flags.bitexact
        if codec == "aac":
            self._stream.bit_rate = bitrate

    def write_until(self, seconds: float) -> None:
        if self._samples is None:
            return
        end = min(len(self._samples), int(seconds * self._rate))
        while self._at + _AUDIO_CHUNK <= end:
            self._write(_AUDIO_CHUNK)

    def finish(self) -> None:
        if self._samples is None:
            return
        while self._at < len(self._samples):
            self._write(min(_AUDIO_CHUNK, len(self._samples) - self._at))
        self._container.mux(self._stream.encode(None))

    def _write(self, count: int) -> None:
        assert self._samples is not None
        chunk = np.ascontiguousarray(self._samples[self._at : self._at + count]).reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(chunk, format="s16", layout=self._layout)
        frame.sample_rate = self._rate
        frame.pts = self._at
        frame.time_base = Fraction(1, self._rate)
        self._at += count
        self._container.mux(self._stream.encode(frame))


@contextmanager
def _container(path: Path) -> Iterator[OutputContainer]:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.tmp{path.suffix}")
    try:
        options = {"movflags": "+faststart"} if path.suffix in (".mp4", ".mov", ".m4a") else {}
        with av.open(temporary, "w", options={"fflags": "+bitexact", **options}) as container:
            yield container
        os.replace(temporary, path)  # noqa: PTH105
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _chain(first: np.ndarray, rest: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    yield first
    yield from rest
