"""Encodes the face crops of a clip for storage in shards, and decodes the stored crops. Each format has a named codec.

A codec name is `<kind>-<parameter>`, for example `x264-q14`. Encoded frames are a list of byte strings. A still-image
codec gives one byte string per frame. A video codec gives one byte string per clip: an mp4 or mkv file in memory. The
page on shards in docs/ compares the codecs in a table. `python -m cmet_pipelines.codec_table` prints this table.

Every encoder runs on one thread with bit-exact flags, so the same frames give the same bytes.
"""

from __future__ import annotations

import io
import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import cast

import av
import cv2
import numpy as np
import numpy.typing as npt
from av.video.stream import VideoStream

from talking_face.media.container import demuxer_options
from talking_face.media.limits import LIMITS

Frames = npt.NDArray[np.uint8]

DEFAULT_CODEC = "jpeg-q97"
LOSSLESS_CODEC = "ffv1"


@dataclass(frozen=True)
class FrameCodec:
    """One format in which frames are stored. Tests check that lossless codecs return the frames unchanged."""

    name: str
    kind: str  # png | webp | jpeg | jpeg420 | x264 | x264rgb | ffv1
    quality: int | None  # WebP and JPEG: quality 0..100; x264: constant quantiser or rate factor; None: lossless
    gop: int = 1  # distance between key frames, in frames; 1: every frame can be decoded alone

    @property
    def lossless(self) -> bool:
        """Whether decoding returns the frames unchanged."""
        return self.quality is None

    @property
    def per_frame(self) -> bool:
        """Whether each frame has its own byte string."""
        return self.kind in ("png", "webp", "jpeg", "jpeg420")

    def encode(self, frames: Iterable[Frames]) -> list[bytes]:
        """Encodes T >= 1 frames, each (H, W, 3) uint8 RGB. Returns T byte strings, or one for a video codec."""
        if self.per_frame:
            blobs = [_encode_image(frame, self.kind, self.quality) for frame in _checked(frames)]
        else:
            blobs = [_encode_video(_checked(frames), self)]
        if not blobs:
            raise ValueError("no frame to encode")
        return blobs

    def decode(self, blobs: Sequence[bytes], indices: Sequence[int] | None = None) -> Frames:
        """The frames: (N, H, W, 3) uint8 RGB, C-contiguous.

        Args:
            blobs: the byte strings that `encode` returned.
            indices: indices of the frames to decode, in the order of the result; None for all frames.

        Raises IndexError for an index outside the clip.
        """
        if self.per_frame:
            wanted = range(len(blobs)) if indices is None else indices
            return np.stack([_decode_image(blobs[index]) for index in wanted])
        return _decode_video(blobs[0], indices)


def get_codec(name: str) -> FrameCodec:
    """The codec with that name. Raises ValueError for an unknown name. The error message lists the known names."""
    match = re.fullmatch(r"(png|webp|jpeg|jpeg420|x264|x264rgb|ffv1)(?:-(lossless|q\d{1,3}))?(?:-gop(\d{1,3}))?", name)
    if match:
        kind, level, gop = match.group(1), match.group(2), int(match.group(3) or 1)
        quality = int(level[1:]) if level and level != "lossless" else None
        needs_quality = kind in ("jpeg", "jpeg420", "x264")
        never_quality = kind in ("png", "ffv1")
        top = 51 if kind.startswith("x264") else 100
        fits = quality is not None if needs_quality else quality is None or not never_quality
        if fits and (quality or 0) <= top:
            return FrameCodec(name, kind, quality, gop)
    raise ValueError(
        f"unknown frame codec {name!r}; use png, webp-lossless, webp-q<0-100>, jpeg-q<0-100>, jpeg420-q<0-100>, "
        f"x264-q<1-51>, x264rgb-q<1-51>, x264rgb-lossless or ffv1 (x264 forms also with -gop<N>); "
        f"the default is {DEFAULT_CODEC}"
    )


def _checked(frames: Iterable[Frames]) -> Iterator[Frames]:
    for frame in frames:
        if frame.ndim != 3 or frame.shape[-1] != 3 or frame.dtype != np.uint8:
            raise ValueError(f"a frame must be (H, W, 3) uint8, got {frame.shape} {frame.dtype}")
        yield frame


# -- still images ------------------------------------------------------------------------------------------------------


