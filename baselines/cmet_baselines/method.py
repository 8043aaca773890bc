"""Defines the `Method` interface: the inputs that a talking-face method receives, and the video that it must return.

A method is any object with the four members of `Method`; it does not have to import this file. Its member `sees`
names the inputs that it uses. A `Case` returns only these inputs and raises an error for other inputs. Therefore the
list of inputs that a board prints for a method is always correct.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np

from talking_face.media.reading import AUDIO_RATE

Loader = Callable[..., np.ndarray | list[np.ndarray]]

# The names of all inputs that a case can have.
INPUTS: tuple[str, ...] = (
    "reference-frames",  # still frames of the speaker, which show the identity
    "source-video",  # a clip of the speaker to edit, or to copy the head pose from
    "driving-audio",  # the speech that the lips must follow
    "emotion-label",  # target emotion and intensity
    "emotion-audio",  # other speech in the target emotion (a pool of sound of C-MET)
    "neutral-audio",  # neutral speech (the other pool of sound of C-MET)
    "upper-half",  # the real clip without its lower half, for methods that draw the lower half
    "ground-truth-pose",  # the position of the real head, without its expression
    "ground-truth",  # the real clip and another clip with the target emotion; only ceilings and controls use it
    "training-split",  # clips of the training speakers, for retrieval methods
)
# {name of an array of `Case`: the input that it belongs to}
ARRAYS: Mapping[str, str] = {
    "reference_frames": "reference-frames",
    "reference_landmarks": "reference-frames",
    "source_frames": "source-video",
    "source_landmarks": "source-video",
    "source_blendshapes": "source-video",
    "source_audio": "source-video",
    "source_clip": "source-video",
    "driving_audio": "driving-audio",
    "emotion_audio": "emotion-audio",
    "emotion_clips": "emotion-audio",
    "neutral_audio": "neutral-audio",
    "neutral_clips": "neutral-audio",
    "upper_half_frames": "upper-half",
    "ground_truth_pose": "ground-truth-pose",
    "ground_truth_frames": "ground-truth",
    "ground_truth_landmarks": "ground-truth",
    "other_take_frames": "ground-truth",
    "training_audio": "training-split",
    "training_emotions": "training-split",
}


class UndeclaredInput(RuntimeError):
    """Raised if a method reads an input that its `sees` does not name."""


@runtime_checkable
class Method(Protocol):
    """A program that generates one talking-face video per case."""

    name: str  # the name of the row on boards: short, in lower case, with hyphens
    revision: str  # a version, a commit or a checkpoint's hash; must change if the output can change
    sees: frozenset[str]  # names of the inputs that the method uses, a subset of INPUTS

    def generate(self, case: Case) -> np.ndarray:
        """Generate the video of one case.

        Returns:
            (T, H, W, 3) uint8 RGB, 0 to 255, 25 frames/s. T should be `case.n_frames`, and (H, W) should be
            `case.size`. A video with another length or size is not changed; each metric's signature states what the
            metric does with such a video.
        """
        ...


@dataclass(frozen=True, kw_only=True)
class CaseSpec:
    """Describes the video that a method must generate. `Case` explains the fields."""

    pair_id: str
    setting: str
    speaker: str
    n_frames: int
    size: tuple[int, int]
    seed: int
    target_emotion: str
    intensity: int | None
    file_name: str = ""  # if empty, the pair's id is used
    log: Path | None = None


class Case:
    """One evaluation case, as a method receives it.

    An input is loaded when the method first uses it. Only inputs that the method declares in `sees` can be used.

    Attributes:
        pair_id, setting, speaker: names, for logs. They contain the names of the emotions, but a method must not read
            the emotions from them.
        n_frames: the required number of frames at 25 frames/s, equal to the length of the driving audio.
        size: the required (height, width), px.
        seed: the seed for a method that uses random numbers.
        notes: changes of the video that a reader of the scores should know; see `note`.
        file_name: the pair's id as a file name without suffix.
        log: the file for the printed output of an outside program; None: this output is not kept.
    """

    fps: float = 25.0
    audio_rate: int = AUDIO_RATE

    def __init__(self, spec: CaseSpec, loaders: Mapping[str, Loader], sees: frozenset[str]) -> None:
        """Create a case whose arrays come from `loaders`.

        Args:
            spec: the video that the method must generate.
            loaders: {name in `ARRAYS`: function that loads the array}. The additional name `training_frames` has a
                function with one argument, the index of a clip in `training_audio`.
            sees: the inputs that the method declares.

        Raises:
            ValueError: `sees` names an unknown input.
        """
        if unknown := sorted(sees - set(INPUTS)):
            raise ValueError(f"a method cannot see {', '.join(unknown)}; the inputs are {', '.join(INPUTS)}")
        self.pair_id, self.setting, self.speaker = spec.pair_id, spec.setting, spec.speaker
        self.n_frames, self.size, self.seed = spec.n_frames, spec.size, spec.seed
        self.file_name, self.log = spec.file_name or spec.pair_id, spec.log
        self.notes: list[str] = []
        self._emotion: tuple[str, int | None] = (spec.target_emotion, spec.intensity)
        self._loaders, self._sees = loaders, sees
        self._loaded: dict[str, np.ndarray | list[np.ndarray]] = {}

    @property
    def reference_frames(self) -> np.ndarray:
        """(N, H, W, 3) uint8 RGB, sorted by time."""
        return self._array("reference_frames")

    @property
    def reference_landmarks(self) -> np.ndarray:
        """(N, 478, 3) float32, MediaPipe's points in pixels of the reference frames, no NaN."""
        return self._array("reference_landmarks")

    @property
    def source_frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB, 25 frames/s. T is the length of the source clip, not `n_frames`."""
        return self._array("source_frames")

    @property
    def source_landmarks(self) -> np.ndarray:
        """(T, 478, 3) float32, MediaPipe's points, px of the source frames; interpolated in frames without a face."""
        return self._array("source_landmarks")

    @property
    def source_blendshapes(self) -> np.ndarray:
        """(T, 52) float32 in [0, 1], MediaPipe's coefficients; interpolated in frames without a face."""
        return self._array("source_blendshapes")

    @property
    def source_audio(self) -> np.ndarray:
        """(N,) int16, 16 kHz mono: the sound of the source video."""
        return self._array("source_audio")

    @property
    def source_clip(self) -> np.ndarray:
        """(1,) str: the id of the source clip, for features that are stored by clip id."""
        return self._array("source_clip")

    @property
    def driving_audio(self) -> np.ndarray:
        """(N,) int16, 16 kHz mono: 640 samples per frame of the required video."""
        return self._array("driving_audio")

    @property
    def emotion_audio(self) -> list[np.ndarray]:
        """(N,) int16 each, 16 kHz mono: other clips in the target emotion, without the driving audio."""
        return self._list("emotion_audio")

    @property
    def emotion_clips(self) -> np.ndarray:
        """(K,) str: the ids of the clips in `emotion_audio`, for features that are stored by clip id.

        An id can contain the name of the emotion. A method must not read the emotion from it.
        """
        return self._array("emotion_clips")

    @property
    def neutral_audio(self) -> list[np.ndarray]:
        """(N,) int16 each, 16 kHz mono: neutral clips."""
        return self._list("neutral_audio")

    @property
    def neutral_clips(self) -> np.ndarray:
        """(K,) str: the ids of the clips in `neutral_audio`."""
        return self._array("neutral_clips")

    @property
    def upper_half_frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB, 25 frames/s: the real clip, black from the middle row downwards."""
        return self._array("upper_half_frames")

    @property
    def ground_truth_pose(self) -> np.ndarray:
        """(T, 3, 4) float64: one matrix per real frame, with rotation times scale, and shift in pixels.

        The matrices map points from the speaker's head frame to the picture. `cmet_reference.geometry` defines the head
        frame; the template is the mean of the reference landmarks.
        """
        return self._array("ground_truth_pose")

    @property
    def ground_truth_frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB, 25 frames/s."""
        return self._array("ground_truth_frames")

    @property
    def ground_truth_landmarks(self) -> np.ndarray:
        """(T, 478, 3) float32, MediaPipe's points, px of the real frames; interpolated in frames without a face."""
        return self._array("ground_truth_landmarks")

    @property
    def other_take_frames(self) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB, 25 frames/s: another clip of the speaker with the target emotion, but another
        sentence.
        """
        return self._array("other_take_frames")

    @property
    def training_audio(self) -> list[np.ndarray]:
        """(N,) int16 each, 16 kHz mono: labelled clips of the training split, at most 512."""
        return self._list("training_audio")

    @property
    def training_emotions(self) -> np.ndarray:
        """(K,) str, K clips: the emotion of each clip in `training_audio`."""
        return self._array("training_emotions")

    def training_frames(self, index: int) -> np.ndarray:
        """(T, H, W, 3) uint8 RGB, 25 frames/s: the frames of the clip with this index in `training_audio`."""
        self._check("training-split")
        return np.asarray(self._loaders["training_frames"](index))

    @property
    def target_emotion(self) -> str:
        """One of talking_face.emotions.EMOTIONS, or an extended label."""
        self._check("emotion-label")
        return self._emotion[0]

    @property
    def intensity(self) -> int | None:
        """1 to 3; None if the dataset has no levels of intensity."""
        self._check("emotion-label")
        return self._emotion[1]

    def offered(self) -> list[str]:
        """The names, as in `ARRAYS`, of the arrays that the method can read."""
        return [name for name, seen in ARRAYS.items() if seen in self._sees and name in self._loaders]

    def note(self, text: str) -> None:
        """Record a change that gave the video its required form. Every score of the case stores the note."""
        self.notes.append(text)

    def _check(self, name: str) -> None:
        if name not in self._sees:
            seen = ", ".join(sorted(self._sees)) or "nothing"
            raise UndeclaredInput(f"the method asked for {name}, but declares that it sees {seen}; add it to `sees`")

    def _array(self, name: str) -> np.ndarray:
        return np.asarray(self._load(name))

    def _list(self, name: str) -> list[np.ndarray]:
        return list(self._load(name))

    def _load(self, name: str) -> np.ndarray | list[np.ndarray]:
        self._check(ARRAYS[name])
        if name not in self._loaded:
            loaded = self._loaders[name]()
            for array in loaded if isinstance(loaded, list) else [loaded]:
                array.setflags(write=False)  # a method must not change the inputs of other methods
            self._loaded[name] = loaded
        return self._loaded[name]


def check_output(frames: object) -> np.ndarray:
    """Check that the output of a method is a video, and return it.

    Args:
        frames: the output; a video is (T, H, W, 3) uint8 RGB with T >= 1.

    Raises:
        ValueError: the output is not a video.
    """
    if not isinstance(frames, np.ndarray):
        raise ValueError(f"generate should return a numpy array, not {type(frames).__name__}")
    if frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"generate should return (T, H, W, 3) with T >= 1, not shape {frames.shape}")
    if frames.dtype != np.uint8:
        raise ValueError(f"generate should return uint8 RGB 0-255, not {frames.dtype}")
    return frames
