"""Decodes the frames of one picture track with their times, and refuses tracks that are cut, damaged or too large."""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from talking_face.media.container import MEDIA_ERRORS, display_size, message, pixel_aspect, unknown_codec
from talking_face.media.limits import Limits
from talking_face.reasons import ClipError, Reason
from talking_face.threads import codec_threads

# A file counts as truncated if the number of missing frames is above both limits: an absolute number and a share of the
# frames. The first limit is needed because the header of a complete file can state 1 or 2 frames too many.
_MAX_LOST_FRAMES = 2
_MAX_LOST_SHARE = 0.05
_MAX_LOST_S = Fraction(1, 10)  # in place of a number of frames, for containers that state only the length in seconds
# s. A frame that is not later than the previous frame is skipped. If the times go back by more than this limit, the
# file probably holds two recordings, and is refused.
_BACK_S = 1


class Decoder:
    """Decodes the picture track of an open container once, from its beginning.

    Attributes:
        aspect: width of a pixel over its height.
    """

    def __init__(self, container: InputContainer, stream: VideoStream, name: str, limits: Limits) -> None:
        """`name`: the file's name, for error messages. Raises ClipError: too-large or decode-error."""
        self._container, self._stream, self._name, self._limits = container, stream, name, limits
        context: object = stream.codec_context  # PyAV's type does not state that this can be None
        if context is None:
            raise unknown_codec(name, "picture")
        self.aspect = pixel_aspect(stream)[0]
        self._check_size(stream.codec_context.width, stream.codec_context.height)
        # An AVI file stores a frame rate, but not the times of the frames. If the video has B-frames, the times that
        # FFmpeg derives are in coding order. Therefore the time of an AVI frame is computed from the frame's index.
        self._timed = container.format.name != "avi"
        self._step = 1 / Fraction(stream.average_rate or stream.guessed_rate or 25)  # s
        stream.codec_context.thread_count = codec_threads()
        stream.codec_context.thread_type = "AUTO" if codec_threads() > 1 else "NONE"
        stream.codec_context.options = {"max_pixels": str(limits.pixels)}
        self._count = 0  # number of decoded frames
        self._first: Fraction | None = None  # time of the first frame, s
        self._last: Fraction | None = None  # time of the last frame that was yielded, s

    def first_time(self) -> Fraction:
        """Time of the first frame, s, or 0 if there is no frame. Raises ClipError: decode-error."""
        return next((time for time, _ in self._decode(_Packets())), Fraction(0))

    def rotation(self) -> int:
        """The angle by which the container turns the frames, in degrees; 0 if no frame can be decoded."""
        try:
            return next((frame.rotation for _, frame in self._decode(_Packets())), 0)
        except ClipError:
            return 0

    def frames(self) -> Iterator[tuple[Fraction, VideoFrame]]:
        """Yields (presentation time in s, frame) for each frame that is shown. The times increase.

        Raises ClipError: truncated, decode-error, too-long or too-large. The length in the header is checked
        before the first frame is decoded.
        """
        check_length(self._container, self._stream, self._name, self._limits)
        packets = _Packets()
        expected = self._expected_packets()
        yield from self._decode(packets)
        self._check_complete(packets, expected)

    def _decode(self, packets: _Packets) -> Iterator[tuple[Fraction, VideoFrame]]:
        size: tuple[int, int] | None = None
        try:
            for packet in self._container.demux():
                packets.add(packet, self._stream)
                if packet.stream is not self._stream:
                    continue
                for frame in self._stream.decode(packet):
                    size = self._same_size(frame, size)
                    time = self._time(frame)
                    self._count += 1
                    if time is not None:
                        yield time, frame
        except MEDIA_ERRORS as error:
            reason = Reason.TRUNCATED if self._count else Reason.DECODE_ERROR
            detail = f"{self._name} stops decoding after {self._count} frames ({message(error)})"
            raise ClipError(reason, detail) from None

    def _time(self, frame: VideoFrame) -> Fraction | None:
        """The time of a decoded frame, s; None if it is skipped. Raises ClipError: decode-error or too-long."""
        if not self._timed:
            time = self._count * self._step
        elif frame.pts is not None and frame.time_base is not None:
            time = frame.pts * Fraction(frame.time_base)
        else:
            time = Fraction(0) if self._last is None else self._last + self._step
        first = self._first = time if self._first is None else self._first
        if self._last is not None:
            gap = time - self._last
            if gap < -_BACK_S or gap > self._limits.gap_s:
                raise jump(self._name, self._count, gap)
            if gap <= 0:
                return None
        if time - first > self._limits.seconds:
            raise too_long(self._name, self._limits)
        self._last = time
        return time

    def _same_size(self, frame: VideoFrame, size: tuple[int, int] | None) -> tuple[int, int]:
        now = frame.width, frame.height
        if size is None:
            self._check_size(*now)
        elif now != size:
            detail = (
                f"{self._name}: its picture changes from {size[0]}x{size[1]} to {now[0]}x{now[1]} px "
                f"after {self._count} frames"
            )
            raise ClipError(Reason.DECODE_ERROR, detail)
        return now

    def _check_size(self, width: int, height: int) -> None:
        width, height = display_size(width, height, self.aspect)
        if width * height > self._limits.pixels:
            detail = f"{self._name}: its picture has {width}x{height} px; at most {self._limits.pixels} px are taken"
            raise ClipError(Reason.TOO_LARGE, detail)

    def _expected_packets(self) -> int:
        """The number of packets of a complete track; 0 if the header does not state it.

        The edit list of an mp4 can leave out packets. The index counts the packets that remain, and the packets
        that are needed to decode them.
        """
        indexed = self._container.format.name.startswith("mov") and self._stream.frames
        return len(self._stream.index_entries) if indexed else self._stream.frames

    def _check_complete(self, packets: _Packets, expected: int) -> None:
        tolerance = max(_MAX_LOST_FRAMES, _MAX_LOST_SHARE * expected)
        if expected - packets.count > tolerance:
            detail = f"{self._name} has {packets.count} of the {expected} frames its header counts; fetch it again"
            raise ClipError(Reason.TRUNCATED, detail)
        shown = packets.count - packets.hidden
        if expected and shown - self._count > tolerance:
            detail = f"{self._name} gives {self._count} of its {shown} frames; it is damaged, fetch it again"
            raise ClipError(Reason.TRUNCATED, detail)
        # Matroska and WebM files do not state the number of frames. They state the length of the file in s, including
        # the sound. Therefore the stated length is compared with the end of the last packet of all streams.
        stated = Fraction(self._container.duration or 0, av.time_base)
        if (
            not self._stream.frames
            and stated
            and packets.seconds < stated * Fraction(1 - _MAX_LOST_SHARE) - _MAX_LOST_S
        ):
            detail = (
                f"{self._name} ends after {float(packets.seconds):.2f} of the {float(stated):.2f} s in its header; "
                "fetch it again"
            )
            raise ClipError(Reason.TRUNCATED, detail)


