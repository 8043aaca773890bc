"""How something is said: numbers of pitch, loudness, breath and brightness of a clip's sound, for both models."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import numpy as np

from talking_face.reasons import ClipError, Reason

RATE = 16000
_FRAME, _HOP, _STEP, _FFT = 1024, 320, 160, 2048  # samples: 64 ms, 20 ms, 10 ms
_LOWEST, _HIGHEST = 60, 500  # Hz
_OCTAVE = 0.05  # of a peak's height, for each doubling of the period (Praat: 0.01; these voices have strong overtones)
_VOICED = 0.5  # of a frame's energy that repeats after one period
_AUDIBLE = 30.0  # dB below the loudest frame

# How a training split sets the units of a network that hears these; see `cmet_reference.cmet.speech.fitted_units`.
Units = Literal["own", "deviation", "discriminant"]


PROSODY = (
    "pitch, log Hz, median",
    "pitch range, 10th to 90th percentile",
    "pitch movement between frames",
    "voiced share",
    "level, dB, 95th percentile",
    "level's deviation",
    "audible share",
    "level's movement between frames",
    "harmonics to noise, dB",
    "spectral tilt, dB: 1 to 5 kHz against what is below",
)


class Prosody:
    """How something is said: pitch, loudness, their movement, breath and brightness. Ten numbers, no training.

    Means and deviations of 13 cepstra beside the first eight lowered the accuracy on held-out speakers (nearest label,
    one clip less the speaker's neutral mean: 70 % to 63 %): they tell voices and sentences apart more than emotions.
    """

    name = "prosody-1"
    size = len(PROSODY)
    units: Units = "deviation"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        pitch, strength, level, tilt = pitch_track(checked(audio))
        voiced = (strength > _VOICED) & (level > level.max() - _AUDIBLE)
        heard = pitch[voiced] if voiced.sum() >= 3 else np.full(3, np.log(150.0))  # whisper, silence: no movement
        low, high = np.percentile(heard, (10, 90))
        top = np.percentile(level, 95)
        loud = level > top - 15
        clear = loud & voiced if (loud & voiced).any() else loud
        share = np.clip(strength[clear], 0.01, 0.999)
        return np.array(
            [
                np.median(heard),
                high - low,
                np.abs(np.diff(heard)).mean(),
                voiced.mean(),
                top,
                level.std(),
                (level > top - 25).mean(),
                np.abs(np.diff(level)).mean(),
                10 * np.log10(share / (1 - share)).mean(),
                tilt[clear].mean(),
            ],
            np.float32,
        )


VOICE = (
    *("pitch", "pitch range", "pitch deviation", "pitch movement", "pitch slope", "tremor"),
    *("voiced share", "audible share", "level", "level of loud frames", "level deviation", "level movement"),
    *("harmonics to noise", "below 1 kHz", "1 to 2.5 kHz", "2.5 to 5 kHz"),
    *(f"band {k}" for k in range(8)),
    *("tilt", "first to second harmonic", "first to third harmonic"),
    *("spread of the spectrum", "its movement", "its memory, 40 ms", "80 ms", "120 ms"),
    *("pace of the level", "syllables a second"),
)


_BANDS = (60, 300, 600, 1000, 1500, 2200, 3200, 4500, 6500)  # Hz


class Voice:
    """How something is said, in more words than `Prosody`: 34 numbers that `discriminant_units` makes five of.

    Pitch (its level, swing, tremor), loudness, breath (what of each band repeats with the pitch), brightness (eight
    bands, tilt, the first harmonics), articulation (how far and how fast the spectrum moves) and pace. Not better than
    `Prosody` on left-out speakers: see docs/cmet.md.
    """

    name = "voice-1"
    size = len(VOICE)
    units: Units = "discriminant"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        return np.array(list(voice_numbers(checked(audio))), np.float32)


def voice_numbers(samples: np.ndarray) -> list[float]:
    """The numbers of VOICE, of (N,) int16 at 16 kHz: 64 ms Hann windows every 10 ms."""
    wave = np.pad(samples.astype(np.float64), _FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(wave, _FRAME)[::_STEP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    power = np.abs(np.fft.rfft(frames * np.hanning(_FRAME), _FFT)) ** 2
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)
    level = 10 * np.log10((frames**2).mean(axis=1) + 1)
    top = float(np.percentile(level, 95))
    audible = level > top - 25

    repeat = _autocorrelation(power)
    lags = np.arange(RATE // _HIGHEST, RATE // _LOWEST)
    score = repeat[:, lags] - _OCTAVE * np.log2(lags)
    sure = _at_least(5, audible & (repeat[:, lags].max(axis=1) > 0.6), level)
    middle = np.median(np.log(lags[score.argmax(axis=1)][sure]))
    # Half an octave away from the utterance's own pitch a peak must be so much higher: 0.6 for each unit of log Hz.
    score -= 0.6 * np.maximum(0, np.abs(np.log(lags) - middle) - 0.35)
    lag = lags[score.argmax(axis=1)]
    at = np.arange(len(lag))
    before, here, after = (repeat[at, lag + k] for k in (-1, 0, 1))
    bend = np.minimum(before - 2 * here + after, -1e-9)
    pitch = np.log(RATE / (lag + np.clip(0.5 * (before - after) / bend, -0.5, 0.5)))
    voiced = _at_least(5, audible & (here > _VOICED), level)
    loud = _at_least(5, voiced & (level > top - 12), level)

    heard, times = pitch[voiced], at[voiced] * _STEP / RATE
    low, high = np.percentile(heard, (10, 90))
    steps = np.clip(np.diff(pitch)[voiced[1:] & voiced[:-1]], -0.1, 0.1)
    slope = ((times - times.mean()) * heard).sum() / (((times - times.mean()) ** 2).sum() + 1e-9)
    whole = np.interp(at, at[voiced], heard)
    tremor = (_smooth(whole, 5) - _smooth(whole, 21))[voiced].std()

    noise = []
    for a, b in ((0, RATE), (60, 1000), (1000, 2500), (2500, 5000)):
        part = _autocorrelation(power[loud] * ((hertz >= a) & (hertz < b)))
        share = np.max([part[np.arange(len(part)), lag[loud] + k] for k in (-2, -1, 0, 1, 2)], axis=0)
        share = np.clip(share, 0.02, 0.995)
        noise.append((10 * np.log10(share / (1 - share))).mean())

    def decibel(rows: np.ndarray, a: float, b: float) -> np.ndarray:
        return np.asarray(10 * np.log10(rows[:, (hertz >= a) & (hertz < b)].sum(axis=1) + 1))

    total = decibel(power, 0, RATE)
    shape = np.stack([decibel(power, a, b) - total for a, b in pairwise(_BANDS)], axis=1)
    tilt = (decibel(power[loud], 1000, 5000) - decibel(power[loud], 50, 1000)).mean()
    harmonic = []
    for k in (1, 2, 3):
        place = np.clip(np.rint(k * np.exp(pitch[loud]) / RATE * _FFT).astype(int), 2, power.shape[1] - 3)
        rows = power[loud]
        harmonic.append(10 * np.log10(sum(rows[np.arange(len(rows)), place + j] for j in (-2, -1, 0, 1, 2)) + 1))
    moving = np.abs(np.diff(np.stack([_smooth(band, 7) for band in shape.T], axis=1), axis=0)).mean(axis=1)
    centred = shape - shape.mean(axis=0)
    memory = [
        (centred[k:] * centred[:-k]).sum() / np.sqrt((centred[k:] ** 2).sum() * (centred[:-k] ** 2).sum() + 1e-9)
        for k in (4, 8, 12)
    ]
    course = _smooth(np.maximum(level, top - 35), 5)
    beat = np.abs(np.fft.rfft((course - course.mean()) * np.hanning(len(course)), 1024)) ** 2
    rate = np.fft.rfftfreq(1024, _STEP / RATE)
    beat = beat * ((rate >= 1) & (rate < 16))
    swell = _smooth(10 ** (level / 20), 9)
    tops = (swell[1:-1] > swell[:-2]) & (swell[1:-1] >= swell[2:]) & (swell[1:-1] > 0.15 * swell.max())
    return [
        float(np.median(heard)),
        float(np.log(high - low + 0.02)),
        float(np.log(heard.std() + 0.01)),
        float(np.log((np.abs(steps).mean() if len(steps) else 0) + 1e-3)),
        float(slope),
        float(np.log(tremor + 1e-3)),
        float(voiced.mean()),
        float(audible.mean()),
        top,
        float(level[loud].mean()),
        float(level[voiced].std()),
        float(np.abs(np.diff(level))[audible[1:]].mean()) if audible[1:].any() else 0.0,
        *map(float, noise),
        *map(float, shape[loud].mean(axis=0)),
        float(tilt),
        float((harmonic[0] - harmonic[1]).mean()),
        float((harmonic[0] - harmonic[2]).mean()),
        float(np.log(shape[voiced].std(axis=0).mean() + 1e-3)),
        float(np.log(moving[audible[1:]].mean() + 1e-3)) if audible[1:].any() else 0.0,
        *map(float, memory),
        float((beat * rate).sum() / (beat.sum() + 1e-9)),
        float(tops.sum() / (len(level) * _STEP / RATE)),
    ]


def _autocorrelation(power: np.ndarray) -> np.ndarray:
    """(T, lags) of power spectra (T, 1 + _FFT // 2), divided by the taper's own (Boersma 1993, eq. 9); 1 at lag 0."""
    own = np.fft.irfft(np.abs(np.fft.rfft(np.hanning(_FRAME), _FFT)) ** 2)[:_FRAME]
    repeat = np.fft.irfft(power)[:, :_FRAME]
    return np.asarray(repeat / ((repeat[:, :1] + 1e-9) * (own / own[0] + 1e-3)))


def _at_least(n: int, mask: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The mask; the n loudest frames where it has fewer."""
    return mask if mask.sum() >= n else level >= np.sort(level)[-min(n, len(level))]


def _smooth(track: np.ndarray, width: int) -> np.ndarray:
    """(T,) under a Hann window of odd width; the ends are held."""
    taper = np.hanning(width + 2)[1:-1]
    return np.convolve(np.pad(track, width // 2, mode="edge"), taper / taper.sum(), "valid")


def pitch_track(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pitch by autocorrelation, loudness and brightness, every 20 ms.

    Windows of 64 ms under a Hann taper, their autocorrelation divided by the taper's own (Boersma 1993, eq. 9); the
    highest peak between 60 and 500 Hz.

    Args:
        samples: (N,) int16, 16 kHz.

    Returns:
        pitch in log Hz; the peak's height: the share of energy that repeats; level in dB of the squared sample; tilt in
        dB. (1 + N // 320,) each.
    """
    wave = np.pad(samples.astype(np.float64), _FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(wave, _FRAME)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    taper = np.hanning(_FRAME)
    power = np.abs(np.fft.rfft(frames * taper, _FFT)) ** 2
    own = np.fft.irfft(np.abs(np.fft.rfft(taper, _FFT)) ** 2)[:_FRAME]
    repeat = np.fft.irfft(power)[:, :_FRAME]
    repeat /= (repeat[:, :1] + 1e-9) * (own / own[0] + 1e-3)
    first = RATE // _HIGHEST
    lags = np.arange(first, RATE // _LOWEST)
    # A tone repeats after two periods as well as after one: an octave down costs.
    period = (repeat[:, lags] - _OCTAVE * np.log2(lags)).argmax(axis=1) + first
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)
    low, high = (power[:, (hertz >= a) & (hertz < b)].sum(axis=1) for a, b in ((50, 1000), (1000, 5000)))
    return (
        np.log(RATE / period),
        repeat[np.arange(len(repeat)), period],
        10 * np.log10((frames**2).mean(axis=1) + 1),
        10 * np.log10((high + 1) / (low + 1)),
    )


def checked(audio: np.ndarray) -> np.ndarray:
    if audio.ndim != 1 or audio.dtype != np.int16 or len(audio) < 640:
        raise ClipError(
            Reason.TOO_SHORT, f"an utterance is (N,) int16 with 640 samples or more, got {audio.shape} {audio.dtype}"
        )
    return audio
