"""Defines how eight emotions look and sound at three levels: rig weights, head pose, manner of speech, blinks, gaze."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from embedded_corpus.identity import Identity, key_seed
from embedded_corpus.pose import Pose
from embedded_corpus.rig import ACTION_INDEX, ACTIONS
from embedded_corpus.speech import MOUTH

LEVELS = {1: 0.50, 2: 0.78, 3: 1.08}
# Weights of the rig's actions at strength 1. The value "eye" is added to the opening of both eyes. In `contempt`, one
# lip corner rises on one side of the face, and the outer brow rises on the other side.
_FACES: dict[str, dict[str, float]] = {
    "neutral": {},
    "happy": {
        "corner_up_l": 1.0, "corner_up_r": 1.0, "cheek_raise": 0.95, "lid_low": 0.65, "wide": 0.35,
        "upper_raise": 0.40, "open": 0.22, "brow_outer_up_l": 0.12, "brow_outer_up_r": 0.12,
    },
    "sad": {
        "corner_down_l": 0.9, "corner_down_r": 0.9, "brow_inner_up": 1.0, "brow_down": 0.15, "chin_raise": 0.35,
        "eye": -0.24,
    },
    "angry": {
        "brow_down": 1.25, "lid_low": 0.45, "eye": 0.05, "nose_wrinkle": 0.35, "press": 0.25, "corner_down_l": 0.28,
        "corner_down_r": 0.28, "lower_drop": 0.25, "chin_raise": 0.20,
    },
    "disgusted": {
        "nose_wrinkle": 1.25, "upper_raise": 0.95, "brow_down": 0.55, "lid_low": 0.60, "eye": -0.16,
        "cheek_raise": 0.50, "corner_down_l": 0.50, "corner_down_r": 0.50, "chin_raise": 0.25,
    },
    "fear": {
        "brow_inner_up": 0.95, "brow_outer_up_l": 0.35, "brow_outer_up_r": 0.35, "brow_down": 0.30, "eye": 0.26,
        "wide": 0.60, "lower_drop": 0.55, "open": 0.30, "corner_down_l": 0.35, "corner_down_r": 0.35,
    },
    "surprised": {
        "brow_inner_up": 1.0, "brow_outer_up_l": 1.1, "brow_outer_up_r": 1.1, "eye": 0.32, "open": 0.85,
        "round": 0.15,
    },
    "contempt": {
        "corner_up_l": 0.90, "press": 0.12, "brow_outer_up_r": 0.75, "brow_down": 0.20, "eye": -0.20,
        "lid_low": 0.30, "nose_wrinkle": 0.15,
    },
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Manner:
    """How an emotion at strength 1 changes motion and speech. Factors are relative to the neutral manner."""

    pitch: float = 1.0
    swing: float = 1.0  # range of the intonation
    energy_db: float = 0.0
    tempo: float = 1.0  # factor of the lengths of the phones; speech with a factor above 1 is slower
    effort: float = 1.0  # factor of the mouth's movements
    breath: float = 1.0
    bright: float = 0.0  # spectral tilt, from -1 (dull) to 1 (pressed voice)
    head_pitch: float = 0.0  # radians; the head nods downwards if positive
    head_roll: float = 0.0
    head_yaw: float = 0.0
    lean: float = 0.0  # change of the head's scale
    motion: float = 1.0


_MANNERS = {
    "neutral": Manner(),
    "happy": Manner(1.25, 1.7, 3.0, 0.95, 1.12, 1.0, 0.3, -0.03, 0.03, 0.0, 0.005, 1.4),
    "sad": Manner(0.88, 0.45, -6.0, 1.18, 1.05, 2.2, -0.7, 0.075, 0.03, 0.0, -0.01, 0.6),
    "angry": Manner(1.18, 1.4, 6.0, 0.90, 1.18, 0.6, 1.0, 0.05, 0.0, 0.0, 0.03, 1.5),
    "disgusted": Manner(0.93, 0.9, 0.0, 1.10, 0.95, 1.2, 0.1, -0.03, -0.03, 0.06, -0.02, 0.9),
    "fear": Manner(1.38, 1.2, 1.0, 0.88, 0.98, 2.0, -0.1, -0.02, 0.0, 0.0, -0.025, 1.3),
    "surprised": Manner(1.42, 2.0, 4.0, 1.00, 1.15, 1.1, 0.3, -0.05, 0.0, 0.0, 0.0, 1.2),
    "contempt": Manner(0.92, 0.7, -1.5, 1.10, 0.92, 1.0, 0.0, -0.06, 0.07, 0.05, 0.0, 0.7),
}


def manner(emotion: str, level: int) -> Manner:
    """The manner of an emotion at a level: the neutral manner plus the level's strength times the full difference."""
    full, plain, k = _MANNERS[emotion], Manner(), LEVELS[level]
    return Manner(*(getattr(plain, n) + k * (getattr(full, n) - getattr(plain, n)) for n in Manner.__slots__))


