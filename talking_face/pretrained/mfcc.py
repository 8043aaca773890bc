"""Mel-frequency cepstra (MFCC), the sound input of SyncNet, equal to the default of python_speech_features 0.6."""

from __future__ import annotations

from functools import cache

import numpy as np

from talking_face.media.reading import AUDIO_RATE

STEP = 160  # samples from one row to the next: 10 ms
_LENGTH, _FFT = 400, 512
_FILTERS, _KEPT, _LIFTER = 26, 13, 22
_PREEMPHASIS = 0.97
_BLOCK = 4096  # number of rows that are computed at once: 41 s of sound, 34 MB


def mfcc(samples: np.ndarray) -> np.ndarray:
    """Computes a row of 13 cepstra per 10 ms of sound. The first value of a row is the log of the energy.

    Parameters: rectangular windows of 25 ms, pre-emphasis 0.97, 26 triangular mel filters from 0 to 8000 Hz over 512
    Fourier points, orthonormal cosine transform, lifter 22. The last window is padded with zeros.

    Args:
        samples: (N,) int16, mono, 16 kHz, N >= 1. Float samples in [-1, 1] are refused, because with such samples the
            first cepstrum would differ by 21 and the embeddings of SyncNet would be wrong.

    Returns:
        (1 + max(0, ceil((N - 400) / 160)), 13) float64, equal to `python_speech_features.mfcc(samples)` to 1e-9.
    """
    if samples.ndim != 1 or samples.dtype != np.int16 or not len(samples):
        raise ValueError(f"samples must be (N,) int16 with N >= 1, got {samples.shape} {samples.dtype}")
    x = samples.astype(np.float64)
    x[1:] -= _PREEMPHASIS * samples[:-1]
    rows = 1 + max(0, -(-(len(x) - _LENGTH) // STEP))
    x = np.pad(x, (0, max(0, (rows - 1) * STEP + _LENGTH - len(x))))
    windows = np.lib.stride_tricks.sliding_window_view(x, _LENGTH)[::STEP]
    return np.concatenate([_cepstra(windows[i : i + _BLOCK]) for i in range(0, rows, _BLOCK)])


def _cepstra(windows: np.ndarray) -> np.ndarray:
    spectrum = np.fft.rfft(windows, _FFT)
    power = (spectrum.real**2 + spectrum.imag**2) / _FFT
    bands = np.log(_floor(power @ _mel_filters().T))
    out = bands @ _cosines().T * (1 + _LIFTER / 2 * np.sin(np.pi * np.arange(_KEPT) / _LIFTER))
    out[:, 0] = np.log(_floor(power.sum(axis=1)))
    return out


def _floor(energy: np.ndarray) -> np.ndarray:
    """Replace an energy of 0 (digital silence) by the epsilon of float64, because 0 has no logarithm.

    python_speech_features does the same.
    """
    return np.where(energy == 0, np.finfo(np.float64).eps, energy)


@cache
def _mel_filters() -> np.ndarray:
    """The triangular mel filters, (26, 257).

    The corners of the filters are evenly spaced in mel = 2595 lg(1 + f/700), and then rounded down to whole Fourier
    points.
    """
    mel = np.linspace(0, 2595 * np.log10(1 + AUDIO_RATE / 2 / 700.0), _FILTERS + 2)
    corner = np.floor((_FFT + 1) * 700 * (10 ** (mel / 2595.0) - 1) / AUDIO_RATE)
    point = np.arange(_FFT // 2 + 1)
    left, middle, right = corner[:-2, None], corner[1:-1, None], corner[2:, None]
    return np.maximum(0, np.minimum((point - left) / (middle - left), (right - point) / (right - middle)))


@cache
def _cosines() -> np.ndarray:
    """The first 13 rows of the orthonormal DCT-II, (13, 26)."""
    k, n = np.arange(_KEPT)[:, None], np.arange(_FILTERS)
    rows = np.sqrt(2 / _FILTERS) * np.cos(np.pi * k * (2 * n + 1) / (2 * _FILTERS))
    rows[0] /= np.sqrt(2)
    return rows
