"""Measures the prosody of audio for both models: pitch, loudness, breath and brightness."""

from __future__ import annotations

from typing import Literal

import numpy as np

from talking_face.media.reading import AUDIO_RATE
from talking_face.reasons import ClipError, Reason

_FRAME, _HOP, _FFT = 1024, 320, 2048  # samples: 64 ms, 20 ms
_LOWEST, _HIGHEST = 60, 500  # Hz
_OCTAVE = 0.05  # of a peak's height, for each doubling of the period (Praat: 0.01; these voices have strong overtones)
_VOICED = 0.5  # of a frame's energy that repeats after one period
_AUDIBLE = 30.0  # dB below the loudest frame

PoolRule = Literal["mean", "emotions"]  # how a pool of utterances is encoded; see `cmet_reference.cmet.speech`


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
    "spectral tilt, dB: 1 to 5 kHz relative to lower frequencies",
)


class Prosody:
    """Encodes the prosody of an utterance as ten numbers: pitch, loudness, their movement, breath and brightness.

    Means and deviations of 13 cepstra, added to the first eight numbers, lowered the accuracy on held-out speakers from
    70 % to 63 % (nearest label, one clip minus the speaker's neutral mean). They depend more on voice and sentence than
    on emotion.
    """

    name = "prosody-1"
    size = len(PROSODY)
    pool_rule: PoolRule = "emotions"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        """(10,) float32 of (N,) int16 at 16 kHz. Raises ClipError where it is shorter than a frame."""
        return prosody(*pitch_track(checked(audio)))


def prosody(pitch: np.ndarray, strength: np.ndarray, level: np.ndarray, tilt: np.ndarray) -> np.ndarray:
    """The ten numbers of PROSODY, float32, from the results of `pitch_track`, (T,) each."""
    voiced = (strength > _VOICED) & (level > level.max() - _AUDIBLE)
    tones = pitch[voiced] if voiced.sum() >= 3 else np.full(3, np.log(150.0))  # whisper, silence: no movement
    low, high = np.percentile(tones, (10, 90))
    top = np.percentile(level, 95)
    loud = level > top - 15
    clear = loud & voiced if (loud & voiced).any() else loud
    share = np.clip(strength[clear], 0.01, 0.999)
    return np.array(
        [
            np.median(tones),
            high - low,
            np.abs(np.diff(tones)).mean(),
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
    first = AUDIO_RATE // _HIGHEST
    lags = np.arange(first, AUDIO_RATE // _LOWEST)
    # A tone repeats after two periods as well as after one: an octave down costs.
    period = (repeat[:, lags] - _OCTAVE * np.log2(lags)).argmax(axis=1) + first
    hertz = np.fft.rfftfreq(_FFT, 1 / AUDIO_RATE)
    low, high = (power[:, (hertz >= a) & (hertz < b)].sum(axis=1) for a, b in ((50, 1000), (1000, 5000)))
    return (
        np.log(AUDIO_RATE / period),
        repeat[np.arange(len(repeat)), period],
        10 * np.log10((frames**2).mean(axis=1) + 1),
        10 * np.log10((high + 1) / (low + 1)),
    )


def checked(audio: np.ndarray) -> np.ndarray:
    """The audio, (N,) int16. Raises ClipError where it has another form or less than 640 samples."""
    if audio.ndim != 1 or audio.dtype != np.int16 or len(audio) < 640:
        raise ClipError(
            Reason.TOO_SHORT, f"an utterance is (N,) int16 with 640 samples or more, got {audio.shape} {audio.dtype}"
        )
    return audio
