"""Decodes video files of any format to RGB frames at exact times, and to 16 kHz mono sound that starts with frame 0.

Only this module decodes media. The module returns C-contiguous arrays. PyAV can return a strided view, for example for
a clip that is 360 px wide, and MediaPipe would read a strided view as noise without an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from math import gcd

import av
import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from talking_face.media.picture import Picture, Scaler, picture_of
from talking_face.media.source import Source, as_source, open_source
from talking_face.reasons import ClipError, Reason
from talking_face.threads import codec_threads

FPS = 25.0  # frames/s; all methods and metrics of the field that use SyncNet assume 25
AUDIO_RATE = 16000  # Hz; sample rate of all stored, scored and generated sound
# A file counts as truncated if the number of missing frames is above both limits: an absolute number and a share of the
# frames. The first limit is needed because the header of a complete file can state 1 or 2 frames too many.
_MAX_LOST_FRAMES = 2
_MAX_LOST_SHARE = 0.05
_MAX_LOST_S = Fraction(1, 10)  # in place of a number of frames, for containers that state only the length in seconds
# s; a longer time between two audio frames is a gap. Shorter times also occur without a gap, because timestamps are
# rounded.
_AUDIO_GAP_S = 0.02


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """Header of the first video stream, before rotation."""

    width: int
    height: int
    fps: float
    codec: str
    pix_fmt: str
    n_frames: int  # 0 if the header does not state the number of frames


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Header of the first audio stream."""

    rate: int  # Hz
    channels: int
    layout: str
    codec: str


@dataclass(frozen=True, slots=True)
class MediaInfo:
    """Header of one file. `duration` is in seconds; 0 if the duration is unknown."""

    container: str
    duration: float
    video: VideoInfo | None
    audio: AudioInfo | None


def probe(source: Source) -> MediaInfo:
    """Read the headers of `source` without decoding. Raises ClipError if `source` is not a readable media file."""
    with _open(source) as container:
        video = audio = None
        if container.streams.video:
            stream = container.streams.video[0]
            context = stream.codec_context
            if context is None:
                raise _unknown_codec(source, "picture")
            video = VideoInfo(
                width=context.width,
                height=context.height,
                fps=float(stream.average_rate or stream.guessed_rate or 0),
                codec=context.name,
                pix_fmt=context.pix_fmt or "unknown",
                n_frames=stream.frames,
            )
        context_a = container.streams.audio[0].codec_context if container.streams.audio else None
        if context_a is not None:  # sound in an unknown codec is treated as absent
            audio = AudioInfo(
                rate=context_a.sample_rate,
                channels=context_a.layout.nb_channels,
                layout=context_a.layout.name,
                codec=context_a.name,
            )
        duration = container.duration / av.time_base if container.duration else 0.0
        return MediaInfo(container=container.format.name, duration=duration, video=video, audio=audio)


def iter_pictures(source: Source, fps: float | None = FPS) -> Iterator[Picture]:
    """Decode the first video stream and yield pictures at constant time steps.

    Only one source frame is in memory at a time.

    Args:
        source: file or tar member.
        fps: output rate in frames/s. Output frame k is the source frame that is nearest to the time k/fps after the
            first frame. If two source frames are equally near, the earlier frame is used. The time error is at most
            half a source frame. The number of output frames is the stream's length times fps, rounded, and at least 1.
            If `fps` is None, each source frame is yielded once.

    Yields:
        Upright pictures: the rotation that the container states is applied. Colours are converted with the colour
        matrix and range that the stream states. If the stream states no matrix, BT.601 is used, as in FFmpeg. If a
        source frame is used several times, the same object is yielded several times.

    Raises:
        ClipError: no-video, truncated, decode-error, or a reason of `open_source`.
    """
    scaler = Scaler()
    if fps is None:
        for _, frame in _decoded(source):
            yield picture_of(frame, scaler)
        return
    rate = Fraction(fps).limit_denominator(1001 * 240)
    k = 0
    previous: tuple[Fraction, VideoFrame] | None = None
    step = Fraction(1) / rate
    source_step = step
    origin = Fraction(0)
    for time, frame in _decoded(source):
        if previous is None:
            origin = time
        else:
            source_step = time - previous[0] if time > previous[0] else source_step
            middle = (previous[0] + time) / 2 - origin
            picture: Picture | None = None
            while k * step <= middle:
                picture = picture_of(previous[1], scaler) if picture is None else picture
                yield picture
                k += 1
        previous = (time, frame)
    if previous is None:
        raise ClipError(Reason.DECODE_ERROR, f"{as_source(source)} has a video stream without a frame")
    time, frame = previous
    length = time - origin + _duration(frame, source_step)
    total = max(1, int(length * rate + Fraction(1, 2)))
    if k < total:
        picture = picture_of(frame, scaler)
        for _ in range(total - k):
            yield picture


