"""Writes the clips of `tests.hostile.media`: real or drawn pictures, with marks that show whether a reader was right.

Every frame has a strip of eight bars at its top, which holds the frame's number, and a white disc on a black square in
its middle, which shows the shape of the pixels. The sound is a tone whose frequency rises, so that parts of it differ.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.error
import cv2
import numpy as np
from av.stream import Disposition

WIDTH, HEIGHT, STRIP = 256, 192, 16  # px
RATE = 44100  # Hz
BITS = 8


@dataclass(frozen=True)
class Recipe:
    """How a clip is written.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, or None for sound only.
        sounds: one (N,) or (N, C) int16 array for each sound track.
        suffix: decides the container.
        aspect: width of a pixel over its height that the file states.
        turn: degrees by which the file says that its frames are to be turned.
        times: time of each frame, s; None: a constant rate of `fps`.
        default_sound: index of the default sound track; None: the container decides.
        cover: position of a cover picture among the tracks; None: there is none.
        sound_start: time of the first sample, s.
    """

    frames: np.ndarray | None
    sounds: tuple[np.ndarray, ...] = ()
    suffix: str = "mp4"
    codec: str = "libx264"
    pixels: str = "yuv420p"
    options: dict[str, str] = field(default_factory=dict)
    sound_codec: str = "aac"
    fps: Fraction = Fraction(25)
    aspect: Fraction = Fraction(1)
    turn: int = 0
    times: Sequence[float] | None = None
    default_sound: int | None = None
    cover: int | None = None
    cover_attached: bool = True
    sound_rate: int = RATE
    sound_start: float = 0.0


def marked(pictures: np.ndarray, count: int) -> np.ndarray:
    """`count` frames of (HEIGHT, WIDTH) with marks, from (T, H, W, 3) pictures, which are repeated."""
    out = np.stack([cv2.resize(pictures[k % len(pictures)], (WIDTH, HEIGHT)) for k in range(count)])
    for k, frame in enumerate(out):
        bars = [255 * ((k >> bit) & 1) for bit in range(BITS)]
        frame[:STRIP] = np.repeat(np.array(bars, np.uint8), WIDTH // BITS)[None, :, None]
        frame[HEIGHT // 2 - 50 : HEIGHT // 2 + 50, WIDTH // 2 - 50 : WIDTH // 2 + 50] = 0
        cv2.circle(frame, (WIDTH // 2, HEIGHT // 2), 40, (255, 255, 255), -1)
    return out


def number_of(frame: np.ndarray) -> int:
    """The number that the bars of a frame state."""
    row = frame[max(1, round(frame.shape[0] * STRIP / HEIGHT / 2))].mean(axis=1)
    centres = ((np.arange(BITS) + 0.5) * frame.shape[1] / BITS).astype(int)
    return int(sum(1 << bit for bit in range(BITS) if row[centres[bit]] > 127))


def disc_of(frame: np.ndarray) -> float:
    """Width over height of the disc; 1 if the pixels are square."""
    grey = frame.mean(axis=2)
    (height, width) = grey.shape
    row = grey[height // 2, width // 2 - int(0.19 * width) : width // 2 + int(0.19 * width)]
    column = grey[height // 2 - int(0.25 * height) : height // 2 + int(0.25 * height), width // 2]
    return float((row > 127).sum() / max(1, (column > 127).sum()))


def tone(seconds: float, rate: int = RATE, level: float = 8000.0) -> np.ndarray:
    """A rising tone, (N,) int16."""
    t = np.arange(round(seconds * rate)) / rate
    return (level * np.sin(2 * np.pi * (200 + 150 * t) * t)).astype(np.int16)


def write(path: Path, recipe: Recipe) -> None:
    """Writes the clip of a recipe to `path`, whatever its suffix."""
    target = path.with_name(f"{path.name}.making.{recipe.suffix}")
    with av.open(str(target), "w") as out:
        writers: list[Callable[[], None]] = []
        if recipe.cover == 0:
            writers.append(_cover(out, recipe))
        if recipe.frames is not None:
            writers.append(_pictures(out, recipe))
        writers += [_sound(out, recipe, index) for index in range(len(recipe.sounds))]
        if recipe.cover:
            writers.append(_cover(out, recipe))
        for one in writers:
            one()
    target.replace(path)


def _pictures(out: Any, recipe: Recipe) -> Callable[[], None]:
    frames = recipe.frames
    assert frames is not None
    stream = out.add_stream(recipe.codec, rate=recipe.fps, options=recipe.options)
    stream.height, stream.width = frames.shape[1:3]
    stream.pix_fmt = recipe.pixels
    stream.codec_context.thread_count = 1
    if recipe.times is not None:
        stream.codec_context.time_base = Fraction(1, 1000)
    if recipe.aspect != 1:
        stream.codec_context.sample_aspect_ratio = recipe.aspect
        stream.sample_aspect_ratio = recipe.aspect
    if recipe.turn:
        stream.set_display_rotation(recipe.turn)

    def put() -> None:
        for k, rgb in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(rgb), format="rgb24").reformat(format=recipe.pixels)
            if recipe.times is None:
                frame.pts, frame.time_base = k, 1 / recipe.fps
            else:
                frame.pts, frame.time_base = round(recipe.times[k] * 1000), Fraction(1, 1000)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    return put


def _sound(out: Any, recipe: Recipe, index: int) -> Callable[[], None]:
    samples = recipe.sounds[index]
    layout = "mono" if samples.ndim == 1 else "stereo"
    stream = out.add_stream(recipe.sound_codec, rate=recipe.sound_rate, layout=layout)
    if recipe.default_sound is not None:
        stream.disposition = Disposition.default if index == recipe.default_sound else Disposition(0)

    def put() -> None:
        whole = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "s16", layout)
        whole.sample_rate, whole.pts = recipe.sound_rate, round(recipe.sound_start * recipe.sound_rate)
        whole.time_base = Fraction(1, recipe.sound_rate)
        cut = av.AudioResampler(stream.codec_context.format, layout, recipe.sound_rate, stream.frame_size or 1024)
        for part in (*cut.resample(whole), *cut.resample(None)):
            out.mux(stream.encode(part))
        out.mux(stream.encode(None))

    return put


def _cover(out: Any, recipe: Recipe) -> Callable[[], None]:
    codec, pixels = ("mjpeg", "yuvj420p") if recipe.suffix == "mkv" else ("png", "rgb24")
    stream = out.add_stream(codec, rate=1)
    stream.width, stream.height, stream.pix_fmt = 64, 64, pixels
    if recipe.cover_attached:
        stream.disposition = Disposition.attached_pic

    def put() -> None:
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 90, np.uint8), format="rgb24")
        frame = frame.reformat(format=pixels)
        frame.pts = 0
        out.mux(stream.encode(frame))
        out.mux(stream.encode(None))

    return put


def copy_part(source: Path, target: Path, start: float, length: float) -> None:
    """Copies packets without decoding, as `ffmpeg -ss START -i SOURCE -t LENGTH -c copy TARGET` does.

    The packets before `start` that are needed for decoding are copied too. The muxer hides them with an edit list.
    """
    with av.open(str(source)) as file, av.open(str(target), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in file.streams}
        for packet in file.demux():
            if not packet.size or packet.pts is None or packet.dts is None:
                continue
            shift = round(Fraction(start) / packet.time_base)
            packet.pts, packet.dts = packet.pts - shift, packet.dts - shift
            at = float(packet.dts * packet.time_base)
            if at >= length or (packet.stream.type == "audio" and at < -0.03):
                continue
            packet.stream = streams[packet.stream.index]
            out.mux(packet)


def shifted_packets(source: Path, target: Path, change: Callable[[str, float], float]) -> None:
    """Copies packets with other times. `change(kind, time in s)` returns the new time of a packet."""
    with av.open(str(source)) as file, av.open(str(target), "w") as out:
        streams = {stream.index: out.add_stream_from_template(stream) for stream in file.streams}
        for packet in file.demux():
            if not packet.size or packet.pts is None or packet.dts is None:
                continue
            by = change(packet.stream.type, float(packet.pts * packet.time_base)) - float(packet.pts * packet.time_base)
            shift = round(by / packet.time_base)
            packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
            packet.stream = streams[packet.stream.index]
            try:
                out.mux(packet)
            except av.error.FFmpegError:  # the muxer refuses a packet whose times go back
                continue


# -- boxes of mp4 files ------------------------------------------------------------------------------------------------

_PARENTS = (b"moov", b"trak", b"mdia", b"minf", b"dinf", b"stbl", b"edts")


@dataclass(frozen=True)
class Box:
    """A box of an mp4 file: its type, and its content or the boxes inside."""

    kind: bytes
    content: bytes = b""
    inside: tuple[Box, ...] | None = None

    def bytes(self) -> bytes:
        """The box with its size."""
        body = self.content if self.inside is None else b"".join(one.bytes() for one in self.inside)
        return struct.pack(">I", 8 + len(body)) + self.kind + body


def boxes(data: bytes) -> tuple[Box, ...]:
    """The boxes of an mp4 file that is not damaged."""
    found, at = [], 0
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        body = data[at + 8 : at + size]
        found.append(Box(kind, inside=boxes(body)) if kind in _PARENTS else Box(kind, body))
        at += size
    return tuple(found)


def edited(tree: tuple[Box, ...], kind: bytes, change: Callable[[bytes], bytes]) -> tuple[Box, ...]:
    """The boxes with a changed content of every box of type `kind`."""
    out = []
    for box in tree:
        if box.inside is not None:
            out.append(replace(box, inside=edited(box.inside, kind, change)))
        else:
            out.append(replace(box, content=change(box.content)) if box.kind == kind else box)
    return tuple(out)


def joined(tree: tuple[Box, ...]) -> bytes:
    """The file of the boxes."""
    return b"".join(box.bytes() for box in tree)


def alias(path: str) -> bytes:
    """The content of a `dref` box with one `alis` entry that refers to another file by its absolute path."""
    name = path.rpartition("/")[2].encode()
    volume, target = b"disk", path.encode()
    body = bytes(10) + bytes([len(volume)]) + volume.ljust(27, b"\0") + bytes(12)
    body += bytes([len(name)]) + name.ljust(63, b"\0")[:63] + bytes(16) + struct.pack(">HH", 0, 0) + bytes(16)
    record = b"disk:" + target.replace(b"/", b":")
    body += struct.pack(">HH", 2, len(record)) + record + bytes(len(record) % 2)
    body += struct.pack(">HH", 18, len(target)) + target + bytes(len(target) % 2) + struct.pack(">HH", 0xFFFF, 0)
    entry = b"alis" + struct.pack(">I", 0) + body
    return struct.pack(">II", 0, 1) + struct.pack(">I", 4 + len(entry)) + entry
