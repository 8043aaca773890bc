"""Reads the clips of shard sets into memory for training: landmarks, blendshapes and audio, without pictures."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmet_pipelines.shards import ShardSet
from talking_face.media.reading import AUDIO_RATE
from talking_face.progress import Progress
from talking_face.reasons import UserError

MIN_VALID = 0.8  # share of frames with a face; clips below it are mostly interpolated
MIN_FRAMES = 15
FPS = 25
SAMPLES_A_FRAME = AUDIO_RATE // FPS


@dataclass(frozen=True)
class ClipArrays:
    """One clip, cut to the T frames that both video and audio have."""

    folder: Path  # of the shard set
    clip_id: str
    dataset: str
    speaker: str
    emotion: str | None  # one of EMOTIONS or a data set's own; None where unlabelled
    intensity: int | None
    sentence_id: str | None  # None where unknown
    landmarks: np.ndarray  # (T, 478, 3) float32, crop px, smoothed, no NaN
    blendshapes: np.ndarray  # (T, 52) float32 in [0, 1], no NaN
    audio: np.ndarray  # (640 T,) int16, 16 kHz

    def __len__(self) -> int:
        return len(self.landmarks)


def read_clip(shards: ShardSet, row: Mapping[Hashable, Any]) -> ClipArrays:
    """One clip of the set, by its row of `shards.clips`. Frames without a face are interpolated."""
    clip_id = str(row["clip_id"])
    landmarks, audio = shards.landmarks(clip_id, smoothed=True), shards.audio(clip_id)
    n = min(len(landmarks), len(audio) // SAMPLES_A_FRAME)
    text = {k: v if isinstance(v := row[k], str) else None for k in ("emotion", "sentence_id")}
    return ClipArrays(
        shards.folder,
        clip_id,
        str(row["dataset"]),
        str(row["speaker"]),
        text["emotion"],
        int(row["intensity"]) if row["intensity"] == row["intensity"] and row["intensity"] is not None else None,
        text["sentence_id"],
        interpolated(landmarks[:n]),
        interpolated(shards.blendshapes(clip_id)[:n]),
        audio[: n * SAMPLES_A_FRAME],
    )


def read_clips(
    folders: Iterable[Path], split: str = "train", min_frames: int = MIN_FRAMES, quiet: bool = True
) -> list[ClipArrays]:
    """All usable clips of a split, sorted by id; a clip of 3 s takes 1 MB.

    Raises:
        UserError: a set has no usable clip.
    """
    out = []
    for folder in folders:
        shards = ShardSet(folder)
        rows = _usable(shards, split, min_frames)
        if rows.empty:
            raise UserError(f"{folder} has no clip of the {split} split with {min_frames} frames and a face in them")
        with Progress(len(rows), unit="clips", label=f"read the {split} split", quiet=quiet) as progress:
            for row in rows.sort_values("clip_id").to_dict("records"):
                out.append(read_clip(shards, row))
                progress.advance()
    return out


def read_held_out(folders: Iterable[Path], quiet: bool = True) -> list[ClipArrays]:
    """The clips of the test splits, as `read_clips` reads them; [] where no set has a test split."""
    tested = [folder for folder in folders if len(_usable(ShardSet(folder), "test"))]
    return read_clips(tested, "test", quiet=quiet)


def _usable(shards: ShardSet, split: str, min_frames: int = MIN_FRAMES) -> pd.DataFrame:
    """The rows of the split's clips that are long enough and show a face."""
    rows = shards.clips
    long, seen = rows["n_frames"] >= min_frames, rows["valid_fraction"] >= MIN_VALID
    return rows[long & seen & (rows["split"] == split)]


def by_speaker(clips: Iterable[ClipArrays]) -> dict[str, list[ClipArrays]]:
    """Each speaker's clips, in the order given; speakers sorted."""
    out: dict[str, list[ClipArrays]] = {}
    for clip in clips:
        out.setdefault(clip.speaker, []).append(clip)
    return dict(sorted(out.items()))


def interpolated(track: np.ndarray) -> np.ndarray:
    """Replaces the NaN rows of (T, ...): linear between valid rows, and the nearest valid row at the ends.

    Raises ValueError where no row is valid.
    """
    flat = track.reshape(len(track), -1)
    good = np.isfinite(flat).all(axis=1)
    if good.all():
        return track
    if not good.any():
        raise ValueError("no frame has a face")
    at = np.arange(len(flat))
    columns = [np.interp(at, at[good], column[good]) for column in flat.T]
    return np.stack(columns, axis=1).reshape(track.shape).astype(track.dtype)
