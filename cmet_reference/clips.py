"""What the reference models learn from: the numbers of a shard set's clips, in memory. Pictures are read when asked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cmet_pipelines.shards import ShardSet
from talking_face.progress import Progress
from talking_face.reasons import UserError

MIN_VALID = 0.8  # share of the frames with a face; a clip with fewer teaches the bridging, not the face
MIN_FRAMES = 15
SAMPLES_A_FRAME = 640  # 16 kHz at 25 frames/s


@dataclass(frozen=True)
class ClipArrays:
    """One clip. T is the number of frames that both the picture and the sound have."""

    folder: Path  # the shard set it lies in
    clip_id: str
    dataset: str
    speaker: str
    emotion: str | None  # of the common vocabulary; None where unlabelled
    intensity: int | None
    sentence_id: str | None  # only where it is truly known
    landmarks: np.ndarray  # (T, 478, 3) float32, crop px, smoothed, no NaN
    blendshapes: np.ndarray  # (T, 52) float32 in [0, 1], no NaN
    audio: np.ndarray  # (640 T,) int16, 16 kHz

    def __len__(self) -> int:
        return len(self.landmarks)


def read_clip(shards: ShardSet, row: Mapping[str, Any]) -> ClipArrays:
    """One clip of the set, by its row of `shards.clips`; frames without a face take the numbers between their
    neighbours'."""
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
        bridged(landmarks[:n]),
        bridged(shards.blendshapes(clip_id)[:n]),
        audio[: n * SAMPLES_A_FRAME],
    )


def read_clips(
    folders: Iterable[Path], split: str = "train", min_frames: int = MIN_FRAMES, quiet: bool = True
) -> list[ClipArrays]:
    """All clips of a split that can be learnt from, sorted by id: 1 MB a clip of 3 s.

    Raises:
        UserError: a set has no such clip.
    """
    out = []
    for folder in folders:
        shards = ShardSet(folder)
        rows = _learnable(shards, split, min_frames)
        if rows.empty:
            raise UserError(f"{folder} has no clip of the {split} split with {min_frames} frames and a face in them")
        with Progress(len(rows), unit="clips", label=f"read the {split} split", quiet=quiet) as progress:
            for row in rows.sort_values("clip_id").to_dict("records"):
                out.append(read_clip(shards, row))
                progress.advance()
    return out


def read_held_out(folders: Iterable[Path], quiet: bool = True) -> list[ClipArrays]:
    """The test splits' clips, as `read_clips` reads them; none where every clip of every set is for training."""
    there = [folder for folder in folders if len(_learnable(ShardSet(folder), "test"))]
    return read_clips(there, "test", quiet=quiet)


def _learnable(shards: ShardSet, split: str, min_frames: int = MIN_FRAMES) -> pd.DataFrame:
    """Rows of the split's clips that can be learnt from."""
    rows = shards.clips
    long, seen = rows["n_frames"] >= min_frames, rows["valid_fraction"] >= MIN_VALID
    return rows[long & seen & (rows["split"] == split)]


def by_speaker(clips: Iterable[ClipArrays]) -> dict[str, list[ClipArrays]]:
    """Each speaker's clips, in the order given; speakers sorted."""
    out: dict[str, list[ClipArrays]] = {}
    for clip in clips:
        out.setdefault(clip.speaker, []).append(clip)
    return dict(sorted(out.items()))


def bridged(track: np.ndarray) -> np.ndarray:
    """(T, ...) with NaN rows to the same without: linear between valid rows, the nearest one's beyond the ends."""
    flat = track.reshape(len(track), -1)
    good = np.isfinite(flat).all(axis=1)
    if good.all():
        return track
    if not good.any():
        raise ValueError("no frame has a face")
    at = np.arange(len(flat))
    columns = [np.interp(at, at[good], column[good]) for column in flat.T]
    return np.stack(columns, axis=1).reshape(track.shape).astype(track.dtype)
