"""Reads a folder of shards: `ShardSet` gives the clips, the ledger and every clip's arrays.

docs/reference/shards.md explains every column. A folder that preprocessing wrote contains
    dataset.json      card: settings, signature, counts, digest, versions
    clips.parquet     identity columns of every clip, with its shard and row group
    ledger.parquet    one row per clip and per other file that was found, with its outcome
    shards/*.parquet  the clips
Every clip is one row group of its Parquet file. So one clip, or one column of a clip, can be loaded without the rest of
the file.
"""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.records import ARRAY_FIELDS, SCHEMA, Card
from cmet_pipelines.shard_files import clip_digest
from talking_face.reasons import UserError

CARD, CLIPS, LEDGER, SHARDS = "dataset.json", "clips.parquet", "ledger.parquet", "shards"
_OPEN_SHARDS = 16


class ShardSet:
    """Reads one preprocessed dataset. A shard is opened at its first use. Do not share an instance between threads.

    Raises UserError if the folder is not a finished shard set, and KeyError for an unknown clip_id.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / CARD
        try:
            self.card: Card = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise UserError(f"{self.folder} holds no shards ({CARD} is missing); run `cmet-eval preprocess`") from None
        except ValueError:
            raise UserError(f"{path} is damaged; run the same `cmet-eval preprocess` again") from None
        if not self.card.get("complete"):
            raise UserError(f"{self.folder} is not finished; run the same `cmet-eval preprocess` again to finish it")
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    @property
    def digest(self) -> str:
        """Content digest of the whole set."""
        return self.card["digest"]

    @property
    def signature(self) -> str:
        """The settings with which the clips were processed, as one line; docs/reference/shards.md explains the line."""
        return self.card["signature"]

    @cached_property
    def clips(self) -> pd.DataFrame:
        """Identity columns of every clip, sorted by clip_id, with the clip's `shard` and `row_group`."""
        return pq.read_table(self.folder / CLIPS).to_pandas()

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """The ledger: one row per clip, and one row per other file that was found."""
        return pq.read_table(self.folder / LEDGER).to_pandas()

    def __len__(self) -> int:
        return len(self.clips)

    def frames(self, clip_id: str, indices: Sequence[int] | None = None) -> np.ndarray:
        """The face crops at `indices`, in the order of `indices`; None for all crops. (N, S, S, 3) uint8 RGB."""
        column = self._column(clip_id, "frames")
        blobs = [value.as_buffer() for value in column.values]
        return get_codec(self._codec(clip_id)).decode(cast(Sequence[bytes], blobs), indices)

    def audio(self, clip_id: str) -> np.ndarray:
        """The sound: (N,) int16 mono, 16 kHz, N = round(T / fps * 16000)."""
        return self._numbers(clip_id, "audio")

    def landmarks(self, clip_id: str, smoothed: bool = False) -> np.ndarray:
        """(T, 478, 3) float32 in crop pixels, NaN in frames without a face; `smoothed` fills gaps of up to 5 frames."""
        return self._numbers(clip_id, "landmarks_smoothed" if smoothed else "landmarks").reshape(-1, 478, 3)

    def blendshapes(self, clip_id: str) -> np.ndarray:
        """(T, 52) float32 in [0, 1], NaN in frames without a face."""
        return self._numbers(clip_id, "blendshapes").reshape(-1, 52)

    def valid(self, clip_id: str) -> np.ndarray:
        """(T,) bool: True for frames with a face."""
        return self._numbers(clip_id, "valid")

    def crop_transform(self, clip_id: str) -> np.ndarray:
        """(T, 2, 3) float32: affine transforms from source pixels to crop pixels."""
        return self._numbers(clip_id, "crop_transform").reshape(-1, 2, 3)

    def verify(self, clip_id: str) -> bool:
        """Whether the digest of the stored row equals the digest that was computed when the row was written."""
        shard, group = self._where[clip_id]
        row = self._open(shard).read_row_group(group)
        record: dict[str, object] = {}
        shapes = {"landmarks": (-1, 478, 3), "landmarks_smoothed": (-1, 478, 3), "blendshapes": (-1, 52)}
        shapes |= {"crop_transform": (-1, 2, 3)}
        for field in SCHEMA:
            cell = row.column(field.name)[0]
            if field in ARRAY_FIELDS and field.name != "frames":
                record[field.name] = cell.values.to_numpy(zero_copy_only=False).reshape(shapes.get(field.name, (-1,)))
            else:
                record[field.name] = cell.as_py()
        return clip_digest(record) == record["clip_digest"]

    @cached_property
    def _where(self) -> dict[str, tuple[str, int]]:
        table = self.clips
        places = zip(table["shard"], (int(group) for group in table["row_group"]), strict=True)
        return dict(zip(table["clip_id"], places, strict=True))

    @cached_property
    def _codecs(self) -> dict[str, str]:
        return dict(zip(self.clips["clip_id"], self.clips["codec"], strict=True))

    def _codec(self, clip_id: str) -> str:
        return self._codecs[clip_id]

    def _open(self, shard: str) -> pq.ParquetFile:
        """The opened shard. If too many shards are open, the least recently used shard is closed."""
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        path = self.folder / SHARDS / shard
        try:
            file = pq.ParquetFile(path, memory_map=True)
        except FileNotFoundError:
            raise UserError(f"{path} is missing; run the same `cmet-eval preprocess` again") from None
        except pa.ArrowInvalid:
            raise UserError(f"{path} is damaged; remove it and run the same `cmet-eval preprocess` again") from None
        self._files[shard] = file
        if len(self._files) > _OPEN_SHARDS:
            self._files.popitem(last=False)[1].close()
        return file

    def _column(self, clip_id: str, name: str) -> pa.ListScalar:
        shard, group = self._where[clip_id]
        return self._open(shard).read_row_group(group, columns=[name]).column(0)[0]

    def _numbers(self, clip_id: str, name: str) -> np.ndarray:
        values = self._column(clip_id, name).values.to_numpy(zero_copy_only=False)
        return np.array(values)  # return a copy, so that the caller can change the array
