"""Chooses the clips of a shard set that a calibration degrades."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd

from cmet_eval.calibration.degradations import SAMPLES, CalibrationClip
from cmet_eval.calibration.redraw import ClipRow, other_emotion, other_speaker, redrawn
from cmet_eval.runs.generate import open_shards
from cmet_metrics.base import Labels
from cmet_pipelines.shards import ShardSet
from embedded_corpus.identity import speaker_names
from talking_face.emotions import EMOTIONS
from talking_face.faces.points68 import to_68
from talking_face.reasons import UserError

_SEED = 0


def pick_clips(folder: Path, count: int, frames: int, seen: frozenset[str] = frozenset()) -> list[CalibrationClip]:
    """Chooses at most `count` clips of a shard set, at most two per speaker, with the highest intensity.

    The clips are drawn with a fixed seed. Longer clips are truncated to `frames` frames.

    Args:
        seen: ids of clips on which an evaluator was trained; these clips are left out.
    """
    shards = open_shards(str(folder))
    rows = _strong(shards.clips, frames, seen)
    rng = np.random.default_rng(_SEED)
    by_speaker = defaultdict[str, list[ClipRow]](list)
    for k in rng.permutation(len(rows)):
        by_speaker[rows[k].speaker].append(rows[k])
    chosen = [row for some in by_speaker.values() for row in some[:2]][:count]
    if not chosen:
        raise UserError(f"{folder} has no clip to calibrate on")
    return [_clip(shards, row, rows, frames) for row in sorted(chosen, key=lambda row: row.clip_id)]


def _strong(clips: pd.DataFrame, frames: int, seen: frozenset[str]) -> list[ClipRow]:
    """The clips that are long enough and show an emotion at the highest intensity.

    If no clip shows an emotion, all clips that are long enough are returned.
    """
    long = clips[clips["n_frames"] >= min(frames, int(clips["n_frames"].max()))]
    long = long[~long["clip_id"].isin(seen)]
    strong = long[(long["intensity"] == long["intensity"].max()) & (long["emotion"] != "neutral")]
    return list((strong if len(strong) else long).itertuples())


def _clip(shards: ShardSet, row: ClipRow, rows: list[ClipRow], frames: int) -> CalibrationClip:
    """The calibration clip for a row of the shard set.

    A clip of the embedded corpus can be drawn again with another face. For a real clip, the other face comes from a
    clip of another speaker.
    """
    pictures = shards.frames(row.clip_id)[:frames]
    emotion = row.emotion if row.emotion in EMOTIONS else None
    drawn = redrawn(row, pictures, shards.crop_transform(row.clip_id)[:frames]) if emotion else None
    clip = CalibrationClip(
        name=row.clip_id,
        group="embedded" if drawn else "real",
        frames=pictures,
        audio=shards.audio(row.clip_id)[: len(pictures) * SAMPLES],
        points=to_68(shards.landmarks(row.clip_id)[:frames]),
        labels=Labels(emotion, other_emotion(emotion) if emotion else None, row.speaker),
    )
    if drawn is not None and emotion is not None:
        return replace(
            clip,
            with_mouth=drawn.frames,
            with_other_face=partial(drawn.frames, speaker=other_speaker(row.speaker)),
            with_other_emotion=partial(drawn.frames, emotion=other_emotion(emotion)),
        )
    others = sorted(other.clip_id for other in rows if other.speaker != row.speaker)
    return replace(clip, with_other_face=partial(_frames_of, shards, others[0], len(pictures))) if others else clip


def pick_sounds(folder: Path, count: int, frames: int, seen: frozenset[str] = frozenset()) -> list[CalibrationClip]:
    """Chooses at most `count` clips for `shifted_sound` with a fixed seed. All emotions and intensities are allowed."""
    shards = open_shards(str(folder))
    table = shards.clips[(shards.clips["valid_fraction"] >= 0.5) & ~shards.clips["clip_id"].isin(seen)]
    order = np.random.default_rng(_SEED).permutation(len(table))[:count]
    out = []
    for row in table.iloc[np.sort(order)].itertuples():
        pictures = shards.frames(row.clip_id)[:frames]
        points, blendshapes = shards.landmarks(row.clip_id)[:frames], shards.blendshapes(row.clip_id)[:frames]
        group = "embedded" if row.dataset == "mead" and row.speaker in speaker_names(16) else "real"
        sound = shards.audio(row.clip_id)[: len(pictures) * SAMPLES]
        out.append(CalibrationClip(row.clip_id, group, pictures, sound, to_68(points), mesh=(points, blendshapes)))
    return out


def _frames_of(shards: ShardSet, clip_id: str, count: int) -> np.ndarray:
    """The first `count` frames of a clip. If the clip is shorter, its last frame is repeated."""
    frames = shards.frames(clip_id)
    return frames[np.minimum(np.arange(count), len(frames) - 1)]
