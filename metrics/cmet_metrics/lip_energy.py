"""Measures lip-sync without a network: it predicts the mouth's motion from the energy of the driving sound.

The metric is not from a paper. A linear map predicts how fast the mouth opens, from the sound's energy in ten frequency
bands around the frame. The map was fitted on the embedded corpus (talking_face/faces/speaking.py). The metric is the
correlation between the predicted and the measured speed, or the lag with the highest correlation. A simpler metric, the
correlation of loudness with the mouth's opening, finds the lag of drawn clips only to within one or two frames. It
fails for half of the GRID clips.

The metric measures whether the mouth opens at the correct time. It does not measure whether the mouth's shape fits the
spoken sounds; the networks of `lse_c` and `lse_d` measure this fit. Use this metric if the weights of the networks are
missing, or to check the offset that the networks find.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np

from cmet_metrics.base import Sample, Score, Settings, Variant
from cmet_metrics.landmarks import MEDIAPIPE_MS, mediapipe_landmarks, need_faces, points_id
from cmet_metrics.sync import SyncMetric
from talking_face.faces import speaking
from talking_face.faces.speaking import FPS, mouth_motion, predict_motion, sound_bands
from talking_face.files import sha256_of
from talking_face.media.reading import AUDIO_RATE
from talking_face.reasons import ClipError, Reason

MAX_LAG = 15  # largest lag in frames, to each side; the same as SyncNet's
MIN_OVERLAP = 20  # number of frames that mouth and sound must have in common at the largest lag
MIN_VALID = 0.8  # minimum share of frames with a face; in the other frames the motion is 0
SILENCE = 33  # int16 amplitude, -60 dB; a clip whose sound is always below it is silent
Measure = Literal["correlation", "offset"]

_OPENING = 0  # the column of speaking.py's arrays that belongs to the distance between the inner lips


class Match(NamedTuple):
    """The correlation between the motion of the mouth and its prediction from the sound."""

    correlation: float  # at the lag with the highest correlation
    offset: int  # frames; as in SyncNet, it is positive if the picture is later than the sound
    by_lag: np.ndarray  # (2 * MAX_LAG + 1,); entry MAX_LAG + k compares mouth[i] with sound[i + k]


def match(mouth: np.ndarray, sound: np.ndarray) -> Match:
    """The lag at which two signals have the highest correlation.

    Args:
        mouth, sound: (T,) each, T at least MAX_LAG + MIN_OVERLAP.

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
    """First 8 hex digits of the SHA-256 of the linear map's file. A map with other numbers has another tag."""
    return sha256_of(Path(speaking.__file__).with_name("speaking.csv"))[:8]


@dataclass(frozen=True, kw_only=True)
class LipEnergy(SyncMetric):
    """Pearson's correlation between the frame-to-frame change of the mouth's opening and its prediction from the sound.

    `correlation`: the highest correlation at any lag of up to 15 frames. `offset`: the absolute value of that lag, that
    is, the offset between picture and sound in frames. The stats contain the offset with its sign.

    The sound is the driving sound, which is stored in the generated sample. Reasons: no-audio, silent, too-short (fewer
    than 35 frames), rate-mismatch (not 25 frames/s), length-mismatch (sound for less than 90% of the frames), no-face,
    few-faces, not-finite (the mouth does not move). Stats: offset (signed), correlation, in_step (correlation at lag
    0), frames.
    """

    measure: Measure = "correlation"

    name = "lip_energy"
    title = "Lip energy"
    pitfalls = (
        "It measures when the mouth opens, not which speech sound it forms. The highest of 31 correlations is "
        "never 0: another clip's sound gives 0.44 in the median. Use means over clips, or the offset."
    )
    order = 140
    needs_target = False
    weights = ("face_landmarker",)
    ms_per_frame = MEDIAPIPE_MS
    variants_are_protocols = False
    source = "this suite"
    variants = {
        "lip_energy:correlation": Variant(
            "correlation of the mouth's opening with its prediction from the driving sound's energy, at the best lag"
        ),
        "lip_energy:offset": Variant(
            "lag between the opening of the mouth and the energy of the driving sound", {"measure": "offset"}
        ),
    }

    @property
    def higher_is_better(self) -> bool:
        return self.measure == "correlation"

    @property
    def limits(self) -> tuple[float, float]:
        return (-1.0, 1.0) if self.measure == "correlation" else (0.0, float(MAX_LAG))

    @property
    def measures_offset(self) -> bool:
        return self.measure == "offset"

    def settings(self) -> Settings:
        return {
            **({"value": "absolute"} if self.measure == "offset" else {}),
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
        value = found.correlation if self.measure == "correlation" else float(abs(found.offset))
        return Score(value, len(pred.frames), None, f"offset {found.offset} frames", stats)

    def _match(self, sample: Sample) -> Match:
        n, audio = len(sample.frames), sample.audio
        if audio is None or not len(audio):
            raise ClipError(Reason.NO_AUDIO, f"{sample.name} has no sound")
        if sample.fps != FPS:
            raise ClipError(Reason.RATE_MISMATCH, f"{sample.name} has {sample.fps:g} frames/s; lip energy needs {FPS}")
        if n < MAX_LAG + MIN_OVERLAP:
            raise ClipError(Reason.TOO_SHORT, f"{sample.name} has {n} frames; {MAX_LAG + MIN_OVERLAP} needed")
        if len(audio) < 0.9 * n * AUDIO_RATE / sample.fps:
            heard = len(audio) / AUDIO_RATE * sample.fps
            raise ClipError(Reason.LENGTH_MISMATCH, f"{sample.name}: sound for {heard:.0f} of {n} frames")
        if np.abs(audio.astype(np.int32)).max() < SILENCE:
            raise ClipError(Reason.SILENT, f"{sample.name}: the sound is silent, under -60 dB throughout")
        mesh = mediapipe_landmarks(sample, self.files)
        seen = np.asarray(np.isfinite(mesh).all(axis=(1, 2)))
        need_faces(sample.name, seen, MIN_VALID)
        mouth = mouth_motion(mesh, seen)[:, _OPENING]
        if mouth.std() < 1e-3:
            raise ClipError(Reason.NOT_FINITE, f"{sample.name}: the mouth does not move, so nothing correlates with it")
        return match(mouth, predict_motion(sound_bands(audio, n))[:, _OPENING])


METRICS = (LipEnergy,)
