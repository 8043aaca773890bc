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

MIN_VALID = 0.8  # least share of frames with a face; otherwise too many landmarks would be interpolated
MIN_FRAMES = 15  # shorter clips are not used
FPS = 25
SAMPLES_A_FRAME = AUDIO_RATE // FPS
FRAME_BYTES = 4 * 478 * 3 + 4 * 52 + 2 * SAMPLES_A_FRAME  # memory of one frame of a clip


@dataclass(frozen=True)
class ClipArrays:
    """One clip, truncated to the T frames for which both video and audio exist."""

    folder: Path  # the folder of the shard set
    clip_id: str
    dataset: str
    speaker: str
    emotion: str | None  # one of EMOTIONS, or another label of the data set; None if unlabelled
    intensity: int | None  # None if unlabelled
    sentence_id: str | None  # None if unknown
    landmarks: np.ndarray  # (T, 478, 3) float32, pixels of the crop, smoothed over time, no NaN
    blendshapes: np.ndarray  # (T, 52) float32 in [0, 1], no NaN
    audio: np.ndarray  # (640 T,) int16, 16 kHz

    def __len__(self) -> int:
        return len(self.landmarks)


def read_clip(shards: ShardSet, row: Mapping[Hashable, Any]) -> ClipArrays:
    """Read one clip of the set. Landmarks and blendshapes of frames without a face are interpolated.

    Args:
        row: the clip's row of `shards.clips`.
    """
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
    folders: Iterable[Path],
    split: str = "train",
    min_frames: int = MIN_FRAMES,
    quiet: bool = True,
    most: int | None = None,
) -> list[ClipArrays]:
    """All usable clips of a split, sorted by id within each shard set. A clip of 3 s takes 1 MB of memory.

    Args:
        folders: the shard sets.
        split: the split.
        min_frames: shorter clips are left out.
        quiet: no progress line.
        most: read at most this many clips of each shard set; see `sample`. None: all clips.

    Raises:
        UserError: a shard set has no usable clip.
    """
    out = []
    for folder in folders:
        shards = ShardSet(folder)
        rows = sample(usable(shards, split, min_frames), most)
        if rows.empty:
            raise UserError(f"{folder} has no clip of the {split} split with {min_frames} frames and a face in them")
        with Progress(len(rows), unit="clips", label=f"read the {split} split", quiet=quiet) as progress:
            for row in rows.sort_values("clip_id").to_dict("records"):
                out.append(read_clip(shards, row))
                progress.advance()
    return out


def read_held_out(folders: Iterable[Path], quiet: bool = True, most: int | None = None) -> list[ClipArrays]:
    """The usable clips of the test splits. Shard sets without a test split are ignored; [] if no set has one."""
    tested = [folder for folder in folders if len(usable(ShardSet(folder), "test"))]
    return read_clips(tested, "test", quiet=quiet, most=most)


def sample(rows: pd.DataFrame, most: int | None) -> pd.DataFrame:
    """At most `most` rows: of the first two or more speakers, as many emotions and intensities as possible.

    If `most` is None, the result has all rows.
    """
    if most is None or len(rows) <= most:
        return rows
    rows = rows.sort_values(["speaker", "clip_id"])
    before = rows.groupby("speaker", sort=True)["clip_id"].size().cumsum().shift(fill_value=0)
    speakers = before.index[(before < most) | (np.arange(len(before)) < 2)]
    rows = rows[rows["speaker"].isin(speakers)]
    turn = rows.groupby(["speaker", "emotion", "intensity"], dropna=False).cumcount()
    return rows.loc[turn.sort_values(kind="stable").index[:most]]


def usable(shards: ShardSet, split: str, min_frames: int = MIN_FRAMES) -> pd.DataFrame:
    """The rows of the split's clips that are long enough and show a face in at least MIN_VALID of their frames."""
    rows = shards.clips
    long, seen = rows["n_frames"] >= min_frames, rows["valid_fraction"] >= MIN_VALID
    return rows[long & seen & (rows["split"] == split)]


def by_speaker(clips: Iterable[ClipArrays]) -> dict[str, list[ClipArrays]]:
    """Groups the clips by speaker. Speakers are sorted; the clips of a speaker keep the order of `clips`."""
    out: dict[str, list[ClipArrays]] = {}
    for clip in clips:
        out.setdefault(clip.speaker, []).append(clip)
    return dict(sorted(out.items()))


def interpolated(track: np.ndarray) -> np.ndarray:
    """Replaces the rows of an array (T, ...) that contain NaN.

    Rows between two valid rows are interpolated linearly. Rows before the first or after the last valid row are copies
    of the nearest valid row. Raises ValueError if no row is valid.
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
