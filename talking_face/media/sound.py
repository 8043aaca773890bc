"""Decodes a sound track to mono in the time of the picture, and recognises sound that is nearly silent."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.audio.frame import AudioFrame
from av.audio.stream import AudioStream
from av.container import InputContainer

from talking_face.media.container import MEDIA_ERRORS, message
from talking_face.media.limits import Limits
from talking_face.reasons import ClipError, Reason

# s; a longer time between two audio frames is a gap. Shorter times also occur without a gap, because timestamps are
# rounded.
_GAP_S = 0.02
_BACK_S = 1.0  # s; if times go back by more, the file holds two recordings
RATES = range(1000, 768_001)  # Hz; sample rates that are decoded
# A mono mix that has less than this share of the power of the loudest channel is not used. The mean of a channel and
# silence has 0.25. The mean of two channels in anti-phase has 0. A centre channel can be much quieter than music in
# other channels, so that it is replaced only if it is silent.
_MIN_MEAN, _MIN_CENTRE = 0.1, 1e-3
# Sound counts as nearly silent if the level is below this in 95% of the windows of 40 ms: -50 dB of full scale. Levels
# are rms, of 32,768. A click in silence fills one window. The quietest of eleven GRID clips has 6,490.
_QUIET, _QUIET_SHARE, _WINDOW_S = 100.0, 95, 0.04

Mix = Callable[[np.ndarray], np.ndarray]  # (C, N) float32 to (N,) float32


@dataclass
class Mono:
    """Decoded mono sound, and the power of its channels."""

    samples: np.ndarray  # (N,) float32 in [-1, 1)
    rate: int  # Hz
    names: list[str]  # names of the channels
    power: np.ndarray  # (C,) sum of the squares of each channel

    def better_channel(self) -> int | None:
        """The loudest channel if the mono mix lost nearly all of its power; None if the mix is good.

        The channel of low frequencies (LFE) is not used.
        """
        usable = [i for i, name in enumerate(self.names) if not name.startswith("LFE")]
        if len(usable) < 2 or len(self.power) != len(self.names):
            return None
        best = max(usable, key=lambda i: float(self.power[i]))
        least = _MIN_CENTRE if _centre(self.names) is not None else _MIN_MEAN
        mixed = float(np.vdot(self.samples, self.samples))
        return best if mixed < least * float(self.power[best]) else None


def decode_mono(
    container: InputContainer, stream: AudioStream, name: str, start: Fraction, limits: Limits, channel: int | None
) -> Mono:
    """The decoded sound of a track. Sample 0 is at the time `start` on the container's clock.

    Zeros are added where the sound has a gap.

    Args:
        container: the container of the track, from which nothing was read yet.
        stream: the track.
        name: the file's name, for error messages.
        start: time of sample 0, s.
        limits: `seconds` limits the sound after `start`, and also the sound before `start`.
        channel: index of the only channel that is used; None: the centre channel of surround, or else the mean.

    Raises ClipError: no-audio, too-long or decode-error.
    """
    line = _TimeLine(name, start, limits)
    names: list[str] = []
    power = np.zeros(0)
    try:
        for frame in _planar(container, stream, name):
            planes = frame.to_ndarray()
            names = names or [one.name for one in frame.layout.channels]
            place = line.place(frame, planes.shape[1])
            if place is None:
                continue
            planes = planes[:, place:]
            line.add(_mono(planes, [one.name for one in frame.layout.channels], channel))
            power = _added(power, np.square(planes, dtype=np.float64).sum(axis=1))
    except MEDIA_ERRORS as error:
        detail = f"{name}: sound stops decoding after {line.seconds:.2f} s ({message(error)})"
        raise ClipError(Reason.DECODE_ERROR, detail) from None
    if not line.pieces:
        raise ClipError(Reason.NO_AUDIO, f"{name} has a sound track without a sample")
    return Mono(np.concatenate(line.pieces), line.rate, names, power)


def level(samples: np.ndarray) -> float:
    """The rms of (N,) int16 samples, from 0 to 32,768."""
    return float(np.sqrt(np.square(samples, dtype=np.float64).mean())) if len(samples) else 0.0


def is_nearly_silent(samples: np.ndarray, rate: int) -> bool:
    """Whether (N,) int16 samples are too quiet for speech: at least 95% of the sound is below -50 dB."""
    size = max(1, round(rate * _WINDOW_S))
    windows = samples[: len(samples) // size * size].reshape(-1, size)
    if not len(windows):
        return level(samples) < _QUIET
    levels = np.sqrt(np.square(windows, dtype=np.float64).mean(axis=1))
    return float(np.percentile(levels, _QUIET_SHARE)) < _QUIET


class _TimeLine:
    """Pieces of mono sound, one after the other, with zeros in the gaps."""

    def __init__(self, name: str, start: Fraction, limits: Limits) -> None:
        self.pieces: list[np.ndarray] = []
        self.rate = 0  # Hz; the rate of the first frame
        self._name, self._start, self._limits = name, start, limits
        self._cursor = 0  # number of samples in `pieces`
        self._read = 0  # number of decoded samples

    @property
    def seconds(self) -> float:
        """Length of the sound so far, s."""
        return self._cursor / self.rate if self.rate else 0.0

    def place(self, frame: AudioFrame, count: int) -> int | None:
        """The index of the first of the frame's `count` samples that is used; None if none is used. Adds zeros first.

        Raises ClipError: too-long, or decode-error if the times jump back or the rate changes.
        """
        self._check_rate(frame.sample_rate)
        self._read += count
        self._check_length(self._read)
        if frame.pts is None or frame.time_base is None:
            return 0 if count else None
        at = round((frame.pts * Fraction(frame.time_base) - self._start) * self.rate)
        skipped = 0
        if at < 0 and self._cursor == 0:
            skipped, at = -at, 0
        if skipped >= count:
            return None
        gap = at - self._cursor
        if gap > _GAP_S * self.rate or (self._cursor == 0 and gap > 0):
            self._check_length(at + count)
            self.pieces.append(np.zeros(gap, np.float32))
            self._cursor += gap
        elif gap < -_BACK_S * self.rate:
            detail = f"{self._name}: the times of its sound go back by {-gap / self.rate:.1f} s; it is damaged"
            raise ClipError(Reason.DECODE_ERROR, detail)
        elif gap < -_GAP_S * self.rate:
            skipped = -gap
        return skipped if skipped < count else None

    def add(self, mono: np.ndarray) -> None:
        """Adds the samples of a frame after the samples so far."""
        self.pieces.append(mono)
        self._cursor += len(mono)

    def _check_rate(self, rate: int) -> None:
        if rate not in RATES:
            raise ClipError(Reason.DECODE_ERROR, f"{self._name}: its sound states {rate} samples/s; it is damaged")
        if self.rate not in (0, rate):
            detail = f"{self._name}: the rate of its sound changes from {self.rate} to {rate} samples/s"
            raise ClipError(Reason.DECODE_ERROR, detail)
        self.rate = rate

    def _check_length(self, samples: int) -> None:
        if samples > self._limits.seconds * self.rate:
            detail = f"{self._name}: its sound lasts more than {self._limits.seconds:g} s, which is what is taken"
            raise ClipError(Reason.TOO_LONG, detail)


def _planar(container: InputContainer, stream: AudioStream, name: str) -> Iterator[AudioFrame]:
    """The frames of a track as planar float32. The sample rate and the channel layout stay the same."""
    resampler: av.AudioResampler | None = None
    form: object = None
    for frame in container.decode(stream):
        # In AAC with parametric stereo, the layout changes after the first frames. A resampler keeps one layout.
        now = (frame.format.name, frame.layout.name, frame.sample_rate)
        if resampler is None or now != form:
            resampler, form = av.AudioResampler(format="fltp"), now
        yield from resampler.resample(frame)


def _mono(planes: np.ndarray, channels: list[str], channel: int | None) -> np.ndarray:
    """Converts (C, N) float32 to mono, (N,) float32.

    The result is one channel if `channel` states it, else the centre channel of a surround layout, or the mean of the
    channels of another layout.
    """
    if channel is not None and channel < len(planes):
        return planes[channel]
    centre = _centre(channels)
    if centre is not None:
        return planes[centre]
    return planes.mean(axis=0, dtype=np.float32) if len(planes) > 1 else planes[0]


def _centre(channels: list[str]) -> int | None:
    return channels.index("FC") if len(channels) >= 3 and "FC" in channels else None


def _added(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """The sum of two vectors, of which the shorter is continued with zeros."""
    size = max(len(a), len(b))
    return np.pad(a, (0, size - len(a))) + np.pad(b, (0, size - len(b)))
