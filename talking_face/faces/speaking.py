"""Chooses the speaking face among several faces: the face whose mouth movements agree best with the sound.

From ten frequency bands of the sound, a linear map predicts the speed at which five distances of the mouth change. The
measured changes of each face are correlated with the prediction. The map is in the table speaking.csv, which
embedded_corpus/fit_speaking.py fitted on the embedded corpus only. In a test on 110 ordered pairs of GRID clips, in
which both people talk, the choice is correct 108 times. A simpler measure, the correlation of lip opening and loudness,
is correct 65 times. docs/reference/faces.md gives details.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np

from talking_face.media.reading import AUDIO_RATE
from talking_face.media.sound import is_nearly_silent

FPS = 25  # frames/s of the clips on which the table was fitted; the rate of their sound is AUDIO_RATE
BANDS, CONTEXT = 10, 2  # mel bands of the sound; frames of sound used on each side of the predicted frame
# Distances between mesh points. Speech changes these distances.
DISTANCES: tuple[tuple[str, int, int], ...] = (
    *(("inner_opening", 13, 14), ("outer_opening", 0, 17), ("width", 61, 291)),
    *(("jaw", 2, 152), ("inner_width", 78, 308)),
)
MAX_LAG = 5  # frames; the largest lag of the sound that is tried, in both directions
_LAG_COST = 0.02  # per frame of lag, this cost is subtracted from the correlation, because most files are in sync
# The smallest difference between the best and the second best score at which the best face counts as the speaker. In
# the 110 GRID pairs, the largest such difference of a wrong face was 0.016.
MIN_MARGIN = 0.02
_SETTLING = 5  # frames after a face enters in which the landmarks are not steady
MIN_VALID = 0.5  # share of frames in which a candidate's face must be found
_HIGHEST_HZ, _LOWEST_HZ, _WINDOW = 7600.0, 80.0, 1024
_FLOOR = 1e-4  # share of the sound's power that is added to every band before the logarithm

How = Literal["only", "speaking", "largest"]


@dataclass(frozen=True, slots=True)
class Choice:
    """The chosen face, and the reason for the choice."""

    index: int
    how: How
    # Score of the chosen face minus the best score of the other faces. The difference is negative if the main face was
    # chosen and does not have the best score. None if no scores were computed.
    margin: float | None


def choose_speaker(
    landmarks: Sequence[np.ndarray], valid: Sequence[np.ndarray], audio: np.ndarray | None, fps: float = FPS
) -> Choice:
    """The speaking face of a clip. If no face clearly speaks, the first candidate that is not ignored is chosen.

    A candidate is ignored if the candidate's face is found in a smaller share of the frames than `MIN_VALID`.

    Args:
        landmarks: (T, 478, 2 or 3) px for each candidate. The main face is the first candidate.
        valid: (T,) bool for each candidate, True for frames in which the candidate's face was found.
        audio: (N,) int16 mono sound at 16 kHz, which starts with the first frame; None if there is no sound. Sound that
            is nearly silent while the faces are seen counts as no sound: mouths would be compared with noise.
    """
    usable = [i for i, seen in enumerate(valid) if len(seen) and seen.mean() >= MIN_VALID]
    if len(usable) < 2:
        return Choice(usable[0] if usable else 0, "only", None)
    if audio is None or is_nearly_silent(audio[: round(len(valid[0]) / fps * AUDIO_RATE)], AUDIO_RATE):
        return Choice(usable[0], "largest", None)
    predicted = predict_motion(sound_bands(audio, round(len(valid[0]) / fps * FPS)))
    # If a person enters later, all people are compared only from then on, without the first frames, in which the
    # landmarks are not steady yet.
    entered = max(int(np.argmax(valid[i])) for i in usable)
    start = math.ceil(entered / fps * FPS) + _SETTLING if entered else 0
    scores = []
    for i in usable:
        at = np.minimum(np.rint(np.arange(len(predicted)) / FPS * fps).astype(int), len(valid[i]) - 1)
        scores.append(agreement(mouth_motion(landmarks[i][at], valid[i][at])[start:], predicted[start:]))
    order = np.argsort(scores)[::-1]
    margin = float(scores[order[0]] - scores[order[1]])
    if margin >= MIN_MARGIN:
        return Choice(usable[int(order[0])], "speaking", margin)
    return Choice(usable[0], "largest", margin if order[0] == 0 else float(scores[0] - scores[order[0]]))


def agreement(motion: np.ndarray, predicted: np.ndarray) -> float:
    """The best weighted correlation of two (T, 5) motions over all lags, minus the cost of the lag."""
    weights = _table()[1]
    best = -1.0
    for lag in range(-MAX_LAG, MAX_LAG + 1):
        n = len(motion) - abs(lag)
        if n < FPS // 2:
            continue
        a = predicted[max(0, lag) :][:n]
        b = motion[max(0, -lag) :][:n]
        a, b = a - a.mean(axis=0), b - b.mean(axis=0)
        together = (a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0) + 1e-9)
        best = max(best, float(together @ weights / weights.sum()) - _LAG_COST * abs(lag))
    return best


def mouth_motion(landmarks: np.ndarray, valid: np.ndarray) -> np.ndarray:
    """Changes of the five distances from frame to frame, (T, 5). Each column has mean 0 and standard deviation 1.

    The rows of frames without a face are 0.
    """
    points = landmarks[..., :2].astype(np.float64)
    height = np.nanmedian(np.ptp(points[..., 1], axis=1))
    spans = [np.linalg.norm(points[:, a] - points[:, b], axis=-1) for _, a, b in DISTANCES]
    motion = np.gradient(np.stack(spans, axis=1) / height, axis=0)
    motion[~valid] = np.nan
    lost = np.isnan(motion).any(axis=1)
    motion[~lost] = _standard(motion[~lost])
    motion[lost] = 0
    return motion


def sound_bands(audio: np.ndarray, n_frames: int) -> np.ndarray:
    """Log power of the sound in 10 mel bands at each frame, (n_frames, 10), standardized over the clip.

    `audio`: (N,) int16 mono at 16 kHz.
    """
    wave = audio.astype(np.float64)
    wave = wave / (np.sqrt(np.mean(wave**2)) + 1e-9) if len(wave) else np.zeros(1)
    wave = np.append(wave[0], wave[1:] - 0.97 * wave[:-1])
    hop = AUDIO_RATE // FPS
    wave = np.pad(wave, (_WINDOW // 2, _WINDOW + max(0, n_frames * hop - len(wave))))
    starts = np.arange(n_frames) * hop + hop // 2
    windows = np.lib.stride_tricks.sliding_window_view(wave, _WINDOW)[starts] * np.hanning(_WINDOW)
    power = np.abs(np.fft.rfft(windows, axis=1)) ** 2 / _WINDOW
    return _standard(np.log(power @ _filters() + _FLOOR))


def with_context(bands: np.ndarray) -> np.ndarray:
    """The bands of five frames per frame, (T, 50): two frames before, the frame itself and two frames after."""
    padded = np.pad(bands, ((CONTEXT, CONTEXT), (0, 0)), mode="edge")
    return np.concatenate([padded[k : k + len(bands)] for k in range(2 * CONTEXT + 1)], axis=1)


def predict_motion(bands: np.ndarray) -> np.ndarray:
    """The mouth motion, (T, 5), that the linear map predicts from the result of `sound_bands`, (T, 10)."""
    return with_context(bands) @ _table()[0]


@cache
def _table() -> tuple[np.ndarray, np.ndarray]:
    """The linear map, (50, 5), and the weights of the five distances, (5,)."""
    rows = np.loadtxt(Path(__file__).with_suffix(".csv"), delimiter=",", comments="#", dtype=np.float64)
    return rows[1:], rows[0]


@cache
def _filters() -> np.ndarray:
    """Triangular filters of equal width on the mel scale, (513, 10)."""
    low_mel, high_mel = (2595 * np.log10(1 + hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    edges = 700 * (10 ** (np.linspace(low_mel, high_mel, BANDS + 2) / 2595) - 1)
    hz = np.arange(_WINDOW // 2 + 1)[:, None] * AUDIO_RATE / _WINDOW
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    return np.clip(np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)), 0, None)


def _standard(values: np.ndarray) -> np.ndarray:
    return (values - values.mean(axis=0)) / (values.std(axis=0) + 1e-6) if len(values) else values
