"""Computes AEE's input features from audio, and aligns the features of two clips in time."""

from __future__ import annotations

import numpy as np

from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net.aee_settings import AeeNetSettings
from cmet_reference.voice import checked, pitch_track, prosody


def window_shape(settings: AeeNetSettings) -> tuple[int, int]:
    """The shape of a window: (steps, features)."""
    return (sound.CEPSTRUM_STEPS, sound.CEPSTRA if settings.features == "mfcc" else sound.MELS // settings.merge)


def features_of(audio: np.ndarray, settings: AeeNetSettings) -> np.ndarray:
    """Computes the input features of audio, (N,) int16 at 16 kHz: (R, F) float32.

    If `settings.features` is "mfcc", the features are 12 cepstra with 100 rows per second. If it is "mel", they are 80
    mel bands with 80 rows per second. Then each group of `pool` successive rows is averaged. With "mel", each group of
    `merge` neighbouring bands is averaged too.
    """
    if settings.features == "mfcc":
        rows = sound.cepstra(audio)
    else:
        rows = sound.mel(audio).T.reshape(-1, sound.MELS // settings.merge, settings.merge).mean(axis=2)
    kept = rows[: len(rows) // settings.pool * settings.pool]
    return np.ascontiguousarray(kept.reshape(-1, settings.pool, rows.shape[1]).mean(axis=1))


def feature_windows(rows: np.ndarray, frames: np.ndarray, settings: AeeNetSettings) -> np.ndarray:
    """Windows of 28 rows centred on video frames of 40 ms: (len(frames), 28, F).

    Rows before the start of the clip are copies of the first row; rows after the end are copies of the last row.

    Args:
        rows: (R, F), the result of `features_of`.
        frames: integer frame numbers.
    """
    if settings.features == "mfcc" and settings.pool == 1:
        return sound.cepstrum_windows(rows, frames)
    # The first row of cepstra starts 0.12 s before the audio, and the middle of a row is 12.5 ms after its start.
    step, before = (160, 1920 - 200) if settings.features == "mfcc" else (sound.MEL_HOP, 0)
    middle = ((np.asarray(frames) + 0.5) * sound.SAMPLES_A_FRAME + before) / (step * settings.pool)
    start = np.round(middle - sound.CEPSTRUM_STEPS / 2).astype(int)
    return rows[np.clip(start[:, None] + np.arange(sound.CEPSTRUM_STEPS), 0, len(rows) - 1)]


def clip_features(audio: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Features of a whole clip: its prosody, and the mean and standard deviation of its input features over time.

    Args:
        audio: (N,) int16, 16 kHz.
        rows: (R, F), the result of `features_of` for this audio.

    Returns:
        (22 + 2 F,) float32.
    """
    return np.concatenate([prosody_features(audio), rows.mean(axis=0), rows.std(axis=0)]).astype(np.float32)


N_PROSODY = 22


def prosody_features(audio: np.ndarray) -> np.ndarray:
    """The prosody of a whole clip, (22,) float32.

    The numbers are, in this order:

    - the ten numbers of `cmet_reference.voice.Prosody`;
    - the slopes of pitch and of level over the clip;
    - percentiles 5, 25, 75 and 95 of the pitch minus its median, and the standard deviation of the pitch;
    - the three quartiles, over voiced frames, of the share of energy that repeats after one period;
    - the standard deviation of the spectral tilt in voiced frames;
    - the correlation between pitch and level.

    Args:
        audio: (N,) int16, 16 kHz, at least one video frame (40 ms) long.
    """
    pitch, strength, level, tilt = pitch_track(checked(audio))
    voiced = (strength > 0.5) & (level > level.max() - 30)
    more = np.zeros(12)
    more[1] = _slope(level)
    if voiced.sum() >= 5:  # 0.1 s of voice
        tones, loud = pitch[voiced], level[voiced]
        together = np.corrcoef(tones, loud)[0, 1] if tones.std() > 0 and loud.std() > 0 else 0.0
        more[0] = _slope(tones)
        more[2:6] = np.percentile(tones, (5, 25, 75, 95)) - np.median(tones)
        more[6:] = [tones.std(), *np.percentile(strength[voiced], (25, 50, 75)), tilt[voiced].std(), together]
    return np.concatenate([prosody(pitch, strength, level, tilt), more]).astype(np.float32)


def _slope(values: np.ndarray) -> float:
    """The slope of a line fitted to the values; the unit of time is half of the whole duration."""
    return float(np.polyfit(np.linspace(-1, 1, len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def warp(rows: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Aligns `rows` (R, F) in time with `onto` (S, F) by dynamic time warping. Returns (S, F).

    The cost of a match is the L1 distance between the two rows. Steps (1, 0), (0, 1) and (1, 1) have equal weight. If
    several rows match one row of `onto`, the last of them is kept, as in jixinya/EVP, MFCC_dtw.py. The time is
    proportional to R * S: 2 ms for 200 * 200.
    """
    from scipy.spatial.distance import cdist

    cost = cdist(rows, onto, "cityblock")
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for d in range(2, n + m + 1):  # computes one anti-diagonal per step: i + j = d
        i = np.arange(max(1, d - m), min(n, d - 1) + 1)
        j = d - i
        before = np.minimum(np.minimum(total[i - 1, j], total[i, j - 1]), total[i - 1, j - 1])
        total[i, j] = before + cost[i - 1, j - 1]
    i, j = n, m
    match = np.full(m, -1)
    while i and j:
        match[j - 1] = max(match[j - 1], i - 1)
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: total[at])
    return rows[match]
