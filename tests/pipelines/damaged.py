"""Writes damaged and unusual videos of one talking face, as cameras, downloads and disks produce them, from a seed.

python -m tests.pipelines.damaged FOLDER [COUNT]     for looking at them by hand
"""

from __future__ import annotations

import struct
import sys
from collections.abc import Callable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np

from embedded_corpus.clip import ClipSpec, render_clip
from embedded_corpus.voice import RATE

Frames = list[np.ndarray]
ODD_SIZES = (
    *((1, 1), (2, 2), (1, 200), (200, 1), (3, 5), (17, 33), (33, 17), (255, 257), (321, 241), (64, 48), (638, 362)),
    *((4096, 16), (16, 4096), (4096, 4096)),
)
# (suffix, encoder, pixel format, options): formats that cameras, editors and the web write
FORMATS = (
    ("mp4", "libx264", "yuv420p", {}),
    ("mp4", "libx264", "yuvj444p", {}),
    ("mp4", "libx264", "yuv420p10le", {}),
    ("mp4", "libx265", "yuv420p10le", {"x265-params": "log-level=error:pools=none:frame-threads=1"}),
    ("mp4", "libx264", "gray", {}),
    ("mp4", "libx264", "yuv420p", {"flags": "+ilme+ildct"}),
    ("mkv", "mpeg2video", "yuv420p", {"flags": "+ilme+ildct", "top": "1"}),
    ("mkv", "libx264rgb", "rgb24", {}),
    ("mov", "prores_ks", "yuva444p10le", {}),
    ("mov", "prores_ks", "yuv422p10le", {}),
    ("mov", "qtrle", "argb", {}),
    ("mov", "png", "rgba", {}),
    ("mkv", "ffv1", "bgra", {}),
    ("mkv", "ffv1", "gray16le", {}),
    ("mkv", "ffv1", "yuv411p", {}),
    ("mkv", "ffv1", "yuv410p", {}),
    ("mkv", "ffv1", "yuv440p", {}),
    ("avi", "ffv1", "yuv422p", {}),
    ("avi", "mpeg4", "yuv420p", {}),
    ("avi", "mjpeg", "yuvj422p", {}),
    ("avi", "rawvideo", "bgr24", {}),
    ("avi", "huffyuv", "rgb24", {}),
    ("mpg", "mpeg1video", "yuv420p", {}),
    ("ts", "mpeg2video", "yuv420p", {}),
    ("flv", "flv", "yuv420p", {}),
    ("wmv", "wmv2", "yuv420p", {}),
    ("webm", "libvpx-vp9", "yuva420p", {"cpu-used": "8"}),
    ("webm", "libvpx", "yuv420p", {"cpu-used": "8"}),
    ("nut", "utvideo", "yuv422p", {}),
    ("gif", "gif", "rgb8", {}),
)
WHOLE = ((0, "mp4"), (18, "avi"), (22, "mpg"), (24, "flv"), (27, "webm"), (6, "mkv"))  # of FORMATS: to be harmed
SOUND = {
    "webm": "libopus",
    "nut": "pcm_s16le",
    "flv": "libmp3lame",
    "mpg": "mp2",
    "ts": "mp2",
    "wmv": "libmp3lame",
    "avi": "libmp3lame",
}


