"""Reads the clips for the evaluators' training and test into memory: mouths, faces, audio and blendshapes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmet_pipelines.shards import ShardSet
from cmet_reference.training.rounding import rounded
from talking_face.emotions import EMOTIONS
from talking_face.pretrained import evaluator_networks, trained_evaluators
from talking_face.progress import Progress
from talking_face.reasons import UserError

MAX_CLIPS = 384  # greatest number of training clips
MAX_TEST_CLIPS = 256  # greatest number of clips for the test of the emotion classifier (8 emotions at 3 levels)
MAX_SHIFTED_CLIPS = 64  # greatest number of clips for the lip-sync test; each clip is tested with 21 shifts
MAX_FRAMES = 75  # frames per clip that are used; the mouths of 384 such clips need 265 MB
MIN_FRAMES = 15  # shorter clips are not used, because they have too few windows to distinguish shifts
MIN_VALID = 0.8  # least share of frames with a face


@dataclass(frozen=True)
class Example:
    """The data of one clip that both evaluators need. T is at most MAX_FRAMES."""

    clip_id: str
    speaker: str
    emotion: str | None  # one of EMOTIONS; None if the label is missing or is not in EMOTIONS
    mouths: np.ndarray  # (T, 96, 96) uint8 grey mouth crops
    samples: np.ndarray  # (N,) int16 audio at 16 kHz, N == 640 T
    cepstra: np.ndarray  # (R, 13) float32, computed from `samples` and rounded
    faces: np.ndarray  # (8, 128, 128) uint8 grey face crops
    blendshapes: np.ndarray  # (T', 52) float32, of the whole clip
    sound_id: str  # digest of the whole clip's audio
    intensity: int | None = None


def choose(clips: pd.DataFrame, training: bool, most: int, seed: int) -> list[str]:
    """Chooses clips, and returns their ids, sorted.

    If there are more than `most` usable clips, the choice alternates between speakers and emotions. The choice among
    the clips of one speaker and emotion is random.

    Args:
        clips: the table of all clips.
        training: if True, choose from the training split. If False, choose from the other splits, without the speakers
            of the training split.
        most: greatest number of clips.
        seed: seed of the random choice.
    """
    rows = clips[(clips["n_frames"] >= MIN_FRAMES) & (clips["valid_fraction"] >= MIN_VALID)]
    train = rows["split"] == "train"
    rows = (
        rows[train] if training else rows[~train & ~rows["speaker"].isin(set(clips[clips["split"] == "train"].speaker))]
    )
    order = np.random.default_rng(seed).permutation(len(rows))
    shuffled = rows.sort_values("clip_id").iloc[order]
    turn = shuffled.groupby([shuffled["speaker"], shuffled["emotion"].fillna("")]).cumcount()
    return sorted(str(clip) for clip in shuffled.iloc[np.argsort(turn.to_numpy(), kind="stable")]["clip_id"][:most])


def load(shards: ShardSet, clip_ids: Sequence[str], label: str, quiet: bool) -> list[Example]:
    """Read and crop the clips, about 20 per second. `label`: the text of the progress bar."""
    rows = shards.clips.set_index("clip_id")
    out = []
    with Progress(len(clip_ids), unit="clips", label=label, quiet=quiet) as progress:
        for clip_id in clip_ids:
            row = rows.loc[clip_id]
            emotion = row["emotion"] if isinstance(row["emotion"], str) else None
            intensity = None if pd.isna(row["intensity"]) else int(row["intensity"])
            out.append(example(shards, clip_id, str(row["speaker"]), emotion, intensity))
            progress.advance()
    return out


def example(shards: ShardSet, clip_id: str, speaker: str, emotion: str | None, intensity: int | None = None) -> Example:
    """Read and crop one clip of the shard set."""
    landmarks, audio = shards.landmarks(clip_id), shards.audio(clip_id)
    n = min(len(landmarks), len(audio) // 640, MAX_FRAMES)
    samples = audio[: n * 640]
    frames = shards.frames(clip_id)
    return Example(
        clip_id,
        speaker,
        emotion if emotion in EMOTIONS else None,
        evaluator_networks.mouth_crops(frames[:n], landmarks[:n]),
        samples,
        rounded(evaluator_networks.cepstra(samples)),
        evaluator_networks.face_crops(frames, landmarks),
        shards.blendshapes(clip_id),
        trained_evaluators.sound_id(audio),
        intensity,
    )


def need(examples: Sequence[Example], what: str) -> None:
    """Raises UserError if there are too few training clips. `what`: the evaluator's name, for the message."""
    if len(examples) < 2:
        raise UserError(
            f"{len(examples)} clips of the training split can be used for {what}; at least 2 are needed, of "
            f"{MIN_FRAMES} frames and a face in {MIN_VALID:.0%} of them. Was the data preprocessed with a split?"
        )
