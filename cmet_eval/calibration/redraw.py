"""Draws clips of the embedded corpus again with one change: mouth, face or emotion."""

from __future__ import annotations

from dataclasses import replace
from typing import Protocol

import cv2
import numpy as np

from embedded_corpus.clip import ClipSpec, Performance, draw, perform
from embedded_corpus.expression import LEVELS, manner, weight_track
from embedded_corpus.identity import get_identity, speaker_names
from embedded_corpus.plan import clip_specs
from embedded_corpus.rig import ACTION_INDEX
from embedded_corpus.speech import mouth_track
from talking_face.media.reading import FPS

# PSNR in dB. If a clip is drawn again from its name, the PSNR is at least SAME_DB. For another clip, it is below 20 dB.
SAME_DB = 30.0
_EYES = [ACTION_INDEX["eye_l"], ACTION_INDEX["eye_r"]]
# Emotion of a clip -> the emotion after `swap_emotion`. The face shows the two emotions with different muscles.
_OTHER = {
    "happy": "angry", "angry": "happy", "sad": "surprised", "surprised": "sad", "fear": "happy",
    "disgusted": "surprised", "contempt": "surprised", "neutral": "happy",
}  # fmt: skip


class ClipRow(Protocol):
    """The columns of a shard set's table of clips that this module reads."""

    clip_id: str
    speaker: str
    emotion: str
    intensity: int
    take: str


def other_emotion(emotion: str) -> str:
    """The emotion that replaces `emotion` in `swap_emotion`."""
    return _OTHER[emotion]


def other_speaker(speaker: str) -> str:
    """The next speaker of the corpus who has the same sex as `speaker`."""
    names = [name for name in speaker_names(8) if name[0] == speaker[0]]
    return names[(names.index(speaker) + 1) % len(names)] if speaker in names else names[0]


def changed_weights(act: Performance, mouth: float = 1.0, emotion: str | None = None) -> np.ndarray:
    """The weights of a performance after a change: the mouth's movement times `mouth`, or another emotion.

    The other emotion has the same strength as the first emotion. Blinks are kept.

    Returns:
        (T, len(ACTIONS)) float32; exactly `act.weights` if nothing changes.
    """
    spec = act.spec
    if mouth == 1 and emotion in (None, spec.emotion):
        return act.weights
    person = get_identity(spec.speaker)
    track = mouth_track(act.phones, act.times, manner(spec.emotion, spec.level).effort)
    still = np.zeros(len(act.times), np.float32)

    def weights(shown: str, factor: float, strength: np.ndarray) -> np.ndarray:
        return weight_track(person, shown, strength, track * factor, still)

    strength = act.strength
    if emotion == "neutral":
        strength = np.zeros_like(strength)
    elif emotion is not None and spec.emotion == "neutral":
        strength = np.full_like(strength, LEVELS[3])
    old, new = weights(spec.emotion, 1.0, act.strength), weights(emotion or spec.emotion, mouth, strength)
    out = act.weights + new - old
    # A blink multiplies the weights of the eyes by a factor, so the emotion is changed by a factor too.
    out[:, _EYES] = act.weights[:, _EYES] * new[:, _EYES] / old[:, _EYES]
    return np.asarray(out, np.float32)


class Redrawn:
    """One clip of the embedded corpus, which can be drawn again in the crop of its shard."""

    def __init__(self, spec: ClipSpec, crop_transform: np.ndarray, size: int, fps: float = 30.0) -> None:
        """`crop_transform`: (T, 2, 3), for T frames at 25 frames/s. `fps`: frame rate at which the clip was drawn."""
        self.spec, self._transform, self._size = spec, crop_transform, size
        self._act = perform(spec, fps)
        self._kept = np.minimum(np.round(np.arange(len(crop_transform)) * fps / FPS), len(self._act.poses) - 1)

    def frames(self, mouth: float = 1.0, speaker: str | None = None, emotion: str | None = None) -> np.ndarray:
        """(T, size, size, 3) uint8 RGB."""
        act = self._act
        weights, kept = changed_weights(act, mouth, emotion), self._kept.astype(int)
        drawn = replace(
            act,
            spec=replace(act.spec, speaker=speaker or act.spec.speaker),
            weights=weights[kept],
            poses=[act.poses[k] for k in kept],
        )
        return np.stack([self._cut(f, m) for f, m in zip(draw(drawn), self._transform, strict=True)])

    def _cut(self, picture: np.ndarray, transform: np.ndarray) -> np.ndarray:
        matrix = transform.astype(np.float64)
        # In shards, coordinate 0 is the edge of the first pixel. In OpenCV, coordinate 0 is the centre of this pixel.
        matrix[:, 2] += 0.5 * matrix[:, :2].sum(axis=1) - 0.5
        size = (self._size, self._size)
        return cv2.warpAffine(picture, matrix, size, flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)


def redrawn(row: ClipRow, frames: np.ndarray, crop_transform: np.ndarray) -> Redrawn | None:
    """The clip of a shard set's row, ready to be drawn again; None if it is not a clip of the default embedded corpus.

    The clip's name does not prove that the clip is from the embedded corpus. So the middle frame is drawn and compared
    with the stored middle frame. If the PSNR is below SAME_DB, the row is another clip.
    """
    key = f"{row.speaker}/front/{row.emotion}/level_{row.intensity}/{row.take}"
    if row.speaker not in speaker_names(8):
        return None
    spec = next((spec for spec in clip_specs(8) if spec.key == key), None)
    if spec is None or round(spec.seconds * FPS) < len(frames):
        return None
    again = Redrawn(spec, crop_transform, frames.shape[1])
    error = (again.frames()[len(frames) // 2].astype(float) - frames[len(frames) // 2]) ** 2
    return again if 10 * np.log10(255**2 / max(error.mean(), 1e-9)) >= SAME_DB else None
