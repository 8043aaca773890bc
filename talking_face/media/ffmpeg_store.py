"""Writes the pictures of the mp4 file that `ffmpeg -i IN -r 25 OUT.mp4` writes: H.264 with the defaults of FFmpeg.

Some published evaluations score such files. The step lowers the detail of a picture; PSNR can change by 1 dB.

A new Python process decodes and encodes. x264 reads memory behind a picture that it did not write (its option mbtree).
In a new process this memory is zero, as in the command, so that the pictures are equal to the last bit if the x264 is
the same. In a process that has used the memory before, they would differ by about 1 of 255 levels from run to run.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict
from fractions import Fraction
from itertools import chain
from pathlib import Path

import av
import av.filter
from av.codec.codec import find_best_pix_fmt_of_list
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange
from av.video.stream import VideoStream

from talking_face.media.container import MEDIA_ERRORS, message
from talking_face.media.limits import LIMITS, Limits
from talking_face.media.reading import iter_ffmpeg_frames
from talking_face.reasons import ClipError, Reason

# Large blocks of memory come from the kernel, which clears them, and are not used a second time.
_FRESH_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
_TURNS = {90: ("transpose", "cclock"), 180: ("hflip", None), 270: ("transpose", "clock")}


def store_as_ffmpeg(source: Path, out: Path, fps: int, limits: Limits = LIMITS) -> None:
    """Writes the pictures of `source` to the mp4 file `out`, without sound.

    Pictures that the container turns are stored upright. The pixel aspect is not stored, so that a reader returns the
    stored pixels, as the readers of the published evaluations do.

    Args:
        source: the video file.
        out: the file to write. It is replaced if it exists.
        fps: frames/s; the frames are those of `iter_pictures(..., choice="ffmpeg")`.
        limits: as in `iter_pictures`.

    Raises:
        ClipError: a reason of `iter_pictures`; decode-error if the encoder refuses the pictures, for example because
            their width or height is odd, as the command does.
    """
    order = json.dumps({"source": str(source), "out": str(out), "fps": fps, "limits": asdict(limits)})
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    environment |= _FRESH_MEMORY | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "talking_face.media.ffmpeg_store"],
        input=order,
        env=environment,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        said = json.loads(done.stdout) if done.stdout.startswith("{") else {}
        detail = said.get("detail") or f"{source}: its copy cannot be written ({done.stderr.strip()[-200:]})"
        raise ClipError(Reason(said.get("reason", Reason.CRASHED.value)), detail)


def _store(source: Path, out: Path, fps: int, limits: Limits) -> None:
    frames = (frame for frame, _ in iter_ffmpeg_frames(source, fps, limits))
    upright = _upright(frames)
    first = next(upright)
    with av.open(str(out), "w") as container:
        stream = container.add_stream("libx264", rate=fps)
        assert isinstance(stream, VideoStream)
        _set_up(stream, first)
        try:
            for k, shown in enumerate(chain([first], upright)):
                frame = shown
                if shown.format.is_rgb:  # as FFmpeg does; PyAV would keep the full range of RGB
                    frame = shown.reformat(format=stream.pix_fmt, dst_color_range=ColorRange.MPEG)
                frame.pts, frame.time_base = k, Fraction(1, fps)
                frame.pict_type = 0  # the encoder chooses; else it repeats the type in the source
                container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
        except MEDIA_ERRORS as error:
            raise ClipError(
                Reason.DECODE_ERROR, f"{source}: ffmpeg cannot store it as H.264 ({message(error)})"
            ) from None


def _set_up(stream: VideoStream, first: VideoFrame) -> None:
    """Gives the encoder what the command gives it: size, pixel format, and the colour properties of the source."""
    context = stream.codec_context
    stream.width, stream.height = first.width, first.height
    known = [item.name for item in context.codec.video_formats or ()]
    stream.pix_fmt = first.format.name if first.format.name in known else _nearest(first.format.name, known)
    context.thread_count, context.thread_type = 0, "FRAME"
    if not first.format.is_rgb:
        context.colorspace, context.color_range = first.colorspace, first.color_range
        context.color_primaries, context.color_trc = first.color_primaries, first.color_trc


def _nearest(name: str, known: list[str]) -> str:
    found, _ = find_best_pix_fmt_of_list(known, name)
    return "yuv420p" if found is None else found.name


def _upright(frames: Iterator[VideoFrame]) -> Iterator[VideoFrame]:
    """The frames, turned as the container states."""
    graph: av.filter.Graph | None = None
    for frame in frames:
        turn = round(frame.rotation / 90) * 90 % 360
        if not turn:
            yield frame
            continue
        if graph is None:
            graph = _turning(frame, turn)
        graph.push(frame)
        turned = graph.pull()
        assert isinstance(turned, VideoFrame)
        yield turned


def _turning(frame: VideoFrame, turn: int) -> av.filter.Graph:
    graph = av.filter.Graph()
    source = graph.add_buffer(width=frame.width, height=frame.height, format=frame.format, time_base=Fraction(1, 1000))
    name, how = _TURNS[turn]
    steps = [graph.add(name, how) if how else graph.add(name)]
    steps += [graph.add("vflip")] if turn == 180 else []
    graph.link_nodes(source, *steps, graph.add("buffersink")).configure()
    return graph


def main() -> None:
    """Stores one file as the order on standard input says. A ClipError is printed as JSON, with exit code 1."""
    order = json.load(sys.stdin)
    try:
        _store(Path(order["source"]), Path(order["out"]), order["fps"], Limits(**order["limits"]))
    except ClipError as error:
        print(json.dumps({"reason": error.reason.value, "detail": error.detail}))
        sys.exit(1)


if __name__ == "__main__":
    main()