def strength_track(emotion: str, level: int, times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) strength of the expression, from the level of the emotion.

    The expression starts at 0.35 of the level's strength and has the full strength after about half a second. Then the
    strength varies slowly.
    """
    if emotion == "neutral":
        return np.zeros(len(times), np.float32)
    rise = np.clip(times / rng.uniform(0.35, 0.60), 0, 1)
    rise = 0.35 + 0.65 * rise * rise * (3 - 2 * rise)
    return (LEVELS[level] * rise * (1 + 0.07 * _drift(times, rng, 0.9))).astype(np.float32)


def weight_track(
    person: Identity, emotion: str, strength: np.ndarray, mouth: np.ndarray, blink: np.ndarray
) -> np.ndarray:
    """(T, len(ACTIONS)) float32 weights of the rig's actions.

    Args:
        person: the speaker. Each speaker has individual gains of the actions, side of contempt and uneven eyes.
        emotion: the emotion.
        strength: (T,) strength of the expression.
        mouth: (T, len(MOUTH)) weights of the mouth's actions for the speech.
        blink: (T,) closing of the eyes, from 0 (open) to 1 (shut).
    """
    habit = np.random.default_rng(key_seed("habit", person.name, person.seed))
    out = np.zeros((len(strength), len(ACTIONS)), np.float32)
    gains = dict(zip(ACTIONS, habit.uniform(0.88, 1.12, len(ACTIONS)), strict=True))
    sided = emotion == "contempt" and habit.random() < 0.5
    eye = np.ones(len(strength), np.float32)
    for name, value in _FACES[emotion].items():
        if name == "eye":
            eye += value * strength
            continue
        if sided and name[-2:] in ("_l", "_r"):
            name = name[:-1] + ("r" if name.endswith("_l") else "l")
        out[:, ACTION_INDEX[name]] += value * gains[name] * strength
    closed = mouth[:, MOUTH.index("press")] / 0.75
    # For b, p and m, the lips close in every emotion, so the actions that open the lips are reduced. If the lips are
    # rounded, the action "wide" is reduced.
    for name in ("open", "upper_raise", "lower_drop"):
        out[:, ACTION_INDEX[name]] *= 1 - closed
    out[:, ACTION_INDEX["wide"]] *= 1 - 0.7 * mouth[:, MOUTH.index("round")]
    for k, name in enumerate(MOUTH):
        out[:, ACTION_INDEX[name]] += mouth[:, k]
    out[:, ACTION_INDEX["press"]] = np.clip(out[:, ACTION_INDEX["press"]], 0, 1.0)
    out[:, ACTION_INDEX["jaw"]] += 0.85 * out[:, ACTION_INDEX["open"]] + 0.10 * closed
    uneven = habit.uniform(-0.05, 0.05)
    out[:, ACTION_INDEX["eye_l"]] = eye * (1 + uneven) * (1 - blink)
    out[:, ACTION_INDEX["eye_r"]] = eye * (1 - uneven) * (1 - blink)
    out[:, ACTION_INDEX["lid_low"]] += 0.35 * blink
    return out


def blink_track(times: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """(T,) closing of the eyes, from 0 (open) to 1 (shut).

    There is a blink every 2 to 4 s. The eyes close in 70 ms, stay shut for 40 ms and open in 130 ms.
    """
    out = np.zeros(len(times), np.float32)
    at = float(rng.uniform(0.25, 2.2))
    while at < times[-1] + 0.2:
        since = times - at
        out = np.maximum(out, np.clip(np.minimum(since / 0.07, (0.24 - since) / 0.13), 0, 1))
        at += float(rng.uniform(1.8, 4.2))
    return (out * out * (3 - 2 * out)).astype(np.float32)


def pose_track(
    emotion: str, level: int, times: np.ndarray, strength: np.ndarray, energy: np.ndarray, rng: np.random.Generator
) -> list[Pose]:
    """One head pose per frame: the sum of the emotion's posture, a slow drift, and nods at loud syllables.

    `energy` is the loudness of the speech per frame, 0 to 1.
    """
    m = manner(emotion, level)
    k = strength / max(LEVELS[level], 1e-6) if emotion != "neutral" else np.zeros(len(times))
    nod = np.convolve(energy, np.hanning(9) / np.hanning(9).sum(), "same")
    turn = float(rng.uniform(-0.05, 0.05))
    side = 1 if rng.random() < 0.5 else -1
    yaw = turn + side * m.head_yaw * k + 0.035 * m.motion * _drift(times, rng, 0.7)
    pitch = (
        float(rng.uniform(-0.02, 0.02))
        + m.head_pitch * k
        + 0.020 * m.motion * _drift(times, rng, 0.8)
        + 0.030 * m.motion * (nod - 0.3)
    )
    roll = float(rng.uniform(-0.02, 0.02)) + side * m.head_roll * k + 0.018 * m.motion * _drift(times, rng, 0.6)
    dx, dy = 0.02 * m.motion * _drift(times, rng, 0.5), 0.012 * m.motion * _drift(times, rng, 0.6)
    scale = 1 + m.lean * k + 0.005 * _drift(times, rng, 0.5)
    jump = np.where(times > rng.uniform(0.3, 2.5), rng.uniform(-0.018, 0.018), 0.0) + rng.uniform(-0.008, 0.008)
    gaze_x, gaze_y = jump - 0.10 * (yaw - turn), 0.004 * _drift(times, rng, 0.5) - 0.05 * pitch
    rows = np.column_stack([yaw, pitch, roll, dx, dy, scale, gaze_x, gaze_y])
    return [Pose(*(float(v) for v in row)) for row in rows]


def _drift(times: np.ndarray, rng: np.random.Generator, hertz: float) -> np.ndarray:
    """Smooth noise between -1 and 1: the sum of three sines with frequencies near `hertz`."""
    rates = hertz * rng.uniform(0.4, 1.5, 3)
    phases = rng.uniform(0, 2 * np.pi, 3)
    return np.sin(2 * np.pi * times[:, None] * rates + phases) @ np.array([0.5, 0.3, 0.2])
