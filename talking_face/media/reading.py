"""Decodes video files of any format to RGB frames at exact times, and to 16 kHz mono sound that starts with frame 0.

Only this package decodes media. Its functions return C-contiguous arrays. PyAV can return a strided view, for example
for a clip that is 360 px wide, and MediaPipe would read a strided view as noise without an error.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from typing import Literal

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from talking_face.media.container import (
    display_size,
    known_sound,
    open_container,
    picture_track,
    pixel_aspect,
    sound_track,
    track_note,
    unknown_codec,
)
from talking_face.media.ffmpeg_rate import FfmpegClock, round_half_away
from talking_face.media.frames import Decoder, check_length, last_frame_length, too_long
from talking_face.media.limits import LIMITS, Limits
from talking_face.media.picture import Picture, Scaler, picture_of
from talking_face.media.resampling import ffmpeg_samples, whole_samples
from talking_face.media.sound import Mono, decode_mono
from talking_face.media.source import Source, as_source
from talking_face.reasons import ClipError, Reason

FPS = 25.0  # frames/s; all methods and metrics of the field that use SyncNet assume 25
_UNEVEN = 1.5  # ratio of the longest to the shortest time between two frames, above which the rate counts as variable
AUDIO_RATE = 16000  # Hz; sample rate of all stored, scored and generated sound
Choice = Literal["nearest", "ffmpeg"]  # how the frames of another rate are chosen; see `iter_pictures`


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """The picture track that is read. Other tracks and cover pictures are not used.

    Attributes:
        width, height: size of the frames as they are shown and as `iter_pictures` yields them: upright, with square
            pixels, px.
        fps: mean frame rate of the header, frames/s; 0 if unknown.
        codec, pix_fmt: names of FFmpeg.
        n_frames: number of frames that the header states; 0 if the header does not state it.
        notes: which of several tracks is used, and a pixel aspect that is not 1, in short.
    """

    width: int
    height: int
    fps: float
    codec: str
    pix_fmt: str
    n_frames: int
    notes: tuple[str, ...] = ()
    guessed_fps: float = 0.0  # the constant rate that FFmpeg takes for the track, frames/s; 0 if unknown


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """Header of the sound track that is read."""

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


@dataclass(frozen=True, slots=True)
class Video:
    """Decoded frames, and what was noticed while they were read.

    Attributes:
        frames: (T, H, W, 3) uint8 RGB, upright, with square pixels.
        fps: frames/s of `frames`.
        notes: a changed or variable frame rate, and the notes of `VideoInfo`.
    """

    frames: np.ndarray
    fps: float
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Sound:
    """Decoded sound, and what was noticed while it was read.

    Attributes:
        samples: (N,) int16 mono.
        notes: which of several tracks is used (`sound-track-1-of-2`), and which channel if the mean of the channels
            cancels out (`channels-cancel-out-channel-1-used`).
    """

    samples: np.ndarray
    notes: tuple[str, ...]


def probe(source: Source, limits: Limits = LIMITS) -> MediaInfo:
    """Read the headers of `source`. The first frame is decoded too, because FFmpeg states the rotation with a frame.

    Raises ClipError: too-large if the picture is larger than `limits`, decode-error if the codec of the picture is
    unknown, or a reason of `open_container`.
    """
    with open_container(source, limits) as container:
        audio = None
        if (sound := sound_track(container)) is not None:
            context = sound.codec_context
            layout = context.layout
            audio = AudioInfo(context.sample_rate, layout.nb_channels, layout.name, context.name)
        duration = container.duration / av.time_base if container.duration else 0.0
        name = container.format.name
        return MediaInfo(name, duration, _video_info(container, source, limits), audio)


def _video_info(container: InputContainer, source: Source, limits: Limits) -> VideoInfo | None:
    stream = picture_track(container)
    if stream is None:
        return None
    decoder = Decoder(container, stream, str(as_source(source)), limits)
    aspect, notes = pixel_aspect(stream)
    context = stream.codec_context
    width, height = display_size(context.width, context.height, aspect)
    if round(decoder.rotation() / 90) % 2:
        width, height = height, width
    return VideoInfo(
        width=width,
        height=height,
        fps=float(stream.average_rate or stream.guessed_rate or 0),
        codec=context.name,
        pix_fmt=context.pix_fmt or "unknown",
        n_frames=stream.frames,
        notes=(*track_note("picture", stream, container.streams.video), *notes),
        guessed_fps=float(stream.guessed_rate or 0),
    )


def iter_pictures(
    source: Source, fps: float | None = FPS, limits: Limits = LIMITS, choice: Choice = "nearest"
) -> Iterator[Picture]:
    """Decode the picture track and yield pictures at constant time steps.

    Only one source frame is in memory at a time.

    Args:
        source: file or tar member.
        fps: output rate in frames/s. Output frame k is the source frame that is nearest to the time k/fps after the
            first frame. If two source frames are equally near, the earlier frame is used. The time error is at most
            half a source frame. The number of output frames is the stream's length times fps, rounded, and at least 1.
            If `fps` is None, each source frame is yielded once, or with `ffmpeg` the rate is the file's own.
        limits: the longest and largest picture that is decoded. Every time is checked before frames are repeated.
        choice: `nearest`: as stated at `fps`. `ffmpeg`: the frames of the command `ffmpeg -i IN -r FPS OUT`, see
            `talking_face.media.ffmpeg_rate`; `fps` is a whole number, or None for the command without `-r`, which
            repeats and leaves out frames if the file's rate is variable. Output frame 0 then has the start time of
            the file, which can be the start of the sound, see `file_start`.

    Yields:
        Upright pictures with square pixels: the rotation and the pixel aspect that the container states are applied.
        Frames that an edit list hides are not yielded. Colours are converted with the colour matrix and range that the
        stream states. If the stream states no matrix, BT.601 is used, as in FFmpeg. If a source frame is used several
        times, the same object is yielded several times.

    Raises:
        ClipError: no-video, truncated, decode-error, too-long, too-large, or a reason of `open_source`. The reason is
            decode-error if times jump or if the size of the frames changes.
    """
    if choice == "ffmpeg":
        yield from _pictures_of_ffmpeg(source, None if fps is None else int(fps), limits)
    elif fps is None:
        scaler = Scaler()
        for _, frame, aspect in _decoded(source, limits):
            yield picture_of(frame, scaler, aspect)
    else:
        yield from _nearest_pictures(source, fps, limits)


def _nearest_pictures(source: Source, fps: float, limits: Limits) -> Iterator[Picture]:
    scaler = Scaler()
    rate = Fraction(fps).limit_denominator(1001 * 240)
    k = 0
    previous: tuple[Fraction, VideoFrame, Fraction] | None = None
    step = Fraction(1) / rate
    source_step = step
    origin = Fraction(0)
    for time, frame, aspect in _decoded(source, limits):
        if previous is None:
            origin = time
        else:
            source_step = time - previous[0]
            middle = (previous[0] + time) / 2 - origin
            picture: Picture | None = None
            while k * step <= middle:
                picture = picture_of(previous[1], scaler, aspect) if picture is None else picture
                yield picture
                k += 1
        previous = (time, frame, aspect)
    if previous is None:
        raise _no_frame(source)
    time, frame, aspect = previous
    name = str(as_source(source))
    length = time - origin + last_frame_length(frame, source_step, name, limits)
    if length > limits.seconds:
        raise too_long(name, limits)
    total = max(1, int(length * rate + Fraction(1, 2)))
    if k < total:
        picture = picture_of(frame, scaler, aspect)
        for _ in range(total - k):
            yield picture


def _pictures_of_ffmpeg(source: Source, fps: int | None, limits: Limits) -> Iterator[Picture]:
    scaler = Scaler()
    last: tuple[VideoFrame, Picture] | None = None
    for frame, aspect in iter_ffmpeg_frames(source, fps, limits):
        if last is None or frame is not last[0]:
            last = frame, picture_of(frame, scaler, aspect)
        yield last[1]


def iter_ffmpeg_frames(
    source: Source, fps: int | None, limits: Limits = LIMITS
) -> Iterator[tuple[VideoFrame, Fraction]]:
    """Yields (decoded frame, width of a pixel over its height) for each frame of `ffmpeg -i IN -r FPS OUT`.

    The frames are not turned upright and not converted. If a source frame is used several times, the same object is
    yielded several times. `fps=None`: the same without `-r`, at the file's own rate. Raises ClipError as
    `iter_pictures` does.
    """
    previous: VideoFrame | None = None
    with open_container(source, limits) as container:
        decoder, stream = _decoder(container, source, limits)
        rate = Fraction(fps or stream.guessed_rate or FPS)
        clock = FfmpegClock(rate, len(container.streams) > 1)
        for time, length, frame in _file_times(container, stream, decoder, 1 / rate):
            before, here = clock.repeats(time, length)
            if clock.shown > limits.seconds * rate:
                raise too_long(str(as_source(source)), limits)
            for _ in range(before):
                yield frame if previous is None else previous, decoder.aspect
            for _ in range(here):
                yield frame, decoder.aspect
            previous = frame
        if previous is None:
            raise _no_frame(source)
        for _ in range(clock.rest()):
            yield previous, decoder.aspect


def _file_times(
    container: InputContainer, stream: VideoStream, decoder: Decoder, step: Fraction
) -> Iterator[tuple[Fraction, Fraction, VideoFrame]]:
    """Yields (time after the start of the file in s, length in s, frame), with the times and lengths that FFmpeg uses.

    `step`: length of a frame if neither the frame nor the header states one, s.
    """
    tick = Fraction(stream.time_base or 1)
    start = round_half_away(_start_of(container) / tick) * tick
    usual = round_half_away((1 / Fraction(stream.guessed_rate) if stream.guessed_rate else step) / tick) * tick
    by_decoding = container.format.name == "avi"  # FFmpeg then takes the time of decoding
    following = Fraction(0)
    for shown_at, frame in decoder.frames():
        length = (frame.duration or 0) * tick or usual
        time = shown_at - start
        if by_decoding:
            time = following if frame.dts is None else frame.dts * tick - start
            following = time + length
        yield time, length, frame


def file_start(source: Source, limits: Limits = LIMITS) -> Fraction:
    """The time at which the file starts, in seconds on its own clock: the start of its earliest track.

    FFmpeg's command line measures all times from here. `iter_pictures` measures them from the first frame.
    """
    with open_container(source, limits) as container:
        return _start_of(container)


def _start_of(container: InputContainer) -> Fraction:
    return Fraction(container.start_time or 0, av.time_base)


def iter_frames(
    source: Source, fps: float | None = FPS, limits: Limits = LIMITS, choice: Choice = "nearest"
) -> Iterator[np.ndarray]:
    """The pictures of `iter_pictures` as (H, W, 3) uint8 RGB, C-contiguous. Repeated frames share one array."""
    last: tuple[Picture, np.ndarray] | None = None
    for picture in iter_pictures(source, fps, limits, choice):
        if last is None or picture is not last[0]:
            last = (picture, picture.rgb())
        yield last[1]


def read_frames(
    source: Source, fps: float | None = FPS, limits: Limits = LIMITS, choice: Choice = "nearest"
) -> np.ndarray:
    """All frames of `iter_frames`, (T, H, W, 3) uint8 RGB. For long clips, `iter_frames` itself needs less memory.

    Raises ClipError: too-large if the array would be larger than `limits.frame_bytes`, or a reason of `iter_pictures`.
    """
    return _stacked(iter_frames(source, fps, limits, choice), source, limits)


def _stacked(pictures: Iterator[np.ndarray], source: Source, limits: Limits) -> np.ndarray:
    frames: list[np.ndarray] = []
    for frame in pictures:
        frames.append(frame)
        if len(frames) * frame.nbytes > limits.frame_bytes:
            height, width = frame.shape[:2]
            detail = (
                f"{as_source(source)}: more than {len(frames) - 1} frames of {width}x{height} px do not fit into "
                f"{limits.frame_bytes / 1e9:.1f} GB, which is what is taken"
            )
            raise ClipError(Reason.TOO_LARGE, detail)
    if not frames:
        raise _no_frame(source)
    return np.stack(frames)


def read_video(source: Source, fps: float | None = None, limits: Limits = LIMITS, choice: Choice = "nearest") -> Video:
    """The frames of a file, their rate, and notes.

    Args:
        source: file or tar member.
        fps: output rate in frames/s; see `iter_pictures`. None: the file's own rate; with `nearest`, every stored
            frame once.
        limits: as in `read_frames`.
        choice: as in `iter_pictures`.

    Raises ClipError: a reason of `probe` or `read_frames`.
    """
    info = probe(source, limits).video
    if info is None:
        raise ClipError(Reason.NO_VIDEO, f"{as_source(source)} has no picture")
    if fps is not None:
        # No note about 24.999 frames/s and similar values: some containers store times with low precision.
        changed = abs(info.fps - fps) > 0.01
        how = {"nearest": "nearest frame", "ffmpeg": "as by ffmpeg -r"}[choice]
        notes = (f"resampled from {info.fps:g} to {fps:g} frames/s, {how}",) if changed else ()
        return Video(read_frames(source, fps, limits, choice), fps, (*notes, *info.notes))
    if choice == "ffmpeg":
        return Video(read_frames(source, None, limits, choice), info.guessed_fps or FPS, info.notes)
    times: list[Fraction] = []
    scaler = Scaler()

    def own() -> Iterator[np.ndarray]:
        for time, frame, aspect in _decoded(source, limits):
            times.append(time)
            yield picture_of(frame, scaler, aspect).rgb()

    frames = _stacked(own(), source, limits)
    steps = [after - before for before, after in pairwise(times)]
    notes = ("variable frame rate",) if steps and max(steps) > _UNEVEN * min(steps) else ()
    return Video(frames, own_rate(times, info.fps), (*notes, *info.notes))


def own_rate(times: Sequence[Fraction], stated: float) -> float:
    """The frame rate of a file, frames/s: the rate in the header, or the measured rate if the two differ by over 1%.

    Containers store times with low precision, so that 25 frames/s can read as 24.999. A rate that differs by less than
    0.05% from a whole number n, or from n * 1000 / 1001, is replaced by that number.

    Args:
        times: presentation times of the frames, s, increasing.
        stated: the rate in the header, frames/s; 0 if unknown.
    """
    rate = stated
    if len(times) > 1:
        measured = float((len(times) - 1) / (times[-1] - times[0]))
        if abs(stated - measured) > 0.01 * measured:
            rate = measured
    usual = (round(rate), round(rate * 1.001) / 1.001)
    near = [one for one in usual if rate and abs(one - rate) < 0.0005 * rate]
    return float(min(near, key=lambda one: abs(one - rate))) if near else rate or FPS


def read_sound(
    source: Source,
    rate: int = AUDIO_RATE,
    start: float | Fraction | None = None,
    limits: Limits = LIMITS,
    choice: Choice = "nearest",
) -> Sound:
    """Decode the sound track to mono at `rate`.

    Args:
        source: file or tar member, with or without video.
        rate: sample rate of the result, Hz.
        start: time of sample 0, in seconds on the file's own clock. The default is the time of the first video frame,
            or 0 if the file has no video; sample n then belongs to the time n/rate after the first video frame. If the
            sound starts after `start`, zeros are added before the sound. Sound before `start` is removed.
        limits: `seconds` is the longest sound that is decoded.
        choice: `ffmpeg`: the sample rate is changed as the command `ffmpeg -i IN -ar RATE OUT` does.

    Returns:
        The samples and notes. Surround sound is converted to mono by taking the centre channel, which contains the
        speech. Other channel layouts are converted to mono by the mean of the channels. If the mean cancels out (for
        example if one channel is the negative of the other), the loudest channel is taken, and a note says so. The
        sample rate is changed with a zero-phase polyphase filter, which adds no delay, unless `choice` is `ffmpeg`.

    Raises:
        ClipError: no-audio, too-long, decode-error, or a reason of `open_source`.
    """
    name = str(as_source(source))
    with open_container(source, limits) as container:
        stream = sound_track(container)
        if stream is None and container.streams.audio:
            raise unknown_codec(source, "sound")
        if stream is None:
            raise ClipError(Reason.NO_AUDIO, f"{name} has no sound")
        notes = track_note("sound", stream, known_sound(container))
        check_length(container, None, name, limits)
        if start is None:
            picture = picture_track(container)
            start = Decoder(container, picture, name, limits).first_time() if picture is not None else Fraction(0)
    # The file is opened again, because FFmpeg cannot seek to a time before the first picture of an FLV file.
    mono = _decode_again(source, name, Fraction(start), limits, None)
    if (channel := mono.better_channel()) is not None:
        notes.append(f"channels-cancel-out-channel-{channel + 1}-used")
        mono = _decode_again(source, name, Fraction(start), limits, channel)
    change = ffmpeg_samples if choice == "ffmpeg" else whole_samples
    return Sound(change(mono.samples, mono.rate, rate), tuple(notes))


def read_audio(
    source: Source, rate: int = AUDIO_RATE, start: float | Fraction | None = None, limits: Limits = LIMITS
) -> np.ndarray:
    """The samples of `read_sound`, (N,) int16."""
    return read_sound(source, rate, start, limits).samples


def _decoded(source: Source, limits: Limits) -> Iterator[tuple[Fraction, VideoFrame, Fraction]]:
    """Yields (presentation time in s, frame, pixel aspect) for each frame of the picture track that is shown."""
    with open_container(source, limits) as container:
        decoder, _ = _decoder(container, source, limits)
        for time, frame in decoder.frames():
            yield time, frame, decoder.aspect


def _decoder(container: InputContainer, source: Source, limits: Limits) -> tuple[Decoder, VideoStream]:
    """The decoder of the picture track, and the track. Raises ClipError: no-video."""
    name = str(as_source(source))
    stream = picture_track(container)
    if stream is None:
        cover = ", only a cover picture" if container.streams.video else ""
        raise ClipError(Reason.NO_VIDEO, f"{name} has no picture{cover}")
    return Decoder(container, stream, name, limits), stream


def _decode_again(source: Source, name: str, start: Fraction, limits: Limits, channel: int | None) -> Mono:
    with open_container(source, limits) as container:
        stream = sound_track(container)
        if stream is None:
            raise ClipError(Reason.NO_AUDIO, f"{name} has no sound")
        return decode_mono(container, stream, name, start, limits, channel)


def _no_frame(source: Source) -> ClipError:
    return ClipError(Reason.DECODE_ERROR, f"{as_source(source)} has a video stream without a frame")