def iter_frames(source: Source, fps: float | None = FPS) -> Iterator[np.ndarray]:
    """The pictures of `iter_pictures` as (H, W, 3) uint8 RGB, C-contiguous. Repeated frames share one array."""
    last: tuple[Picture, np.ndarray] | None = None
    for picture in iter_pictures(source, fps):
        if last is None or picture is not last[0]:
            last = (picture, picture.rgb())
        yield last[1]


def read_frames(source: Source, fps: float | None = FPS) -> np.ndarray:
    """All frames of `iter_frames`, (T, H, W, 3) uint8 RGB. For long clips, `iter_frames` itself needs less memory."""
    frames = list(iter_frames(source, fps))
    if not frames:
        raise ClipError(Reason.DECODE_ERROR, f"{as_source(source)} has a video stream without a frame")
    return np.stack(frames)


def read_audio(source: Source, rate: int = AUDIO_RATE, start: float | Fraction | None = None) -> np.ndarray:
    """Decode the first audio stream to mono at `rate`.

    Args:
        source: file or tar member, with or without video.
        rate: sample rate of the result, Hz.
        start: time of sample 0, in seconds on the file's own clock. The default is the time of the first video frame,
            or 0 if the file has no video; sample n then belongs to the time n/rate after the first video frame. If the
            sound starts after `start`, zeros are added before the sound. Sound before `start` is removed.

    Returns:
        (N,) int16. Surround sound is converted to mono by taking the centre channel, which contains the speech. Other
        channel layouts are converted to mono by the mean of the channels. The sample rate is changed with a zero-phase
        polyphase filter, which adds no delay.

    Raises:
        ClipError: no-audio, decode-error, or a reason of `open_source`.
    """
    # scipy is imported inside the function, because the import takes 40 ms and callers that read only pictures do not
    # need scipy.
    from scipy.signal import resample_poly

    with _open(source) as container:
        if not container.streams.audio:
            raise ClipError(Reason.NO_AUDIO, f"{as_source(source)} has no sound")
        if container.streams.audio[0].codec_context is None:
            raise _unknown_codec(source, "sound")
        if start is None:
            start = _first_video_time(container, source) if container.streams.video else Fraction(0)
    # The file is opened again, because FFmpeg cannot seek to a time before the first picture of an FLV file.
    with _open(source) as container:
        native, native_rate = _decode_mono(container, source, Fraction(start))
    if native_rate != rate:
        common = gcd(rate, native_rate)
        native = resample_poly(native, rate // common, native_rate // common).astype(np.float32)
    return np.clip(np.rint(native * 32768.0), -32768, 32767).astype(np.int16)


@contextmanager
def _open(source: Source) -> Iterator[InputContainer]:
    """The opened container of a source. An error of FFmpeg is converted to a ClipError with a reason."""
    source = as_source(source)
    with open_source(source) as target:
        head = b""
        try:
            container = av.open(target, "r", metadata_errors="ignore")
        except (av.error.FFmpegError, OSError, ValueError) as error:
            with open_source(source) as again:
                if isinstance(again, str):
                    with open(again, "rb") as file:  # noqa: PTH123 - target may be a file object
                        head = file.read(12)
                else:
                    head = again.read(12)
            if head[4:8] in (b"ftyp", b"moov", b"mdat"):
                raise ClipError(
                    Reason.TRUNCATED, f"{source} is an mp4 without its index (moov): cut while copying; fetch it again"
                ) from None
            raise ClipError(Reason.NOT_MEDIA, f"{source} is not audio or video ({_message(error)})") from None
        with container:
            yield container


def _decoded(source: Source) -> Iterator[tuple[Fraction, VideoFrame]]:
    """Yields (presentation time in s, frame) for each frame of the first video stream.

    Raises ClipError if the file is truncated or damaged.
    """
    name = as_source(source)
    with _open(source) as container:
        if not container.streams.video:
            raise ClipError(Reason.NO_VIDEO, f"{name} has no picture")
        stream = container.streams.video[0]
        if stream.codec_context is None:
            raise _unknown_codec(source, "picture")
        stream.codec_context.thread_count = codec_threads()
        stream.codec_context.thread_type = "AUTO" if codec_threads() > 1 else "NONE"
        # An AVI file stores a frame rate, but not the times of the frames. If the video has B-frames, the times that
        # FFmpeg derives are in coding order. Therefore the time of an AVI frame is computed from the frame's index.
        timed = container.format.name != "avi"
        count = 0
        last: Fraction | None = None
        first: Fraction | None = None
        end = Fraction(0)
        try:
            for packet in container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    at = packet.pts * Fraction(packet.time_base)
                    first = at if first is None else min(first, at)
                    end = max(end, at + (packet.duration or 0) * Fraction(packet.time_base))
                if packet.stream is not stream:
                    continue
                for frame in stream.decode(packet):
                    time = _time(frame, stream, count, timed)
                    if last is not None and time <= last:
                        continue  # skip a frame whose time is not later than the time of the previous frame
                    last = time
                    count += 1
                    yield time, frame
        except av.error.FFmpegError as error:
            reason = Reason.TRUNCATED if count else Reason.DECODE_ERROR
            raise ClipError(reason, f"{name} stops decoding after {count} frames ({_message(error)})") from None
        lost = stream.frames - count
        if lost > max(_MAX_LOST_FRAMES, _MAX_LOST_SHARE * stream.frames):
            raise ClipError(
                Reason.TRUNCATED,
                f"{name} gives {count} of the {stream.frames} frames its header counts; fetch it again",
            )
        # Matroska and WebM files do not state the number of frames. They state the length of the file in s, including
        # the sound. Therefore the stated length is compared with the end of the last packet of all streams.
        stated = Fraction(container.duration or 0, av.time_base)
        if not stream.frames and stated and end - (first or 0) < stated * Fraction(1 - _MAX_LOST_SHARE) - _MAX_LOST_S:
            raise ClipError(
                Reason.TRUNCATED,
                f"{name} ends after {float(end - (first or 0)):.2f} of the {float(stated):.2f} s in its header; "
                "fetch it again",
            )


def _time(frame: VideoFrame, stream: VideoStream, index: int, timed: bool = True) -> Fraction:
    if timed and frame.pts is not None and frame.time_base is not None:
        return frame.pts * Fraction(frame.time_base)
    return Fraction(index) / Fraction(stream.average_rate or stream.guessed_rate or 25)


def _duration(frame: VideoFrame, fallback: Fraction) -> Fraction:
    if frame.duration and frame.time_base:
        return frame.duration * Fraction(frame.time_base)
    return fallback


def _first_video_time(container: InputContainer, source: Source) -> Fraction:
    stream = container.streams.video[0]
    try:
        first = next(iter(container.decode(stream)), None)
        return _time(first, stream, 0, container.format.name != "avi") if first is not None else Fraction(0)
    except av.error.FFmpegError as error:
        raise ClipError(
            Reason.DECODE_ERROR, f"{as_source(source)} has no readable picture ({_message(error)})"
        ) from None


def _decode_mono(container: InputContainer, source: Source, start: Fraction) -> tuple[np.ndarray, int]:
    """Decoded mono sound and its rate in Hz: ((N,) float32 in [-1, 1), rate).

    Sample 0 is at the time `start` on the container's clock.
    """
    stream = container.streams.audio[0]
    rate = stream.codec_context.sample_rate
    # This resampler converts only the sample format; the sample rate and the channel layout stay the same.
    resampler = av.AudioResampler(format="fltp")
    pieces: list[np.ndarray] = []
    cursor = 0  # number of samples in `pieces`, counted from `start`
    try:
        for packet_frame in container.decode(stream):
            for frame in resampler.resample(packet_frame):
                mono = _to_mono(frame.to_ndarray(), [c.name for c in frame.layout.channels])
                if frame.pts is not None and frame.time_base is not None:
                    at = round((frame.pts * Fraction(frame.time_base) - start) * rate)
                    if at < 0 and cursor == 0:
                        mono = mono[-at:]
                        at = 0
                    if not len(mono):
                        continue
                    gap = at - cursor
                    if gap > _AUDIO_GAP_S * rate or (cursor == 0 and gap > 0):
                        pieces.append(np.zeros(gap, np.float32))
                        cursor += gap
                    elif gap < -_AUDIO_GAP_S * rate:
                        mono = mono[-gap:]
                pieces.append(mono)
                cursor += len(mono)
    except av.error.FFmpegError as error:
        raise ClipError(
            Reason.DECODE_ERROR,
            f"{as_source(source)}: sound stops decoding after {cursor / rate:.2f} s ({_message(error)})",
        ) from None
    if not pieces:
        raise ClipError(Reason.NO_AUDIO, f"{as_source(source)} has a sound track without a sample")
    return np.concatenate(pieces), rate


def _to_mono(planes: np.ndarray, channels: list[str]) -> np.ndarray:
    """Converts (C, N) float32 to mono, (N,) float32.

    The result is the centre channel of a surround layout, or the mean of the channels of another layout.
    """
    if len(channels) >= 3 and "FC" in channels:
        return planes[channels.index("FC")]
    return planes.mean(axis=0, dtype=np.float32) if len(planes) > 1 else planes[0]


def _unknown_codec(source: Source, part: str) -> ClipError:
    detail = f"{as_source(source)}: its {part} is in a format that FFmpeg does not know: the file is damaged"
    return ClipError(Reason.DECODE_ERROR, detail)


def _message(error: Exception) -> str:
    """The message of an FFmpeg error without the error number and the file name."""
    return getattr(error, "strerror", None) or str(error)