def write_damaged(folder: Path, count: int = 200, seed: int = 0) -> list[str]:
    """Writes `count` files into `folder`; the same seed gives the same files. Returns their names."""
    folder.mkdir(parents=True, exist_ok=True)
    frames, sound = _face()
    makers = list(_odd(frames, sound))
    wholes = {suffix: _encode(frames, sound, *FORMATS[k]) for k, suffix in WHOLE}
    makers += list(_swapped(wholes))
    rng = np.random.default_rng(seed)
    while len(makers) < count:
        kind = list(wholes)[len(makers) % len(wholes)]
        data, harm = wholes[kind], ("flip", "cut", "hole", "shuffle")[len(makers) // len(wholes) % 4]
        makers.append((f"{harm}.{kind}", lambda data=data, harm=harm: _harm(data, harm, rng)))
    names = []
    for index, (name, make) in enumerate(makers[:count]):
        names.append(f"{index:03d}_{name}")
        (folder / names[-1]).write_bytes(make())
    return names


def _face() -> tuple[Frames, np.ndarray]:
    """A second of the embedded corpus at 320x240 and 30 frames/s, and its sound at 48 kHz."""
    spec = ClipSpec("M901", "happy", 2, 1, ("s01", "s02"), 0.8, 320, 240)
    frames, sound, _ = render_clip(spec)
    return list(frames), sound


def _odd(frames: Frames, sound: np.ndarray) -> Iterator[tuple[str, Callable[[], bytes]]]:
    for suffix, codec, pixels, options in FORMATS:
        yield f"{codec}-{pixels}.{suffix}", lambda a=(suffix, codec, pixels, options): _encode(frames, sound, *a)
    for size in ODD_SIZES:
        few = frames[:6] if max(size) > 1000 else frames
        scaled = [cv2.resize(f, size) for f in few]
        yield f"{size[0]}x{size[1]}.mov", lambda s=scaled: _encode(s, sound, "mov", "png", "rgb24", {})
    for rate in (1, 5, 15, Fraction(24000, 1001), 29.97, 50, 120, 240):
        yield f"rate-{float(rate):.0f}.mp4", lambda r=rate: _encode(frames, sound, *FORMATS[0], rate=r)
    for times in ("jitter", "pauses", "backwards"):
        yield f"times-{times}.mkv", lambda t=times: _encode(frames, sound, "mkv", "mpeg4", "yuv420p", {}, times=t)
    for turns in (1, 2, 3):
        turned = [np.ascontiguousarray(np.rot90(f, turns)) for f in frames]
        yield f"phone-{90 * turns}.mp4", lambda f=turned, t=turns: _turn(_encode(f, sound, *FORMATS[0]), t)
    yield "zero-sound.mp4", lambda: _encode(frames, sound[:0], *FORMATS[0])
    yield "no-sound.mp4", lambda: _encode(frames, None, *FORMATS[0])
    yield "zero-picture.mkv", lambda: _encode([], sound, *FORMATS[6])
    yield "one-frame.mp4", lambda: _encode(frames[:1], sound, *FORMATS[0])
    yield "black.mp4", lambda: _encode([f * 0 for f in frames], sound, *FORMATS[0])
    yield (
        "size-changes.ts",
        lambda: (
            _encode(frames, sound, *FORMATS[23])
            + _encode([cv2.resize(f, (176, 144)) for f in frames], sound, *FORMATS[23])
        ),
    )
    yield "empty.mp4", lambda: b""
    yield "zeros.mp4", lambda: bytes(5000)
    yield "text.mp4", lambda: b"not a video\n" * 40
    yield (
        "pointer.mp4",
        lambda: b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n",
    )
    yield "page.mp4", lambda: b"<!DOCTYPE html><html><title>Quota exceeded</title></html>"


def _swapped(wholes: dict[str, bytes]) -> Iterator[tuple[str, Callable[[], bytes]]]:
    kinds = list(wholes)
    for k, kind in enumerate(kinds):
        other = kinds[(k + 1) % len(kinds)]
        yield f"really-{other}.{kind}", lambda o=other: wholes[o]
        yield f"twice.{kind}", lambda k=kind: wholes[k] + wholes[k]
        yield f"tail-of-zeros.{kind}", lambda k=kind: wholes[k] + bytes(100_000)
        yield f"head-of-zeros.{kind}", lambda k=kind: bytes(512) + wholes[k]


def _harm(data: bytes, harm: str, rng: np.random.Generator) -> bytes:
    if harm == "cut":
        return data[: int(len(data) * rng.uniform(0.02, 0.98))]
    out = np.frombuffer(data, np.uint8).copy()
    if harm == "flip":
        at = rng.integers(0, len(out), int(10 ** rng.uniform(0, 3)))
        out[at] ^= (1 << rng.integers(0, 8, len(at))).astype(np.uint8)
    else:
        size = int(len(out) * rng.uniform(0.01, 0.3))
        start = int(rng.integers(0, len(out) - size))
        if harm == "hole":
            out[start : start + size] = 0
        else:
            rng.shuffle(out[start : start + size])
    return out.tobytes()


def _encode(
    frames: Frames,
    sound: np.ndarray | None,
    suffix: str,
    codec: str,
    pixels: str,
    options: dict[str, str],
    rate: Any = 30,
    times: str = "",
) -> bytes:
    """The file's bytes. `times`: off their grid by part of a frame, with pauses, or going backwards in places."""
    import tempfile

    rng = np.random.default_rng(1)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"a.{suffix}"
        with av.open(path, "w") as out:
            stream: Any = out.add_stream(codec, rate=Fraction(rate).limit_denominator(1001), options=options)
            stream.width, stream.height = (frames[0].shape[1], frames[0].shape[0]) if frames else (320, 240)
            stream.pix_fmt = pixels
            stream.codec_context.thread_count = 1
            if times:
                stream.codec_context.time_base = Fraction(1, 1000)
            track: Any = None
            if sound is not None and suffix != "gif":
                track = out.add_stream(SOUND.get(suffix, "aac"), rate=RATE)
            for k, rgb in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(rgb, format="rgb24").reformat(format=pixels)
                if times:
                    step = 33 * (k + {"jitter": 0.4 * rng.random(), "pauses": 9 * (k // 7)}.get(times, 0))
                    frame.pts, frame.time_base = round(step), Fraction(1, 1000)
                for packet in stream.encode(frame):
                    if times == "backwards" and k % 7 == 3:
                        packet.pts = packet.dts = max(0, packet.pts - 99)
                    _mux(out, packet)
            for packet in stream.encode(None):
                _mux(out, packet)
            if track is not None:
                if len(sound if sound is not None else ()):
                    chunk = av.AudioFrame.from_ndarray(np.ascontiguousarray(sound).reshape(1, -1), "s16", "mono")
                    chunk.sample_rate, chunk.pts = RATE, 0
                    fifo = av.AudioResampler(
                        format=track.codec_context.format, layout="mono", rate=RATE, frame_size=track.frame_size or 1024
                    )
                    for part in (*fifo.resample(chunk), *fifo.resample(None)):
                        out.mux(track.encode(part))
                out.mux(track.encode(None))
        return path.read_bytes()


def _mux(out: Any, packet: Any) -> None:
    try:
        out.mux(packet)
    except av.error.FFmpegError:  # times that go backwards: the muxer refuses that one packet
        pass


def _turn(mp4: bytes, turns: int) -> bytes:
    """The mp4 with a display matrix of `turns` quarter turns in its first track, as phones write it."""
    at = mp4.index(b"tkhd") + 4
    matrix_at = at + (52 if mp4[at] == 1 else 40)
    one = 0x10000
    a, b, c, d = {1: (0, one, -one, 0), 2: (-one, 0, 0, -one), 3: (0, -one, one, 0)}[turns]
    matrix = struct.pack(">9i", a, b, 0, c, d, 0, 0, 0, 0x40000000)
    return mp4[:matrix_at] + matrix + mp4[matrix_at + len(matrix) :]


if __name__ == "__main__":
    for name in write_damaged(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 200):
        print(name)
