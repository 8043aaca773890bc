"""Reads a folder of shards: `ShardSet` gives the clips, the ledger and every clip's arrays.

docs/reference/shards.md explains every column. A folder that preprocessing wrote contains
    dataset.json      card: settings, signature, counts, digest, versions
    clips.parquet     identity columns of every clip, with its shard and row group
    ledger.parquet    one row per clip and per other file that was found, with its outcome
    shards/*.parquet  the clips
Every clip is one row group of its Parquet file. So one clip, or one column of a clip, can be loaded without the rest of
the file.

Everything that is read is checked before it is used, so that a changed bit never changes a value:
    dataset.json, clips.parquet, ledger.parquet: the digest of the whole file (`talking_face.sealed`)
    the footer of a shard: its digest in dataset.json, each time the shard is opened
    an array column of a clip: its checksum in clips.parquet, once in each ShardSet
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.records import ARRAY_FIELDS, Card, ShardFile
from cmet_pipelines.shard_files import column_checksum, describe, row_is_sound
from cmet_pipelines.stored_forms import check_card, check_clips, check_ledger
from talking_face.lines import one_line
from talking_face.origin import Origin, origin_of_clips, without_guess
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, check_sealed_table, read_sealed_json, read_sealed_table

CARD, CLIPS, LEDGER, SHARDS = "dataset.json", "clips.parquet", "ledger.parquet", "shards"
REMEDY = "run the same `cmet-eval preprocess` again, which repairs it"
_OPEN_SHARDS = 16
_COLUMNS = {field.name: place for place, field in enumerate(ARRAY_FIELDS)}  # position in the list `column_checksums`


class _OpenShard(NamedTuple):
    """One shard, opened twice, because pyarrow checks the checksums of pages in all columns of a file or in none.

    The blobs of frames are stored uncompressed, so they are checked by the checksum of their column alone. Checking
    the checksums of their pages too would take 1 s per GB.
    """

    frames: pq.ParquetFile
    numbers: pq.ParquetFile  # with checksums, because damaged pages must not reach the decompressor


class ShardSet:
    """Reads one preprocessed dataset. A shard is opened at its first use. Do not share an instance between threads.

    Raises UserError if the folder is not a finished shard set, Damaged if a stored file is not what was written, and
    KeyError for an unknown clip_id.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / CARD
        try:
            self.card = cast(Card, read_sealed_json(path, REMEDY))
        except (FileNotFoundError, NotADirectoryError):
            raise UserError(f"{self.folder} holds no shards ({CARD} is missing); run `cmet-eval preprocess`") from None
        if not self.card.get("complete"):
            raise UserError(f"{self.folder} is not finished; run the same `cmet-eval preprocess` again to finish it")
        check_card(path, self.card, REMEDY)
        self._files: OrderedDict[str, _OpenShard] = OrderedDict()
        self._checked: set[tuple[str, str]] = set()  # clip_id and column

    @property
    def digest(self) -> str:
        """Content digest of the whole set."""
        return self.card["digest"]

    @property
    def signature(self) -> str:
        """The settings with which the clips were processed, as one line; docs/reference/shards.md explains the line."""
        return self.card["signature"]

    @cached_property
    def origin(self) -> Origin:
        """Whether the clips are drawn or recorded.

        Older sets do not carry it. Then the speakers' names can prove that clips are drawn, but not that clips are
        recorded. Raises Damaged if the card contradicts the names of the speakers.
        """
        speakers = zip(self.clips["dataset"], self.clips["speaker"], strict=True)
        found = origin_of_clips(speakers, self.card.get("settings", {}).get("origin"))
        stored = self.card.get("origin")
        if stored is None:
            return without_guess(found)
        if stored != found:
            problem = f"its origin is {stored}, but the speakers and the settings of its clips say {found}"
            raise Damaged(self.folder / CARD, problem, REMEDY)
        return found

    @cached_property
    def clips(self) -> pd.DataFrame:
        """Identity columns of every clip, sorted by clip_id, with the clip's `shard` and `row_group`."""
        return self._table(CLIPS)

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """The ledger: one row per clip, and one row per other file that was found."""
        return self._table(LEDGER)

    def __len__(self) -> int:
        return len(self.clips)

    def frames(self, clip_id: str, indices: Sequence[int] | None = None) -> np.ndarray:
        """The face crops at `indices`, in the order of `indices`; None for all crops. (N, S, S, 3) uint8 RGB."""
        blobs = [value.as_buffer() for value in self._column(clip_id, "frames")]
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
        with self._reading(shard, clip_id):
            return row_is_sound(self._open(shard).numbers.read_row_group(group))

    @cached_property
    def _where(self) -> dict[str, tuple[str, int]]:
        table = self.clips
        places = zip(table["shard"], (int(group) for group in table["row_group"]), strict=True)
        return dict(zip(table["clip_id"], places, strict=True))

    @cached_property
    def _checksums(self) -> dict[str, Sequence[int]]:
        return dict(zip(self.clips["clip_id"], self.clips["column_checksums"], strict=True))

    @cached_property
    def _codecs(self) -> dict[str, str]:
        return dict(zip(self.clips["clip_id"], self.clips["codec"], strict=True))

    def _codec(self, clip_id: str) -> str:
        return self._codecs[clip_id]

    def _table(self, name: str) -> pd.DataFrame:
        path = self.folder / name
        try:
            table = read_sealed_table(path, REMEDY)
            return (check_clips if name == CLIPS else check_ledger)(path, table, REMEDY).to_pandas()
        except FileNotFoundError:
            raise Damaged(path, "it is missing", REMEDY) from None

    def _open(self, shard: str) -> _OpenShard:
        """The opened shard. If too many shards are open, the least recently used shard is closed."""
        if shard in self._files:
            self._files.move_to_end(shard)
            return self._files[shard]
        path = self.folder / SHARDS / shard
        if problem := shard_problem(path, self.card["shards"].get(shard)):
            raise Damaged(path, problem, REMEDY)
        frames = pq.ParquetFile(path, memory_map=True)
        numbers = pq.ParquetFile(path, memory_map=True, metadata=frames.metadata, page_checksum_verification=True)
        self._files[shard] = _OpenShard(frames, numbers)
        if len(self._files) > _OPEN_SHARDS:
            _, (frames, numbers) = self._files.popitem(last=False)
            frames.close()
            numbers.close()
        return self._files[shard]

    def _column(self, clip_id: str, name: str) -> pa.Array:
        """The elements of an array column. At the first call, compares them with the checksum in clips.parquet."""
        shard, group = self._where[clip_id]
        with self._reading(shard, clip_id):
            opened = self._open(shard)
            file = opened.frames if name == "frames" else opened.numbers
            values = file.read_row_group(group, columns=[name]).column(0)[0].values
        if (clip_id, name) not in self._checked:
            if column_checksum(values) != self._checksums[clip_id][_COLUMNS[name]]:
                raise self._damaged(shard, clip_id, f"its {name} are not what was written")
            self._checked.add((clip_id, name))
        return values

    def _numbers(self, clip_id: str, name: str) -> np.ndarray:
        values = self._column(clip_id, name).to_numpy(zero_copy_only=False)
        return np.array(values)  # return a copy, so that the caller can change the array

    @contextmanager
    def _reading(self, shard: str, clip_id: str) -> Iterator[None]:
        """Replaces the errors of pyarrow by Damaged, with the clip."""
        try:
            yield
        except (pa.ArrowException, OSError, ValueError, IndexError, MemoryError) as error:
            raise self._damaged(shard, clip_id, one_line(error, 100)) from None

    def _damaged(self, shard: str, clip_id: str, problem: str) -> Damaged:
        return Damaged(self.folder / SHARDS / shard, f"clip {clip_id}: {problem}", REMEDY)


