"""A tiny shard set by the suite's own writer: four speakers, three emotions, two takes, 12 frames of 64 px."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.records import IDENTITY_FIELDS
from cmet_pipelines.shard_files import describe, set_digests, to_table, write_shard
from cmet_pipelines.shards import CARD, CLIPS, SHARDS
from talking_face.sealed import write_sealed_json, write_sealed_table

T, SIZE = 12, 64
CODEC = "png"


def picture(seed: int, n: int = T) -> np.ndarray:
    """(n, SIZE, SIZE, 3) uint8: smooth blobs that move; different seeds look different."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    frames = np.zeros((n, SIZE, SIZE, 3))
    for t, c in itertools.product(range(n), range(3)):
        for k, (a, b) in enumerate(np.random.default_rng([seed, c]).uniform(0.2, 0.8, (3, 2))):
            spot = ((x - a - 0.1 * np.sin(t / 3 + k)) ** 2 + (y - b) ** 2) / 0.03
            frames[t, :, :, c] += 80 * np.exp(-spot)
    return np.clip(frames + rng.uniform(20, 60), 0, 255).astype(np.uint8)


def make_record(seed: int, n: int, **labels: Any) -> dict[str, Any]:
    """A clip of n frames that the seed draws, with what `labels` says of it: clip_id, speaker, emotion, ..."""
    record: dict[str, Any] = {field.name: None for field in IDENTITY_FIELDS}
    record |= {
        **{"dataset": "clips", "intensity": 1, "split": "test", "source": "x.mp4", "source_sha256": "0" * 64},
        **{"source_width": 64, "source_height": 64, "source_fps": 25.0, "fps": 25.0, "size": SIZE, "codec": CODEC},
        **{"n_frames": n, "n_valid": n, "valid_fraction": 1.0, "warnings": [], "clip_digest": ""},
        **{"align": "box", "n_faces": 1, "face_choice": "only", "face_height": 40.0, "sharpness": 9.0},
        **{"brightness": 90.0, "black_frames": 0, "scene_cuts": []},
        "frames": get_codec(CODEC).encode(picture(seed, n)),
        "landmarks": np.zeros((n, 478, 3), np.float32),
        "landmarks_smoothed": np.zeros((n, 478, 3), np.float32),
        "blendshapes": np.zeros((n, 52), np.float32),
        "valid": np.ones(n, bool),
        "crop_transform": np.zeros((n, 2, 3), np.float32),
        "audio": (8000 * np.sin(np.arange(n * 640) / 9)).astype(np.int16),
        **labels,
    }
    set_digests(record)
    return record


def write_shard_set(folder: Path, records: list[dict[str, Any]]) -> Path:
    """A shard set of these clips, one shard."""
    (folder / SHARDS).mkdir(parents=True)
    shard = folder / SHARDS / "part.parquet"
    write_shard(shard, [to_table(record) for record in records])
    columns = {field.name: pa.array([r[field.name] for r in records], field.type) for field in IDENTITY_FIELDS}
    places = {"shard": ["part.parquet"] * len(records), "row_group": list(range(len(records)))}
    write_sealed_table(pa.table({**columns, **places}), folder / CLIPS)
    card = {"complete": True, "dataset": "clips", "digest": "d" * 32, "signature": "shards|version:test"}
    write_sealed_json(folder / CARD, {**card, "shards": {shard.name: describe(shard)}})
    return folder


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the shard set."""
    records = []
    for seed, (speaker, emotion, take) in enumerate(itertools.product("ABCD", ("neutral", "happy", "sad"), (1, 2))):
        # One clip is shorter than the others, so that lengths differ between source and driving audio.
        n = T - 3 if (emotion, take) == ("neutral", 2) else T
        name = f"clips/{speaker}/{emotion}/{take}"
        records.append(make_record(seed, n, clip_id=name, speaker=speaker, emotion=emotion, take=str(take)))
    return write_shard_set(tmp_path_factory.mktemp("shards"), records)


@pytest.fixture(scope="session")
def moving_picture() -> Callable[..., np.ndarray]:
    """`picture`, for tests that write videos of their own."""
    return picture
