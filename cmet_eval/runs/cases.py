"""Creates the `Case` of a pair, which gives a method its inputs.

An input is read from the shards when the method uses it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from cmet_baselines.method import ARRAYS, Case, CaseSpec
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs.timing import Stopwatch
from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import interpolated
from cmet_reference.geometry import fit_pose, template_of
from talking_face.clip import Pair
from talking_face.reasons import ClipError, Reason
from talking_face.signature import digest

_TRAINING_CLIPS = 512  # largest number of clips from which `retrieval` chooses; the sound of 512 clips takes 50 MB


def make_case(
    shards: ShardSet,
    pair: Pair,
    n_frames: int,
    sees: frozenset[str],
    stopwatch: Stopwatch | None = None,
    log: Path | None = None,
) -> Case:
    """Creates the case of a pair.

    Args:
        shards: the shard set that the pair was drawn from.
        n_frames: number of frames that the method must generate, at 25 frames/s.
        sees: names of the inputs that the method declares.
        stopwatch: measures the time for reading the inputs; None: the time is not measured.
        log: file for the printed output of a method that is an outside program; None: the output is not kept.
    """
    inputs = PairInputs(shards, pair)
    timed: Callable[[Callable], Callable] = stopwatch.reads if stopwatch else lambda loader: loader
    loaders = {name: timed(getattr(inputs, name)) for name in (*ARRAYS, "training_frames")}
    height, width = timed(inputs.picture_size)()
    spec = CaseSpec(
        pair_id=pair.pair_id,
        setting=pair.setting,
        speaker=pair.speaker,
        n_frames=n_frames,
        size=(height, width),
        seed=pair.seed,
        target_emotion=pair.target_emotion,
        intensity=pair.intensity,
        file_name=pair_file_name(pair.pair_id),
        log=log,
    )
    return Case(spec, loaders, sees)


class PairInputs:
    """Reads the inputs of one pair from the shards.

    There is one function for each name in `cmet_baselines.method.ARRAYS`. The docstring of `Case` states the
    shapes. Every function raises ClipError if the pair or the shards do not have the input.
    """

    def __init__(self, shards: ShardSet, pair: Pair) -> None:
        self._shards, self._pair = shards, pair

    def picture_size(self) -> tuple[int, int]:
        """(height, width) of the reference frames, px."""
        height, width = self._shards.frames(self._pair.reference_clip, [self._pair.reference_frames[0]]).shape[1:3]
        return int(height), int(width)

    def reference_frames(self) -> np.ndarray:
        return self._shards.frames(self._pair.reference_clip, list(self._pair.reference_frames))

    def reference_landmarks(self) -> np.ndarray:
        return self._landmarks(self._pair.reference_clip)[list(self._pair.reference_frames)]

    def source_frames(self) -> np.ndarray:
        return self._shards.frames(self._pair.source_clip)

    def source_landmarks(self) -> np.ndarray:
        return self._landmarks(self._pair.source_clip)

    def source_blendshapes(self) -> np.ndarray:
        clip = self._pair.source_clip
        return _without_gaps(clip, self._shards.blendshapes(clip))

    def source_audio(self) -> np.ndarray:
        return self._shards.audio(self._pair.source_clip)

    def source_clip(self) -> np.ndarray:
        return np.array([self._pair.source_clip])

    def driving_audio(self) -> np.ndarray:
        return self._shards.audio(self._pair.driving_clip)

    def emotion_audio(self) -> list[np.ndarray]:
        return self._sounds(self._pair.emotion_audio, self._pair.target_emotion)

    def emotion_clips(self) -> np.ndarray:
        return np.array(self._pair.emotion_audio, dtype=str)

    def neutral_audio(self) -> list[np.ndarray]:
        return self._sounds(self._pair.neutral_audio, "neutral")

    def neutral_clips(self) -> np.ndarray:
        return np.array(self._pair.neutral_audio, dtype=str)

    def upper_half_frames(self) -> np.ndarray:
        frames = self._shards.frames(self._truth()).copy()
        frames[:, frames.shape[1] // 2 :] = 0
        return frames

    def ground_truth_pose(self) -> np.ndarray:
        pose = fit_pose(self._landmarks(self._truth()), template_of(self.reference_landmarks()))
        return np.concatenate([pose.rotation * pose.scale[:, None, None], pose.shift[..., None]], axis=2)

    def ground_truth_frames(self) -> np.ndarray:
        return self._shards.frames(self._truth())

    def ground_truth_landmarks(self) -> np.ndarray:
        return self._landmarks(self._truth())

    def other_take_frames(self) -> np.ndarray:
        return self._shards.frames(_other_take(self._shards, self._pair, self._truth()))

    def training_audio(self) -> list[np.ndarray]:
        return [self._shards.audio(clip) for clip in _training_clips(self._shards)]

    def training_emotions(self) -> np.ndarray:
        return self._shards.clips.set_index("clip_id").loc[_training_clips(self._shards), "emotion"].to_numpy(str)

    def training_frames(self, index: int) -> np.ndarray:
        return self._shards.frames(_training_clips(self._shards)[index])

    def _truth(self) -> str:
        if self._pair.ground_truth_clip is None:
            raise ClipError(Reason.NO_GROUND_TRUTH, f"{self._pair.pair_id} has no ground-truth clip")
        return self._pair.ground_truth_clip

    def _landmarks(self, clip_id: str) -> np.ndarray:
        return _without_gaps(clip_id, self._shards.landmarks(clip_id, smoothed=True))

    def _sounds(self, clips: Sequence[str], emotion: str) -> list[np.ndarray]:
        if not clips:
            detail = f"no clip of these shards is labelled {emotion}, so there is no such sound"
            raise ClipError(Reason.UNLABELLED, detail)
        return [self._shards.audio(clip) for clip in clips]


def _without_gaps(clip_id: str, track: np.ndarray) -> np.ndarray:
    try:
        return interpolated(track)
    except ValueError:
        raise ClipError(Reason.NO_FACE, f"{clip_id} shows no face, so it has no landmarks to go by") from None


def _other_take(shards: ShardSet, pair: Pair, truth: str) -> str:
    """Another clip of the same speaker with the target emotion, chosen by hash. Its sentence is not that of `truth`."""
    clips = shards.clips
    sentence = clips.set_index("clip_id").at[truth, "sentence_id"]
    rows = clips[(clips["speaker"] == pair.speaker) & (clips["emotion"] == pair.target_emotion)]
    rows = rows[(rows["clip_id"] != truth) & ((rows["sentence_id"] != sentence) | rows["sentence_id"].isna())]
    if rows.empty:
        raise ClipError(Reason.NO_GROUND_TRUTH, f"{pair.speaker} has no other {pair.target_emotion} clip than {truth}")
    return str(min(rows["clip_id"], key=lambda clip: digest([pair.pair_id, "other-take", clip])))


def _training_clips(shards: ShardSet) -> list[str]:
    """At most 512 labelled clips of the training split, sorted by id; clips with the smallest hashes are chosen."""
    rows = shards.clips[(shards.clips["split"] == "train") & shards.clips["emotion"].notna()]
    if rows.empty:
        raise ClipError(Reason.UNLABELLED, f"{shards.folder} has no labelled clip in a training split")
    return sorted(sorted(rows["clip_id"], key=lambda clip: digest(["training", clip]))[:_TRAINING_CLIPS])
