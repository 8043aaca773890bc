"""Changes the sample rate of sound with a zero-phase polyphase filter, which adds no delay, or as FFmpeg does.

The result of `resample` is equal to `scipy.signal.resample_poly` with its default window, bit for bit, which a test
checks. SciPy is not used, because it needs 143 MB and nothing else in the core installation needs it.
"""

from __future__ import annotations

from math import gcd

import av
import numpy as np

_HALF = 10  # half of the filter's length, in periods of the lower of the two rates
_BETA = 5.0  # of the Kaiser window


def resample(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """The samples at another rate.

    Args:
        samples: (N,) float32, at `rate` Hz. The sound before and after them is taken as 0.
        wanted: the rate of the result, Hz.

    Returns:
        (ceil(N * wanted / rate),) float32.
    """
    up, down = wanted // gcd(wanted, rate), rate // gcd(wanted, rate)
    if up == down:
        return samples
    half = _HALF * max(up, down)
    low_pass = _low_pass(half, max(up, down)) * np.float32(up)
    outputs = np.arange(-(-len(samples) * up // down), dtype=np.int64) * down + half  # in a signal at up * rate Hz
    phase, newest = outputs % up, outputs // up
    taps = -(-len(low_pass) // up)  # number of samples in the sum for one output
    # Row p has the taps of the outputs with phase p, from the oldest to the newest sample.
    filters = np.pad(low_pass, (0, taps * up - len(low_pass))).reshape(taps, up)[::-1].T
    padded = np.pad(samples, (taps - 1, max(0, newest.max(initial=0) + 1 - len(samples))))
    out = np.zeros(len(outputs), np.float32)
    for tap in range(taps):
        out += padded[newest + tap] * filters[phase, tap]
    return out


def whole_samples(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Sound in whole numbers at another rate: the result of `resample`, (M,) int16, with -1..1 as full scale.

    The arguments are those of `resample`. Values beyond full scale are clipped.
    """
    return np.clip(np.rint(resample(samples, rate, wanted) * 32768.0), -32768, 32767).astype(np.int16)


def ffmpeg_samples(samples: np.ndarray, rate: int, wanted: int) -> np.ndarray:
    """Sound in whole numbers at another rate, (M,) int16, by FFmpeg's own filter (libswresample).

    The arguments are those of `resample`. The command `ffmpeg -i IN -ac 1 -ar 16000 OUT.wav` gives the same samples up
    to 3 of 32768 on real clips, because it converts to mono in whole numbers; those of `whole_samples` differ by up to
    460.
    """
    if not len(samples):
        return np.zeros(0, np.int16)
    frame = av.AudioFrame.from_ndarray(np.asarray(samples, np.float32)[None], format="fltp", layout="mono")
    frame.sample_rate = rate
    resampler = av.AudioResampler(format="s16", layout="mono", rate=wanted)
    parts = [*resampler.resample(frame), *resampler.resample(None)]
    return np.concatenate([np.zeros(0, np.int16), *(part.to_ndarray()[0] for part in parts)])


def _low_pass(half: int, periods: int) -> np.ndarray:
    """A low-pass filter, (2 * half + 1,) float32: a sinc of `periods` samples per half wave in a Kaiser window."""
    at = np.arange(-half, half + 1, dtype=np.float64)
    window = np.i0(_BETA * np.sqrt(1 - (at / half) ** 2)) / np.i0(_BETA)
    taps = np.sinc(at * (1 / periods)) * (1 / periods) * window
    return np.asarray(taps / taps.sum(), np.float32)
