"""Renders one clip: frames, sound and ground truth. The result depends only on the clip's `ClipSpec`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypedDict

import numpy as np

from embedded_corpus.draw import DETAIL, Renderer
from embedded_corpus.expression import blink_track, manner, pose_track, strength_track, weight_track
from embedded_corpus.identity import get_identity, key_seed
from embedded_corpus.pose import Pose
from embedded_corpus.rig import ACTION_INDEX, ACTIONS
from embedded_corpus.speech import Phone, mouth_track, sentence, time_phones
from embedded_corpus.voice import RATE, STEP, speak

FPS = 30
_MOUTH_OPENERS = ("open", "jaw", "lower_drop", "upper_raise")


@dataclass(frozen=True, slots=True)
class ClipSpec:
    """The content of one clip. The sentences of `sentence_ids` are spoken in order, as many as fit into `seconds`."""

    speaker: str
    emotion: str
    level: int
    take: int
    sentence_ids: tuple[str, ...]
    seconds: float = 2.0
    width: int = 640
    height: int = 360
    seed: int = 0
    detail: float = DETAIL  # pixels per 100 mm at which skin and hair are drawn, before they are scaled down
    cut: bool = False  # a first sentence that is too long ends with the clip; False: it is spoken faster

    @property
    def key(self) -> str:
        """The clip's key, for example M901/front/happy/level_3/001."""
        return f"{self.speaker}/front/{self.emotion}/level_{self.level}/{self.take:03d}"


class PhoneTruth(TypedDict):
    """A spoken phone, with its start and end in seconds from the start of the clip."""

    phone: str
    viseme: str
    start: float
    end: float


class ClipTruth(TypedDict):
    """The ground truth of a clip, JSON-ready."""

    speaker: str
    emotion: str
    level: int
    take: int
    sentence_id: str
    text: str
    fps: float
    size: list[int]  # width, height
    phones: list[PhoneTruth]
    frames: dict[str, list]  # one value per frame, by name of the value (see `_frame_truth`)


@lru_cache(maxsize=2)
def renderer(speaker: str, width: int, height: int, detail: float = DETAIL) -> Renderer:
    """The renderer of a speaker. The last two renderers are cached, because drawing textures takes about 1.6 s."""
    return Renderer(get_identity(speaker), width, height, detail)


@dataclass(frozen=True, slots=True)
class Performance:
    """The motion and the sound of a clip, before the pictures are drawn.

    There is one row of `weights` and one pose per frame.
    """

    spec: ClipSpec
    fps: float
    times: np.ndarray  # (T,) s, the middle of each frame
    weights: np.ndarray  # (T, len(ACTIONS)) float32
    poses: list[Pose]
    strength: np.ndarray  # (T,) strength of the expression
    phones: list[Phone]
    spoken: list[str]  # sentence ids
    sound: np.ndarray  # (N,) int16 mono at 48 kHz
    grain: int  # index that selects the camera noise of the first frame


def perform(spec: ClipSpec, fps: float = FPS, silent: bool = False) -> Performance:
    """Computes the motion and the sound of a clip, with round(seconds * fps) frames.

    If `silent`, the face moves, but the mouth stays shut and all samples of the sound are zero.
    """
    person = get_identity(spec.speaker)
    rng = np.random.default_rng(key_seed("clip", spec.seed, spec.key))
    how = manner(spec.emotion, spec.level)
    count = round(spec.seconds * fps)
    times = (np.arange(count) + 0.5) / fps  # a frame shows the middle of its time interval
    spoken, phones = time_phones(list(spec.sentence_ids), person.tempo * how.tempo, spec.seconds, rng, spec.cut)
    if silent:
        spoken, phones = [], [Phone("sil", "sil", 0.0, spec.seconds, 0.0)]
    fine = (np.arange(int(np.ceil(spec.seconds * RATE / STEP))) + 0.5) * STEP / RATE
    opening = mouth_track(phones, fine, how.effort)[:, 0]
    if silent:
        sound = np.zeros(round(spec.seconds * RATE), np.int16)
    else:
        sound = speak(person, phones, how, opening, spec.seconds, rng)
    mouth = mouth_track(phones, times, how.effort)
    strength = strength_track(spec.emotion, spec.level, times, rng)
    weights = weight_track(person, spec.emotion, strength, mouth, blink_track(times, rng))
    if silent:
        weights[:, [ACTION_INDEX[name] for name in _MOUTH_OPENERS]] = 0
    energy = np.interp(times, fine, np.clip(opening / 1.6, 0, 1))
    poses = pose_track(spec.emotion, spec.level, times, strength, energy, rng)
    return Performance(spec, fps, times, weights, poses, strength, phones, spoken, sound, int(rng.integers(4096)))


