"""Computes AEE's input features from audio, and aligns the features of two clips in time."""

from __future__ import annotations

import numpy as np

from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net.aee_settings import AeeNetSettings
from cmet_reference.voice import checked, pitch_track, prosody


def window_shape(settings: AeeNetSettings) -> tuple[int, int]:
    """(steps, features) of a window."""
    return (sound.CEPSTRUM_STEPS, sound.CEPSTRA if settings.features == "mfcc" else sound.MELS // settings.merge)


def features_of(audio: np.ndarray, settings: AeeNetSettings) -> np.ndarray:
    """(N,) int16 to (R, F) float32: 100 rows a second of 12 cepstra, or 80 a second of 80 mel bands, over
    `pool` and `merge`."""
    if settings.features == "mfcc":
        rows = sound.cepstra(audio)
    else:
        rows = sound.mel(audio).T.reshape(-1, sound.MELS // settings.merge, settings.merge).mean(axis=2)
    kept = rows[: len(rows) // settings.pool * settings.pool]
    return np.ascontiguousarray(kept.reshape(-1, settings.pool, rows.shape[1]).mean(axis=1))


def feature_windows(rows: np.ndarray, frames: np.ndarray, settings: AeeNetSettings) -> np.ndarray:
    """(R, F) to (len(frames), 28, F), centred on frames of 40 ms; rows beyond an end repeat the last one."""
    if settings.features == "mfcc" and settings.pool == 1:
        return sound.cepstrum_windows(rows, frames)
    # Cepstra start 0.12 s early, and a row's middle is 12.5 ms after its start.
    step, before = (160, 1920 - 200) if settings.features == "mfcc" else (sound.MEL_HOP, 0)
    middle = ((np.asarray(frames) + 0.5) * sound.SAMPLES_A_FRAME + before) / (step * settings.pool)
    start = np.round(middle - sound.CEPSTRUM_STEPS / 2).astype(int)
    return rows[np.clip(start[:, None] + np.arange(sound.CEPSTRUM_STEPS), 0, len(rows) - 1)]


def clip_features(audio: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Features of a whole clip: its `prosody_features`, and the mean and standard deviation of its features over time.

    Args:
        audio: (N,) int16, 16 kHz.
        rows: (R, F), its `features_of`.

    Returns:
        (22 + 2 F,) float32.
    """
    return np.concatenate([prosody_features(audio), rows.mean(axis=0), rows.std(axis=0)]).astype(np.float32)


N_PROSODY = 22


def prosody_features(audio: np.ndarray) -> np.ndarray:
    """The prosody of a whole clip, (22,) float32.

    The ten numbers of `cmet_reference.voice.Prosody`; the slopes of pitch and level over the clip; four percentiles (5,
    25, 75, 95) of pitch about its median and its standard deviation; three quartiles of the share of energy that
    repeats in voiced frames; the standard deviation of their tilt; the correlation of pitch and level.

    Args:
        audio: (N,) int16, 16 kHz, one frame of 40 ms or more.
    """
    pitch, strength, level, tilt = pitch_track(checked(audio))
    voiced = (strength > 0.5) & (level > level.max() - 30)
    more = np.zeros(12)
    more[1] = _slope(level)
    if voiced.sum() >= 5:  # 0.1 s
        tones, loud = pitch[voiced], level[voiced]
        together = np.corrcoef(tones, loud)[0, 1] if tones.std() > 0 and loud.std() > 0 else 0.0
        more[0] = _slope(tones)
        more[2:6] = np.percentile(tones, (5, 25, 75, 95)) - np.median(tones)
        more[6:] = [tones.std(), *np.percentile(strength[voiced], (25, 50, 75)), tilt[voiced].std(), together]
    return np.concatenate([prosody(pitch, strength, level, tilt), more]).astype(np.float32)


def _slope(values: np.ndarray) -> float:
    """The slope of a line through the values, per half of their length."""
    return float(np.polyfit(np.linspace(-1, 1, len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def warp(rows: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Dynamic time warping: `rows` (R, F) in the time of `onto` (S, F), to (S, F).

    L1 costs between rows, steps (1, 0), (0, 1) and (1, 1) of equal weight; where several rows map to one, the last
    is kept, as in jixinya/EVP, MFCC_dtw.py. Cost: R x S; 2 ms for 200 x 200.
    """
    from scipy.spatial.distance import cdist

    cost = cdist(rows, onto, "cityblock")
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for d in range(2, n + m + 1):  # along anti-diagonals: i + j = d
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