def shard_problem(path: Path, expected: ShardFile | None) -> str:
    """What is wrong with the size or the footer of a shard, in a few words; "" if nothing is wrong.

    Args:
        path: the shard.
        expected: the shard's entry in the card; None if the card does not name the shard.
    """
    try:
        found = describe(path)
    except FileNotFoundError:
        return "it is missing"
    if expected is None:
        return f"{CARD} does not name it"
    if found["bytes"] != expected["bytes"]:
        return f"it has {found['bytes']} bytes, not {expected['bytes']}"
    return "" if found["footer"] == expected["footer"] else "its footer is not what was written"


def damaged_files(folder: Path) -> list[Damaged]:
    """The damaged or missing files of a finished set. Reads every byte, about 1 s per GB.

    Raises UserError if the folder is not a finished shard set, and Damaged if the card is damaged.
    """
    shards = ShardSet(folder).card["shards"]
    problems = {folder / SHARDS / name: shard_problem(folder / SHARDS / name, file) for name, file in shards.items()}
    found = []
    for path in (folder / CLIPS, folder / LEDGER, *problems):
        try:
            if problem := problems.get(path):
                raise Damaged(path, problem, REMEDY)
            check_sealed_table(path, REMEDY)
        except FileNotFoundError:
            found.append(Damaged(path, "it is missing", REMEDY))
        except Damaged as damage:
            found.append(damage)
    return found
