"""Computes CEM-Net's audio features with numpy: Wav2Lip's mel spectrogram for the lips, EVP's cepstra for the emotion.

Sources of the mel spectrogram: Rudrabha/Wav2Lip and Weizhi-Zhong/IP_LAP, models/audio.py. Source of the cepstra:
jixinya/EVP, train/disentanglement/dtw/MFCC_dtw.py.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from cmet_reference.clips import FPS, SAMPLES_A_FRAME
from talking_face.media.reading import AUDIO_RATE
from talking_face.pretrained.mfcc import mfcc

MELS, MEL_HOP, MEL_STEPS = 80, 200, 16  # bands, samples per column, columns per window (0.2 s, or five video frames)
_FFT, _FMIN, _FMAX, _PREEMPHASIS = 800, 55.0, 7600.0, 0.97
_MIN_DB, _REF_DB, _MAX_ABS = -100.0, 20.0, 4.0

CEPSTRA, CEPSTRUM_STEPS, CEPSTRUM_HOP = 12, 28, 4  # values per row, rows of 10 ms per window, rows per video frame
_MARGIN = 1920  # samples of silence that are added at each end before the cepstra are computed


def mel(audio: np.ndarray) -> np.ndarray:
    """The normalised mel spectrogram, 80 columns per second.

    First, the audio is filtered with a pre-emphasis of 0.97. Every 200 samples, the magnitude of a Fourier transform of
    800 samples with a Hann window is computed. Then 80 triangular filters are applied, from 55 to 7600 Hz on Slaney's
    scale, each with unit area. The result is converted to decibels, and -80 to 120 dB are mapped to -4 to 4. Samples
    before the start and after the end of the audio are zero. IP-LAP does the same, because librosa does so since
    version 0.9. Wav2Lip uses librosa 0.7, which mirrors the audio at the ends; this changes two columns at each end.

    Args:
        audio: (N,) int16, 16 kHz.

    Returns:
        (80, 1 + N // 200) float32 in [-4, 4].
    """
    if audio.ndim != 1 or audio.dtype != np.int16 or not len(audio):
        raise ValueError(f"audio must be (N,) int16 with N >= 1, got {audio.shape} {audio.dtype}")
    x = audio.astype(np.float64) / 32768
    x[1:] -= _PREEMPHASIS * (audio[:-1].astype(np.float64) / 32768)
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(x, _FFT // 2), _FFT)[::MEL_HOP]
    hann = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_FFT) / _FFT)
    power = np.abs(np.fft.rfft(windows * hann, axis=1)) @ _triangles().T
    decibel = 20 * np.log10(np.maximum(10 ** (_MIN_DB / 20), power)) - _REF_DB
    scaled = 2 * _MAX_ABS * (decibel - _MIN_DB) / -_MIN_DB - _MAX_ABS
    return np.clip(scaled, -_MAX_ABS, _MAX_ABS).T.astype(np.float32)


def mel_windows(spectrogram: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The window of 16 columns around each video frame. The window of frame i starts at column int(80 (i - 2) / 25).

    Columns before the start are copies of the first column, and columns after the end are copies of the last column.
    Source of the formula: Weizhi-Zhong/IP_LAP, train_landmarks_generator.py. In that file, frames near the ends are
    left out.

    Args:
        spectrogram: (80, C), the result of `mel`.
        frames: (F,) integer frame numbers at 25 frames/s; they may be negative or beyond the end of the clip.

    Returns:
        (F, 80, 16), float32.
    """
    start = np.trunc(AUDIO_RATE / MEL_HOP * (np.asarray(frames) - 2) / FPS).astype(int)
    columns = np.clip(start[:, None] + np.arange(MEL_STEPS), 0, spectrogram.shape[1] - 1)
    return np.ascontiguousarray(spectrogram[:, columns].transpose(1, 0, 2))


def cepstra(audio: np.ndarray) -> np.ndarray:
    """Cepstra 1 to 12 every 10 ms. The audio is padded with 0.12 s of silence at both ends.

    Cepstrum 0, which python_speech_features replaces by the energy, is removed, so that loudness has no effect.

    Args:
        audio: (N,) int16, 16 kHz.

    Returns:
        (R, 12) float32; for N = 640 T, R = 4 T + 23.
    """
    return mfcc(np.pad(audio, _MARGIN))[:, 1:].astype(np.float32)


def cepstrum_windows(rows: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """The window of 28 rows centred on each video frame.

    Rows before the start are copies of the first row, and rows after the end are copies of the last row.

    Args:
        rows: (R, 12), the result of `cepstra`.
        frames: (F,) integer frame numbers. EVP instead uses only frames whose 28 rows all exist.

    Returns:
        (F, 28, 12), float32.
    """
    index = CEPSTRUM_HOP * np.asarray(frames)[:, None] + np.arange(CEPSTRUM_STEPS)
    return rows[np.clip(index, 0, len(rows) - 1)]


def to_length(audio: np.ndarray, frames: int) -> np.ndarray:
    """Truncates audio, (N,) int16, to 640 samples per video frame, or pads it with zeros to that length."""
    audio = audio[: frames * SAMPLES_A_FRAME]
    return np.pad(audio, (0, frames * SAMPLES_A_FRAME - len(audio)))


@cache
def _triangles() -> np.ndarray:
    """The mel filters, (80, 401) float32.

    They equal librosa.filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600, htk=False, norm="slaney") of
    librosa 0.11.0 in every bit. For this, both steps are rounded to float32, as librosa does.
    """
    ends = _to_mel(np.array([_FMIN, _FMAX]))
    corner = _to_hertz(np.linspace(ends[0], ends[1], MELS + 2))
    hertz = np.fft.rfftfreq(_FFT, 1 / AUDIO_RATE)
    left, middle, right = corner[:-2, None], corner[1:-1, None], corner[2:, None]
    peak = np.maximum(0, np.minimum((hertz - left) / (middle - left), (right - hertz) / (right - middle)))
    return (peak.astype(np.float32) * (2 / (right - left))).astype(np.float32)


# Slaney's scale (Auditory Toolbox, 1998) is linear below 1000 Hz, which is 15 mel, and logarithmic above.
_LINEAR, _KNEE, _STEP = 200 / 3, 1000.0, np.log(6.4) / 27


def _to_mel(hertz: np.ndarray) -> np.ndarray:
    above = _KNEE / _LINEAR + np.log(np.maximum(hertz, _KNEE) / _KNEE) / _STEP
    return np.where(hertz < _KNEE, hertz / _LINEAR, above)


def _to_hertz(mels: np.ndarray) -> np.ndarray:
    above = _KNEE * np.exp(_STEP * (np.maximum(mels, _KNEE / _LINEAR) - _KNEE / _LINEAR))
    return np.where(mels < _KNEE / _LINEAR, mels * _LINEAR, above)