def draw(act: Performance) -> Iterator[np.ndarray]:
    """The pictures, each (height, width, 3) uint8 RGB, with the speaker's own background."""
    artist = renderer(act.spec.speaker, act.spec.width, act.spec.height, act.spec.detail)
    for k, (weights, pose) in enumerate(zip(act.weights, act.poses, strict=True)):
        yield artist.frame(weights, pose, act.grain + k)


def truth(act: Performance) -> ClipTruth:
    """The ground truth: the sentences, the phones with their times, and mouth, expression and pose per frame."""
    spec = act.spec
    artist = renderer(spec.speaker, spec.width, spec.height, spec.detail)
    return {
        "speaker": spec.speaker,
        "emotion": spec.emotion,
        "level": spec.level,
        "take": spec.take,
        "sentence_id": "+".join(act.spoken),
        "text": " ".join(sentence(s)[0] for s in act.spoken),
        "fps": act.fps,
        "size": [spec.width, spec.height],
        "phones": [{"phone": p.phone, "viseme": p.viseme, "start": p.start, "end": p.end} for p in act.phones],
        "frames": _frame_truth(artist, act.weights, act.poses, act.times, act.strength, act.phones),
    }


def render_clip(spec: ClipSpec, fps: float = FPS) -> tuple[Iterator[np.ndarray], np.ndarray, ClipTruth]:
    """(frames, sound, truth) of a clip.

    frames: iterator of round(seconds * fps) pictures, each (height, width, 3) uint8 RGB, at `fps` frames/s.
    sound: (N,) int16 mono at 48 kHz, N = round(seconds * 48000). The sound does not depend on the frame rate.
    truth: sentences, phones with times, visemes, and per frame the mouth, the expression and the pose.
    """
    act = perform(spec, fps)
    return draw(act), act.sound, truth(act)


def _frame_truth(
    artist: Renderer,
    weights: np.ndarray,
    poses: list[Pose],
    times: np.ndarray,
    strength: np.ndarray,
    phones: list[Phone],
) -> dict[str, list]:
    """Ground truth per frame. Openings and heights are in head coordinates, in units of 100 mm.

    mouth_open: gap between the inner lips at the middle of the mouth. mouth_open_px: the same gap in the picture, px.
    lip_corner: mean height of the two lip corners above the middle of the lips.
    expression: strength of the expression; 0 is neutral, 1.08 is the full strength of level 3.
    action/*: weight of each action of the rig.
    """
    opens, opens_px, corners, corner_l, corner_r = [], [], [], [], []
    for w, pose in zip(weights, poses, strict=True):
        marks = artist.marks(w)
        pixels = artist.project(marks, pose)
        middle = (marks[0, 1] + marks[1, 1]) / 2
        opens.append(max(0.0, float(marks[1, 1] - marks[0, 1])))
        opens_px.append(float(np.hypot(*(pixels[1] - pixels[0]))) if opens[-1] > 0 else 0.0)
        corner_l.append(float(middle - marks[2, 1]))
        corner_r.append(float(middle - marks[3, 1]))
        corners.append((corner_l[-1] + corner_r[-1]) / 2)
    index = np.clip(np.searchsorted([p.end for p in phones], times, side="right"), 0, len(phones) - 1)
    tracks = {
        "time": times,
        "mouth_open": opens,
        "mouth_open_px": opens_px,
        "lip_corner": corners,
        "lip_corner_left": corner_l,
        "lip_corner_right": corner_r,
        "expression": strength,
        "yaw": [p.yaw for p in poses],
        "pitch": [p.pitch for p in poses],
        "roll": [p.roll for p in poses],
        "shift_x": [p.dx for p in poses],
        "shift_y": [p.dy for p in poses],
        "scale": [p.scale for p in poses],
        "eye_open": (weights[:, ACTION_INDEX["eye_l"]] + weights[:, ACTION_INDEX["eye_r"]]) / 2,
        **{f"action/{name}": weights[:, k] for k, name in enumerate(ACTIONS)},
    }
    out: dict[str, list] = {name: [round(float(v), 5) for v in values] for name, values in tracks.items()}
    out["viseme"] = [phones[k].viseme for k in index]
    return out