class _Packets:
    """Counts the packets of one track, and measures the time from the first to the last packet of all tracks.

    Attributes:
        count: number of packets of the track.
        hidden: number of these packets that are decoded and not shown, because an edit list begins after them.
    """

    def __init__(self) -> None:
        self.count = self.hidden = 0
        self._first: Fraction | None = None
        self._end = Fraction(0)

    @property
    def seconds(self) -> Fraction:
        """Time from the first packet to the end of the last packet, s."""
        return self._end - (self._first or 0)

    def add(self, packet: Packet, track: VideoStream) -> None:
        """Uses the times of a packet of any track. Counts the packet if it belongs to `track`."""
        if packet.pts is not None and packet.time_base is not None:
            at = packet.pts * Fraction(packet.time_base)
            self._first = at if self._first is None else min(self._first, at)
            self._end = max(self._end, at + (packet.duration or 0) * Fraction(packet.time_base))
        if packet.stream is track and packet.size:
            self.count += 1
            self.hidden += packet.is_discard


def check_length(container: InputContainer, stream: VideoStream | None, name: str, limits: Limits) -> None:
    """Raises ClipError (too-long) if the length in the header is above the limit.

    The length of the track is compared, or the length of the file if the header does not state the track's length.
    """
    stated = Fraction(container.duration or 0, av.time_base)
    if stream is not None and stream.duration and stream.time_base:
        stated = stream.duration * Fraction(stream.time_base)
    if stated > limits.seconds:
        raise too_long(name, limits, stated)


def last_frame_length(frame: VideoFrame, fallback: Fraction, name: str, limits: Limits) -> Fraction:
    """The time for which the last frame is shown, s; `fallback` if the frame does not state it.

    Raises ClipError (decode-error) if the frame is shown for longer than `limits.gap_s`.
    """
    length = fallback
    if frame.duration and frame.time_base:
        length = frame.duration * Fraction(frame.time_base)
    if length > limits.gap_s:
        detail = f"{name}: its last frame is shown for {float(length):.1f} s; its times are damaged"
        raise ClipError(Reason.DECODE_ERROR, detail)
    return length


def too_long(name: str, limits: Limits, stated: Fraction | None = None) -> ClipError:
    """The error for media above `limits.seconds`. `stated`: the length that the header states, s."""
    if stated is not None:
        detail = f"{name} lasts {float(stated):.1f} s; at most {limits.seconds:g} s are taken"
    else:
        detail = f"{name} lasts more than {limits.seconds:g} s, which is what is taken"
    return ClipError(Reason.TOO_LONG, detail)


def jump(name: str, count: int, gap: Fraction) -> ClipError:
    """The error for a track whose times jump by `gap` s after `count` frames."""
    how = f"jump by {float(gap):.1f} s" if gap > 0 else f"go back by {float(-gap):.1f} s"
    return ClipError(Reason.DECODE_ERROR, f"{name}: its times {how} after {count} frames; the file is damaged")
