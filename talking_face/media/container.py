"""Opens media containers safely, and chooses the picture track and the sound track that every reader uses."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fractions import Fraction
from typing import TypeVar

import av
import av.error
from av.audio.stream import AudioStream
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from talking_face.media.limits import Limits
from talking_face.media.source import Source, as_source, open_source
from talking_face.reasons import ClipError, Reason

# The allowed demuxers of FFmpeg. Each reads one file that contains the media itself. Other demuxers are not allowed,
# because some open the files or addresses that their input lists: for example concat, hls, dash, image2, sdp and imf.
_DEMUXERS = (
    *("mov", "matroska", "avi", "mpegts", "mpeg", "mpegvideo", "flv", "asf", "ogg", "mxf", "dv", "nut", "gif", "rm"),
    *("yuv4mpegpipe", "wav", "w64", "mp3", "flac", "aac", "ac3", "eac3", "aiff", "au", "caf", "amr"),
)
# Errors that PyAV raises while it opens or decodes a damaged file. A ValueError occurs for parameters that FFmpeg's
# libraries do not accept.
MEDIA_ERRORS = (av.error.FFmpegError, OSError, ValueError, OverflowError)
_NO_PICTURE = Disposition.attached_pic | Disposition.timed_thumbnails
_SIDE_SOUND = Disposition.comment | Disposition.visual_impaired | Disposition.descriptions | Disposition.dependent
_STILL_CODECS = frozenset({"png", "mjpeg", "bmp", "gif", "webp", "tiff", "apng", "jpegxl"})
_MAX_ASPECT = 3  # the largest ratio of a pixel's sides that is used; anamorphic films have 2

Track = TypeVar("Track", VideoStream, AudioStream)


@contextmanager
def open_container(source: Source, limits: Limits) -> Iterator[InputContainer]:
    """The opened container of a source. Only the bytes of the source are read: no other file, and no network.

    Raises ClipError: not-media, truncated, or a reason of `open_source`.
    """
    source = as_source(source)
    with open_source(source) as file:
        try:
            container = av.open(file, "r", options=demuxer_options(limits), metadata_errors="ignore")
        except MEDIA_ERRORS as error:
            file.seek(0)
            if file.read(12)[4:8] in (b"ftyp", b"moov", b"mdat"):
                detail = f"{source} is an mp4 without a readable index (moov): cut while copying; fetch it again"
                raise ClipError(Reason.TRUNCATED, detail) from None
            raise ClipError(Reason.NOT_MEDIA, f"{source} is not audio or video ({message(error)})") from None
        with container:
            yield container


def demuxer_options(limits: Limits) -> dict[str, str]:
    """Options of `av.open` for a file object. With them, FFmpeg uses only `_DEMUXERS`, and no other file or address."""
    return {
        "format_whitelist": ",".join(_DEMUXERS),
        "protocol_whitelist": "none",  # a file object needs no protocol of FFmpeg
        # FFmpeg decodes some frames when it opens a file, to find the stream's parameters. This limits them too.
        "max_pixels": str(limits.pixels),
    }


def picture_track(container: InputContainer) -> VideoStream | None:
    """The track with the moving picture; None if there is none.

    Cover pictures and thumbnails are not used. A track with one frame is used only if there is no other. Among several
    tracks, the container's default track is used, or else the first.
    """
    moving = [stream for stream in container.streams.video if not stream.disposition & _NO_PICTURE]
    return min(moving, key=_picture_rank, default=None)


def sound_track(container: InputContainer) -> AudioStream | None:
    """The sound track to use; None if no sound track has a codec that FFmpeg knows.

    Commentaries and descriptions for blind people are used only if there is no other track. Among several tracks, the
    container's default track is used, or else the first.
    """
    return min(known_sound(container), key=_sound_rank, default=None)


def known_sound(container: InputContainer) -> list[AudioStream]:
    """The sound tracks in a codec that FFmpeg knows. The codec is unknown if the header of the track is damaged."""
    return [stream for stream in container.streams.audio if _has_codec(stream)]


def track_note(kind: str, chosen: Track | None, tracks: Sequence[Track]) -> list[str]:
    """A note that names the track in use, for example `sound-track-1-of-2`; empty if there is only one track."""
    if chosen is None or len(tracks) < 2:
        return []
    return [f"{kind}-track-{1 + [one.index for one in tracks].index(chosen.index)}-of-{len(tracks)}"]


def pixel_aspect(stream: VideoStream) -> tuple[Fraction, list[str]]:
    """The width of a pixel over its height, and notes.

    A ratio above 3 or below 1/3 counts as damage. The result is then 1, with a note.
    """
    aspect = Fraction(stream.sample_aspect_ratio or 1)
    if aspect <= 0 or not Fraction(1, _MAX_ASPECT) <= aspect <= _MAX_ASPECT:
        return Fraction(1), [f"pixel-aspect-{aspect.numerator}:{aspect.denominator}-ignored"]
    return aspect, [f"pixel-aspect-{aspect.numerator}:{aspect.denominator}"] if aspect != 1 else []


def display_size(width: int, height: int, aspect: Fraction) -> tuple[int, int]:
    """The width and height of the picture, px, with square pixels and before rotation.

    One side is enlarged, and the other side keeps its size, so that no detail is lost. The enlarged side is rounded to
    an even number, because in the usual formats 2 px share one chroma sample. If the change is less than 1 px, the size
    stays the same.
    """
    wide, high = (width * aspect, Fraction(height)) if aspect > 1 else (Fraction(width), height / aspect)
    if max(wide - width, high - height) < 1:
        return width, height
    return (2 * round(wide / 2), height) if aspect > 1 else (width, 2 * round(high / 2))


def unknown_codec(source: Source, part: str) -> ClipError:
    """The error for a track whose codec is unknown. `part`: picture or sound."""
    detail = f"{as_source(source)}: its {part} is in a format that FFmpeg does not know: the file is damaged"
    return ClipError(Reason.DECODE_ERROR, detail)


def message(error: Exception) -> str:
    """The message of an FFmpeg error without the error number and the file name."""
    return getattr(error, "strerror", None) or str(error)


def _picture_rank(stream: VideoStream) -> tuple[bool, bool, bool, bool, int]:
    still = stream.frames == 1 or bool(stream.disposition & Disposition.still_image)
    codec = stream.codec_context.name if _has_codec(stream) else ""
    picture_codec = not stream.frames and codec in _STILL_CODECS
    return not codec, still, picture_codec, not stream.disposition & Disposition.default, stream.index


def _sound_rank(stream: AudioStream) -> tuple[bool, bool, int]:
    side = bool(stream.disposition & _SIDE_SOUND)
    return side, not stream.disposition & Disposition.default, stream.index


def _has_codec(stream: VideoStream | AudioStream) -> bool:
    context: object = stream.codec_context  # PyAV's type does not state that this can be None
    return context is not None
