"""Lip-sync that needs no network: the opening of the mouth against the loudness of the driving sound, and their lag.

Not from a paper. It says whether the mouth opens when there is speech, not whether it forms the right sounds; the
networks of `lse_c` and `lse_d` do that. Useful where their weights are absent, and as a check on their offset.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from metrics.base import Metric, Sample, Score
from metrics.landmarks import eye_distance, mediapipe_68, mediapipe_landmarks, need_faces, points_id
from talking_face.reasons import ClipError, Reason

RATE = 16000  # Hz
MAX_LAG = 15  # frames to each side, SyncNet's
MIN_OVERLAP = 20  # frames that must remain under the largest lag
MIN_VALID = 0.8  # share of the frames that must have a face; the others are interpolated
FLOOR_DB = 40.0  # below the loudest frame: what is quieter counts as this quiet
SILENCE = 33  # of int16, -60 dB: quieter sound throughout is silence
_INNER_LIPS = (13, 14)  # of MediaPipe's mesh


class Match(NamedTuple):
    """How mouth and sound go together."""

    correlation: float  # at the best lag
    offset: int  # frames; as SyncNet's: positive where the picture is behind the sound
    by_lag: np.ndarray  # (2 * MAX_LAG + 1,) entry MAX_LAG + k: mouth[i] with sound[i + k]


def loudness(audio: np.ndarray, n_frames: int, fps: float = 25.0) -> np.ndarray:
    """Power of the sound around each frame in dB, Hann window of two frames, cut 40 dB under the loudest frame.

    Args:
        audio: (N,) int16 mono, 16 kHz, sample 0 at the first frame's start; shorter sound is silent at the end.

    Returns:
        (n_frames,) float64, 0 for the quietest level and at most 40.
    """
    step = RATE / fps
    width = round(2 * step)
    window = np.hanning(width + 2)[1:-1]
    starts = np.rint((np.arange(n_frames) + 0.5) * step - width / 2).astype(int)
    padded = np.pad(audio.astype(np.float64), (width, width + max(0, round(n_frames * step) - len(audio))))
    chunks = padded[starts[:, None] + width + np.arange(width)]
    power = (chunks**2 * window).sum(axis=1) / window.sum()
    level = 10 * np.log10(power + 1e-3)
    return np.asarray(np.maximum(level - level.max() + FLOOR_DB, 0.0))


def match(mouth: np.ndarray, sound: np.ndarray) -> Match:
    """The lag at which two tracks correlate best.

    Args:
        mouth, sound: (T,) of one length, T at least MAX_LAG + MIN_OVERLAP.

    Example:
        >>> wave = np.random.default_rng(0).normal(size=70)
        >>> match(wave[5:65], wave[8:68]).offset  # the sound is 3 frames early
        3
    """
    if mouth.shape != sound.shape or mouth.ndim != 1 or len(mouth) < MAX_LAG + MIN_OVERLAP:
        raise ValueError(f"mouth and sound must both be (T >= {MAX_LAG + MIN_OVERLAP},)")
    by_lag = np.zeros(2 * MAX_LAG + 1)
    for k in range(-MAX_LAG, MAX_LAG + 1):
        n = len(mouth) - abs(k)
        a, b = mouth[max(0, -k) :][:n], sound[max(0, k) :][:n]
        a, b = a - a.mean(), b - b.mean()
        norm = np.sqrt((a @ a) * (b @ b))
        by_lag[MAX_LAG + k] = (a @ b) / norm if norm > 1e-12 else 0.0
    best = int(by_lag.argmax())
    return Match(float(by_lag[best]), MAX_LAG - best, by_lag)


def opening(sample: Sample) -> np.ndarray:
    """(T,) distance between the inner lips over the clip's median eye distance; frames without a face interpolated.

    Raises ClipError no-face or few-faces.
    """
    return sample.cached("mouth-opening", _opening)


def _opening(sample: Sample) -> np.ndarray:
    mesh = mediapipe_landmarks(sample)[..., :2].astype(np.float64)
    found = np.asarray(np.isfinite(mesh).all(axis=(1, 2)))
    need_faces(sample.name, found, MIN_VALID)
    gap = np.linalg.norm(mesh[:, _INNER_LIPS[0]] - mesh[:, _INNER_LIPS[1]], axis=-1)
    gap = gap / np.median(eye_distance(mediapipe_68(sample)[found]))
    return np.interp(np.arange(len(gap)), np.flatnonzero(found), gap[found])


class LipEnergy(Metric):
    """Pearson's correlation of the mouth's opening with the loudness in dB, at the lag within 15 frames where it is
    highest.

    The sound is the driving audio, which the generated sample carries. Reasons: no-audio, silent, too-short (under 35
    frames), length-mismatch (sound for under 90% of the frames), no-face, few-faces, not-finite (the mouth does not
    move). Stats: offset (signed), correlation, in_step (correlation without a lag), frames.
    """

    name = "lip_energy"
    variant = "correlation"
    higher_is_better = True
    unit = ""
    summary = "opening of the mouth against loudness of the driving sound, correlation at the best lag"
    needs_audio = True

    def settings(self) -> Mapping[str, Any]:
        return {
            "points": points_id(),
            "mouth": "inner-lips",
            "sound": "db-hann-2-frames-floor-40",
            "audio": "driving",
            "lag": MAX_LAG,
            "min-valid": MIN_VALID,
            "agg": "video-mean",
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        found = pred.cached("lip-energy", self._match)
        stats = {
            "offset": float(found.offset),
            "correlation": found.correlation,
            "in_step": float(found.by_lag[MAX_LAG]),
            "frames": float(len(pred.frames)),
        }
        return Score(self.value(found), len(pred.frames), None, f"offset {found.offset} frames", stats)

    def value(self, found: Match) -> float:
        """The metric's number."""
        return found.correlation

    @staticmethod
    def _match(sample: Sample) -> Match:
        n, audio = len(sample.frames), sample.audio
        if audio is None or not len(audio):
            raise ClipError(Reason.NO_AUDIO, f"{sample.name} has no sound")
        if n < MAX_LAG + MIN_OVERLAP:
            raise ClipError(Reason.TOO_SHORT, f"{sample.name} has {n} frames; {MAX_LAG + MIN_OVERLAP} needed")
        if len(audio) < 0.9 * n * RATE / sample.fps:
            heard = len(audio) / RATE * sample.fps
            raise ClipError(Reason.LENGTH_MISMATCH, f"{sample.name}: sound for {heard:.0f} of {n} frames")
        if np.abs(audio.astype(np.int32)).max() < SILENCE:
            raise ClipError(Reason.SILENT, f"{sample.name}: the sound is silent, under -60 dB throughout")
        mouth = opening(sample)
        if mouth.std() < 1e-9:
            raise ClipError(Reason.NOT_FINITE, f"{sample.name}: the mouth does not move, so nothing correlates with it")
        return match(mouth, loudness(audio, n, sample.fps))


class LipEnergyOffset(LipEnergy):
    """Frames by which picture and sound are apart, either way; with its sign in the stats. Otherwise as `LipEnergy`."""

    variant = "offset"
    higher_is_better = False
    unit = "frames"
    summary = "lag between the opening of the mouth and the loudness of the driving sound"

    def settings(self) -> Mapping[str, Any]:
        return {"value": "absolute", **super().settings()}

    def value(self, found: Match) -> float:
        return float(abs(found.offset))
