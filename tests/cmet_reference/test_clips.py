"""Clips to learn from: sets without a test split hold nothing out, and damage is not taken for that."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from cmet_reference.clips import read_clips, read_held_out
from talking_face.reasons import UserError
from talking_face.sealed import write_sealed_json, write_sealed_table


def shard_set(folder: Path, splits: list[str], n_frames: list[int]) -> Path:
    """A set whose table names clips, and whose shard is not there."""
    folder.mkdir()
    write_sealed_json(
        folder / "dataset.json", {"complete": True, "dataset": "clips", "digest": "d1", "signature": "s", "shards": {}}
    )
    n = len(splits)
    rows = {"clip_id": [f"a/{k}" for k in range(n)], "dataset": ["clips"] * n, "speaker": ["a"] * n}
    rows |= {"split": splits, "n_frames": n_frames, "valid_fraction": [1.0] * n}
    rows |= {"emotion": ["happy"] * n, "sentence_id": [None] * n, "intensity": [None] * n}
    table = pa.table(rows | {"shard": ["gone.parquet"] * n, "row_group": list(range(n))})
    write_sealed_table(table, folder / "clips.parquet")
    return folder


def test_nothing_is_held_out_only_where_there_is_nothing(tmp_path: Path) -> None:
    plain = shard_set(tmp_path / "plain", ["train", "train", "test"], [50, 50, 14])  # too short a test clip
    both = shard_set(tmp_path / "both", ["train", "test"], [50, 50])
    assert read_held_out([plain]) == []
    with pytest.raises(UserError, match="no clip of the test split"):
        read_clips([plain], "test")
    with pytest.raises(UserError, match=r"gone\.parquet is damaged .*missing"):
        read_held_out([plain, both])
