"""Runs one drawn case with a method, and looks at the video: length, faces, brightness, motion."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import numpy as np

from cmet_baselines.adapters.recipe import RecipeMethod
from cmet_baselines.method import Case, CaseSpec, Loader
from cmet_baselines.setup.state import Smoke
from cmet_metrics.base import Sample
from cmet_metrics.landmarks import mediapipe_blendshapes, mediapipe_landmarks
from embedded_corpus.clip import ClipSpec, draw, perform
from embedded_corpus.voice import RATE
from talking_face.media.reading import AUDIO_RATE
from talking_face.media.resampling import resample
from talking_face.media.writing import write_video
from talking_face.pretrained.model_files import ModelFiles

_SIDE = 384  # px, of the drawn picture; the crop below has the face at half of its width
_ROWS, _COLUMNS = slice(40, 296), slice(64, 320)
_POOL = 12  # sounds; C-MET needs ten
_SECONDS = 1.2  # of the source video, 30 frames; C-MET never ends on one of 20 frames or fewer
_DARK, _STILL, _FEW = (
    4.0,
    0.02,
    0.5,
)  # mean grey value; mean change of a frame, grey values; share of frames with a face


def run(method: RecipeMethod, n_frames: int, emotion: str, files: ModelFiles, video: Path) -> Smoke:
    """Generate one case and measure its video, which is written to `video` for a look.

    Args:
        method: the method; its process is ended at the end.
        n_frames: the required number of frames.
        emotion: the target emotion, a label of this suite.
        files: where the file of the landmarker is searched for.
        video: path of the mp4.

    Raises ClipError if the method fails.
    """
    case = make_case(method.sees, n_frames, emotion, files, video.with_suffix(".log"))
    begin = time.monotonic()
    try:
        frames = method.generate(case)
    finally:
        method.close()
    seconds = time.monotonic() - begin
    sound = _driving(n_frames, emotion)
    write_video(video, _even(frames), case.fps, sound, AUDIO_RATE)
    grey = frames.mean(axis=3)
    found = np.isfinite(mediapipe_landmarks(Sample(np.ascontiguousarray(frames), name="smoke"), files)).all(axis=(1, 2))
    return Smoke(
        frames=len(frames),
        wanted=n_frames,
        size=(frames.shape[1], frames.shape[2]),
        faces=int(found.sum()),
        brightness=float(grey.mean()),
        motion=float(np.abs(np.diff(grey, axis=0)).mean()) if len(frames) > 1 else 0.0,
        seconds=round(seconds, 1),
        notes=tuple(case.notes),
        revision=method.revision,
    )


def faults(smoke: Smoke, seeded: bool) -> Iterator[str]:
    """One line for each thing that is wrong with the video. Seeded weights show no face, so none is demanded."""
    if smoke.frames != smoke.wanted:
        yield f"it has {smoke.frames} frames, and {smoke.wanted} are wanted"
    if smoke.brightness < _DARK:
        yield f"it is black (mean grey value {smoke.brightness:.1f})"
    if smoke.motion < _STILL:
        yield f"it is frozen (mean change of a frame {smoke.motion:.3f} grey values)"
    if smoke.faces < _FEW * smoke.frames and not seeded:
        yield f"a face is found in {smoke.faces} of {smoke.frames} frames"


def make_case(sees: frozenset[str], n_frames: int, emotion: str, files: ModelFiles, log: Path) -> Case:
    """A case of one drawn speaker: neutral references and source, and another sentence in the target emotion."""
    spec = CaseSpec(
        pair_id="smoke/1",
        setting="smoke",
        speaker="M903",
        n_frames=n_frames,
        size=(_ROWS.stop - _ROWS.start, _COLUMNS.stop - _COLUMNS.start),
        seed=0,
        target_emotion=emotion,
        intensity=3,
        file_name="smoke",
        log=log,
    )
    references = [0, 7, 14, 21, 28]

    def landmarks() -> np.ndarray:
        return np.asarray(mediapipe_landmarks(_sample("neutral"), files))

    def upper_half() -> np.ndarray:
        frames = np.resize(_frames(emotion), (n_frames, *_frames(emotion).shape[1:]))
        frames[:, frames.shape[1] // 2 :] = 0
        return frames

    loaders: dict[str, Loader] = {
        "reference_frames": lambda: _frames("neutral")[references],
        "reference_landmarks": lambda: landmarks()[references],
        "source_frames": lambda: _frames("neutral").copy(),
        "source_landmarks": landmarks,
        "source_blendshapes": lambda: np.asarray(mediapipe_blendshapes(_sample("neutral"), files)),
        "source_audio": lambda: _sound(1, "neutral"),
        "driving_audio": lambda: _driving(n_frames, emotion),
        "emotion_audio": lambda: [_sound(2 + i, emotion) for i in range(_POOL)],
        "neutral_audio": lambda: [_sound(2 + i, "neutral") for i in range(_POOL)],
        "upper_half_frames": upper_half,
    }
    return Case(spec, loaders, sees)


@cache
def _sample(emotion: str) -> Sample:
    return Sample(_frames(emotion), name=emotion)


@cache
def _frames(emotion: str) -> np.ndarray:
    """(30, 256, 256, 3) uint8 RGB: a drawn clip."""
    act = perform(_spec(1, emotion, _SECONDS), fps=25)
    return np.stack([np.ascontiguousarray(frame[_ROWS, _COLUMNS]) for frame in draw(act)])


def _driving(n_frames: int, emotion: str) -> np.ndarray:
    """(640 n_frames,) int16, 16 kHz: the driving sound."""
    return _sound(0, emotion, max(_SECONDS, n_frames / 25))[: n_frames * AUDIO_RATE // 25]


def _sound(take: int, emotion: str, seconds: float = _SECONDS) -> np.ndarray:
    """(N,) int16, 16 kHz: the sound of a sentence."""
    sound = perform(_spec(take, emotion, seconds), fps=25).sound.astype(np.float32)
    return resample(sound, RATE, AUDIO_RATE).round().clip(-32768, 32767).astype(np.int16)


def _spec(take: int, emotion: str, seconds: float) -> ClipSpec:
    sentence = f"s{1 + take % 10:02d}"
    level = 1 if emotion == "neutral" else 3
    return ClipSpec("M903", emotion, level, take, (sentence,), seconds=seconds, width=_SIDE, height=_SIDE)


def _even(frames: np.ndarray) -> np.ndarray:
    """The frames without a last odd row or column, which H.264 cannot store."""
    return frames[:, : frames.shape[1] // 2 * 2, : frames.shape[2] // 2 * 2]