def _encode_image(frame: Frames, kind: str, quality: int | None) -> bytes:
    if kind == "png":
        suffix, options = ".png", [cv2.IMWRITE_PNG_COMPRESSION, 3]
    elif kind == "webp":
        suffix, options = ".webp", [cv2.IMWRITE_WEBP_QUALITY, 101 if quality is None else quality]  # 101 is lossless
    else:
        sampling = cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444 if kind == "jpeg" else cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420
        suffix = ".jpg"
        options = [cv2.IMWRITE_JPEG_QUALITY, cast(int, quality), cv2.IMWRITE_JPEG_SAMPLING_FACTOR, sampling]
    done, data = cv2.imencode(suffix, cv2.cvtColor(frame, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise ValueError(f"OpenCV could not encode a {frame.shape} frame as {kind}")
    return data.tobytes()


def _decode_image(data: bytes) -> Frames:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise ValueError("a stored frame does not decode; the shard is damaged")
    return cast(Frames, cv2.cvtColor(image, cv2.COLOR_BGR2RGB))


# -- video in memory ---------------------------------------------------------------------------------------------------


def _encode_video(frames: Iterator[Frames], codec: FrameCodec) -> bytes:
    """A video file in memory, 25 frames/s. Raises ValueError if there is no frame."""
    first = next(frames, None)
    if first is None:
        raise ValueError("no frame to encode")
    encoder, pix_fmt, container = {
        "x264": ("libx264", "yuv444p", "mp4"),
        "x264rgb": ("libx264rgb", "rgb24", "mp4"),
        "ffv1": ("ffv1", "bgr0", "matroska"),
    }[codec.kind]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options={"fflags": "+bitexact"}) as out:
        stream = cast(VideoStream, out.add_stream(encoder, rate=25))
        stream.width, stream.height, stream.pix_fmt = first.shape[1], first.shape[0], pix_fmt
        stream.gop_size = codec.gop
        stream.codec_context.time_base = Fraction(1, 25)
        stream.thread_count = 1
        options: dict[str, object] = {"threads": "1", "flags": "+bitexact"}
        if codec.kind != "ffv1":
            quality = str(codec.quality or 0)
            # If every frame is a key frame, use a constant quantiser (qp) in place of a rate factor (crf), because the
            # encoder then does not need to analyse later frames.
            options |= {"preset": "veryfast", "crf" if codec.gop > 1 else "qp": quality, "bf": "0"}
            options["x264-params"] = f"keyint={codec.gop}:min-keyint={codec.gop}:scenecut=0:threads=1"
        stream.options = options
        if codec.kind == "x264":
            stream.codec_context.color_range = 2  # with 8 bits, the RGB's PSNR is 1 dB above that of limited range
            stream.codec_context.colorspace = 1  # BT.709
        for index, image in enumerate(itertools.chain([first], frames)):
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            if codec.kind == "x264":
                frame = frame.reformat(
                    format=pix_fmt, dst_colorspace="ITU709", dst_color_range="JPEG", interpolation="BICUBIC"
                )
            elif codec.kind == "ffv1":
                frame = frame.reformat(format=pix_fmt)
            frame.pts = index
            frame.time_base = Fraction(1, 25)
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()


def _decode_video(data: bytes, indices: Sequence[int] | None) -> Frames:
    """The frames at `indices` of a video file in memory; None for all frames.

    If the next index is less than 12 frames ahead, all frames up to this index are decoded, because a seek is slower.
    """
    with av.open(io.BytesIO(data), "r", options=demuxer_options(LIMITS)) as source:
        stream = source.streams.video[0]
        stream.thread_count = 1
        if indices is None:
            return np.stack([_to_rgb(frame) for frame in source.decode(stream)])
        found: dict[int, Frames] = {}
        base = cast(Fraction, stream.time_base)
        length = stream.frames or 1 << 30
        position = length  # of the frame that the decoder returns next; past the end, so that the first read seeks
        frames = iter(source.decode(stream))
        for index in sorted(set(indices)):
            if not 0 <= index < length:
                raise IndexError(f"frame {index} of a clip of {length}")
            if not position <= index < position + 12:  # decoding a dozen frames is faster than a seek
                source.seek(int(index / 25 / base), stream=stream)
                frames = iter(source.decode(stream))
            for frame in frames:
                position = round(float(cast(int, frame.pts) * base * 25))
                if position >= index:
                    break
            if position != index:
                raise IndexError(f"frame {index} is not in the clip")
            found[index] = _to_rgb(frame)
            position += 1
        return np.stack([found[index] for index in indices])


def _to_rgb(frame: av.VideoFrame) -> Frames:
    return np.ascontiguousarray(frame.to_ndarray(format="rgb24"))
