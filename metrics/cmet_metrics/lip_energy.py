"""Lip-sync that needs no network: the mouth's opening against what the energy of the driving sound foretells, and lag.

Not from a paper. How fast the mouth opens is foretold from the sound's energy in ten bands around the frame by a linear
map fitted on the embedded corpus (talking_face/faces/speaking.py), and correlated with how fast it does. Plain loudness
against opening gives the lag only to a frame or two on drawings, and not at all for half of the GRID clips. It says
whether the mouth opens when it should, not whether it forms the right sounds; the networks of `lse_c` and `lse_d` do
that. Useful where their weights are absent, and as a check on their offset.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.landmarks import mediapipe_landmarks, need_faces, points_id
from talking_face.faces import speaking
from talking_face.faces.speaking import FPS, foretell, mouth_motion, sound_bands
from talking_face.reasons import ClipError, Reason

RATE = 16000  # Hz
MAX_LAG = 15  # frames to each side, SyncNet's
MIN_OVERLAP = 20  # frames that must remain under the largest lag
MIN_VALID = 0.8  # share of the frames that must have a face; the others count as standing still
SILENCE = 33  # of int16, -60 dB: quieter sound throughout is silence
_OPENING = 0  # column of the distances in speaking.py: the inner lips'


class Match(NamedTuple):
    """How mouth and sound go together."""

    correlation: float  # at the best lag
    offset: int  # frames; as SyncNet's: positive where the picture is behind the sound
    by_lag: np.ndarray  # (2 * MAX_LAG + 1,) entry MAX_LAG + k: mouth[i] with sound[i + k]


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


@cache
def map_tag() -> str:
    """First 8 hex digits of the map's file: another fit gives other values."""
    return hashlib.sha256(Path(speaking.__file__).with_name("speaking.csv").read_bytes()).hexdigest()[:8]


class LipEnergy(Metric):
    """Pearson's correlation of the change of the mouth's opening, from frame to frame, with the change that the sound
    foretells, at the lag within 15 frames where it is highest.

    The sound is the driving audio, which the generated sample carries. Reasons: no-audio, silent, too-short (under 35
    frames), rate-mismatch (not 25 frames/s), length-mismatch (sound for under 90% of the frames), no-face, few-faces,
    not-finite (the mouth does not move). Stats: offset (signed), correlation, in_step (correlation without a lag),
    frames.
    """

    name = "lip_energy"
    variant = "correlation"
    higher_is_better = True
    unit = ""
    summary = "opening of the mouth against what the driving sound's energy foretells, correlation at the best lag"
    needs_audio = True
    needs_target = False

    def settings(self) -> Mapping[str, Any]:
        return {
            "points": points_id(),
            "mouth": "inner-lips",
            "sound": f"mel-10-linear@{map_tag()}",
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
        if sample.fps != FPS:
            raise ClipError(Reason.RATE_MISMATCH, f"{sample.name} has {sample.fps:g} frames/s; the map needs {FPS}")
        if n < MAX_LAG + MIN_OVERLAP:
            raise ClipError(Reason.TOO_SHORT, f"{sample.name} has {n} frames; {MAX_LAG + MIN_OVERLAP} needed")
        if len(audio) < 0.9 * n * RATE / sample.fps:
            heard = len(audio) / RATE * sample.fps
            raise ClipError(Reason.LENGTH_MISMATCH, f"{sample.name}: sound for {heard:.0f} of {n} frames")
        if np.abs(audio.astype(np.int32)).max() < SILENCE:
            raise ClipError(Reason.SILENT, f"{sample.name}: the sound is silent, under -60 dB throughout")
        mesh = mediapipe_landmarks(sample)
        seen = np.asarray(np.isfinite(mesh).all(axis=(1, 2)))
        need_faces(sample.name, seen, MIN_VALID)
        mouth = mouth_motion(mesh, seen)[:, _OPENING]
        if mouth.std() < 1e-3:
            raise ClipError(Reason.NOT_FINITE, f"{sample.name}: the mouth does not move, so nothing correlates with it")
        return match(mouth, foretell(sound_bands(audio, n))[:, _OPENING])


class LipEnergyOffset(LipEnergy):
    """Frames by which picture and sound are apart, either way; with its sign in the stats. Otherwise as `LipEnergy`."""

    variant = "offset"
    higher_is_better = False
    unit = "frames"
    summary = "lag between the opening of the mouth and the energy of the driving sound"

    def settings(self) -> Mapping[str, Any]:
        return {"value": "absolute", **super().settings()}

    def value(self, found: Match) -> float:
        return float(abs(found.offset))
