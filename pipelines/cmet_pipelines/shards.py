"""Shards: Parquet files with one row a clip, and `ShardSet`, which reads a folder of them. Schema: docs/shards.md.

A folder that preprocessing wrote holds
    dataset.json      card: settings, signature, counts, digest, versions
    clips.parquet     identity columns of every clip, with the shard and row group it lies in
    ledger.parquet    a row for every clip and every other file that was found, with what became of it
    shards/*.parquet  the clips
Every clip is a row group of its own, so one clip is read without its neighbours, and columns are read alone.
"""

from __future__ import annotations

import hashlib
import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.frames_codec import FrameCodec, get_codec
from talking_face.reasons import UserError
from talking_face.signature import canonical_json

Record = dict[str, Any]  # a value for every field of SCHEMA; arrays in their natural shapes

CARD, CLIPS, LEDGER, SHARDS = "dataset.json", "clips.parquet", "ledger.parquet", "shards"
SCHEMA_VERSION = "2"
SHARD_BYTES = 128 << 20
ROW_GROUP_CLIPS = 1
# A typical clip, to plan shards from the manifest alone: 4 s, and bytes of each frame's numbers as stored.
_PLANNED_FRAMES, _PLANNED_NUMBERS = 100, 9_300
_OPEN_SHARDS = 16


def _array(name: str, item: pa.DataType, shape: str, about: str) -> pa.Field:
    return pa.field(name, pa.list_(pa.field("element", item, nullable=False)), False, {"shape": shape, "about": about})


def _list(name: str, item: pa.DataType, about: str) -> pa.Field:
    return pa.field(name, pa.list_(pa.field("element", item, nullable=False)), False, {"about": about})


IDENTITY_FIELDS: tuple[pa.Field, ...] = (
    pa.field("clip_id", pa.string(), False),
    pa.field("dataset", pa.string(), False),
    pa.field("speaker", pa.string(), False),
    pa.field("emotion", pa.string()),
    pa.field("emotion_voted", pa.string(), True, {"about": "what most viewers saw and heard; null: a tie"}),
    pa.field("intensity", pa.int8()),
    pa.field("take", pa.string()),
    pa.field("view", pa.string()),
    pa.field("sentence_id", pa.string()),
    pa.field("transcript", pa.string()),
    pa.field("split", pa.string()),
    pa.field("source", pa.string(), False, {"about": "path below the dataset's root; archive!member in a tar"}),
    pa.field("audio_source", pa.string(), True, {"about": "separate sound file; null: the video's own track"}),
    pa.field("source_sha256", pa.string(), False),
    pa.field("source_width", pa.int32(), False),
    pa.field("source_height", pa.int32(), False),
    pa.field("source_fps", pa.float64(), False),
    pa.field("source_codec", pa.string()),
    pa.field("source_pix_fmt", pa.string()),
    pa.field("fps", pa.float64(), False),
    pa.field("align", pa.string(), False, {"about": "talking_face.faces.align mode of the crop"}),
    pa.field("size", pa.int32(), False, {"about": "side of the crop, px"}),
    pa.field("codec", pa.string(), False, {"about": "pipelines.frames_codec name"}),
    pa.field("n_frames", pa.int32(), False),
    pa.field("n_valid", pa.int32(), False, {"about": "frames with a face"}),
    pa.field("valid_fraction", pa.float64(), False),
    pa.field("jitter", pa.float64(), True, {"about": "tracking noise of the raw landmarks, crop px"}),
    pa.field(
        "audio_surplus", pa.int32(), True, {"about": "samples cut off the end (positive) or zeros added (negative)"}
    ),
    pa.field("n_faces", pa.int32(), False, {"about": "people followed from the first picture with a face on"}),
    pa.field("face_choice", pa.string(), False, {"about": "of them, the only, the speaking or the largest was taken"}),
    pa.field(
        "face_margin", pa.float64(), True, {"about": "sound and mouth: the taken face's correlation over the next"}
    ),
    pa.field("face_height", pa.float64(), False, {"about": "median, hairline to chin, source px"}),
    pa.field(
        "sharpness", pa.float64(), False, {"about": "variance of the crop's Laplacian, median of every 5th frame"}
    ),
    pa.field(
        "brightness", pa.float64(), False, {"about": "mean grey of the crop, 0 to 255, median of every 5th frame"}
    ),
    pa.field("black_frames", pa.int32(), False),
    _list("scene_cuts", pa.int32(), "frames with which another shot begins"),
    pa.field("identity_distance", pa.float64(), True, {"about": "dlib, across cuts and jumps; over 0.6: two people"}),
    _list("warnings", pa.string(), "what was noticed, in short"),
    pa.field("clip_digest", pa.string(), False, {"about": "SHA-256 of all other columns"}),
)
ARRAY_FIELDS: tuple[pa.Field, ...] = (
    _array("frames", pa.binary(), "T or 1", "encoded RGB frames; one blob a clip for video codecs"),
    _array("landmarks", pa.float32(), "T,478,3", "raw, crop px, NaN where not valid"),
    _array("landmarks_smoothed", pa.float32(), "T,478,3", "as landmarks, smoothed, gaps up to 5 frames bridged"),
    _array("blendshapes", pa.float32(), "T,52", "MediaPipe's order, NaN where not valid"),
    _array("valid", pa.bool_(), "T", "a face was found in the frame"),
    _array("crop_transform", pa.float32(), "T,2,3", "source px to crop px"),
    _array("audio", pa.int16(), "N", "16 kHz mono, N = round(T / fps * 16000)"),
)
SCHEMA = pa.schema([*IDENTITY_FIELDS, *ARRAY_FIELDS], {"schema_version": SCHEMA_VERSION})
_FLOATS = ("landmarks", "landmarks_smoothed", "blendshapes", "crop_transform")

LEDGER_SCHEMA = pa.schema(
    [
        pa.field("clip_id", pa.string(), True, {"about": "null for a file that is no clip"}),
        pa.field("source", pa.string(), False),
        pa.field(
            "status",
            pa.string(),
            False,
            {"about": "kept, dropped or excluded (a clip), or skipped (a file that is none)"},
        ),
        pa.field("stage", pa.string(), False, {"about": "where a dropped clip failed"}),
        pa.field("reason", pa.string(), False, {"about": "talking_face.reasons.Reason"}),
        pa.field("detail", pa.string(), False),
        pa.field("speaker", pa.string()),
        pa.field("emotion", pa.string()),
        pa.field("intensity", pa.int8()),
        pa.field("view", pa.string()),
        pa.field("split", pa.string()),
        pa.field("audio_source", pa.string(), True, {"about": "the clip's separate sound file, used or not"}),
        pa.field("source_bytes", pa.int64()),
        pa.field("source_sha256", pa.string()),
        pa.field("seconds", pa.float64()),
    ]
)


# -- writing -----------------------------------------------------------------------------------------------------------


def to_table(record: Record) -> pa.Table:
    """A table of one row. Raises KeyError where a column is missing."""
    columns = []
    for field in SCHEMA:
        value = record[field.name]
        if isinstance(value, np.ndarray):
            values = pa.array(value.reshape(-1), field.type.value_type)
            columns.append(pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values, type=field.type))
        else:
            columns.append(pa.array([value], field.type))
    return pa.table(columns, schema=SCHEMA)


def clip_digest(record: Mapping[str, Any]) -> str:
    """SHA-256, hex, over every column but itself: what was computed, in the schema's order."""
    sha = hashlib.sha256()
    for field in SCHEMA:
        if field.name == "clip_digest":
            continue
        value = record[field.name]
        sha.update(f"\0{field.name}\0".encode())
        if isinstance(value, np.ndarray):
            sha.update(f"{value.dtype.str}{value.shape}".encode())
            sha.update(np.ascontiguousarray(value).tobytes())
        elif field.name == "frames":
            for blob in value:
                sha.update(f"{len(blob)},".encode() + blob)
        else:
            sha.update(canonical_json(value).encode())
    return sha.hexdigest()


def clips_per_shard(size: int, codec: FrameCodec) -> int:
    """How many clips make a shard of about 128 MB, from the settings alone."""
    bytes_per_pixel = {"png": 1.2, "ffv1": 0.7, "webp": 0.35, "jpeg": 0.48, "jpeg420": 0.35}.get(codec.kind, 0.45)
    if codec.lossless:
        bytes_per_pixel = max(bytes_per_pixel, 0.7)
    clip = _PLANNED_FRAMES * (size * size * bytes_per_pixel + _PLANNED_NUMBERS)
    return int(min(512, max(8, SHARD_BYTES // clip // 8 * 8)))


def plan(clip_ids: Sequence[str], per_shard: int) -> list[list[str]]:
    """Clips by shard: sorted ids, cut into equal runs. Depends on the manifest alone."""
    ordered = sorted(clip_ids)
    return [ordered[start : start + per_shard] for start in range(0, len(ordered), per_shard)]


def write_rows(file: BinaryIO, rows: Iterable[pa.Table]) -> None:
    """Writes one-row tables as a shard, one at a time. The same rows give the same bytes."""
    leaves = {field.name: f"{field.name}.list.element" for field in ARRAY_FIELDS}
    compression = {field.name: "zstd" for field in IDENTITY_FIELDS} | {leaf: "zstd" for leaf in leaves.values()}
    for field in IDENTITY_FIELDS:
        if pa.types.is_list(field.type):
            compression[f"{field.name}.list.element"] = compression.pop(field.name)
    compression[leaves["frames"]] = "none"  # encoded already: zstd saves under 1% and costs every reader
    encoding = {leaves[name]: "BYTE_STREAM_SPLIT" for name in _FLOATS} | {leaves["audio"]: "DELTA_BINARY_PACKED"}
    with pq.ParquetWriter(
        file,
        SCHEMA,
        compression=compression,
        compression_level={name: 3 for name, kind in compression.items() if kind == "zstd"},
        use_dictionary=False,
        column_encoding=encoding,
        write_statistics=["clip_id", "speaker", "emotion", "split"],
        write_batch_size=1024,
        data_page_size=1 << 22,
    ) as writer:
        for row in rows:
            writer.write_table(row, row_group_size=ROW_GROUP_CLIPS)


# -- reading -----------------------------------------------------------------------------------------------------------


class ShardSet:
    """Read side of one preprocessed dataset. Opens files as they are asked for; not safe to share between threads.

    Raises UserError where the folder is no finished shard set, KeyError for an unknown clip_id.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        path = self.folder / CARD
        try:
            self.card: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            raise UserError(
                f"{self.folder} holds no shards ({CARD} is not there); run `cmet-eval preprocess`"
            ) from None
        except ValueError:
            raise UserError(f"{path} is damaged; run the same `cmet-eval preprocess` again") from None
        if not self.card.get("complete"):
            raise UserError(f"{self.folder} is not finished; run the same `cmet-eval preprocess` again to finish it")
        self._files: OrderedDict[str, pq.ParquetFile] = OrderedDict()

    @property
    def digest(self) -> str:
        """Content digest of the whole set."""
        return cast(str, self.card["digest"])

    @property
    def signature(self) -> str:
        """How the content was made."""
        return cast(str, self.card["signature"])

    @cached_property
    def clips(self) -> pd.DataFrame:
        """Identity columns of every clip, sorted by clip_id, with `shard` and `row_group`."""
        return pq.read_table(self.folder / CLIPS).to_pandas()

    @cached_property
    def ledger(self) -> pd.DataFrame:
        """A row for every clip and file that was found."""
        return pq.read_table(self.folder / LEDGER).to_pandas()

    def __len__(self) -> int:
        return len(self.clips)

    def frames(self, clip_id: str, indices: Sequence[int] | None = None) -> np.ndarray:
        """Face crops, all or those at `indices`: (N, S, S, 3) uint8 RGB."""
        column = self._column(clip_id, "frames")
        blobs = [value.as_buffer() for value in column.values]
        return get_codec(self._codec(clip_id)).decode(cast(Sequence[bytes], blobs), indices)

    def audio(self, clip_id: str) -> np.ndarray:
        """(N,) int16 mono, 16 kHz, N == round(T / fps * 16000)."""
        return self._numbers(clip_id, "audio")

    def landmarks(self, clip_id: str, smoothed: bool = False) -> np.ndarray:
        """(T, 478, 3) float32 in crop pixels, NaN where there is no face."""
        return self._numbers(clip_id, "landmarks_smoothed" if smoothed else "landmarks").reshape(-1, 478, 3)

    def blendshapes(self, clip_id: str) -> np.ndarray:
        """(T, 52) float32 in [0, 1], NaN where there is no face."""
        return self._numbers(clip_id, "blendshapes").reshape(-1, 52)

    def valid(self, clip_id: str) -> np.ndarray:
        """(T,) bool: frames with a face."""
        return self._numbers(clip_id, "valid")

    def crop_transform(self, clip_id: str) -> np.ndarray:
        """(T, 2, 3) float32: source pixels to crop pixels."""
        return self._numbers(clip_id, "crop_transform").reshape(-1, 2, 3)

    def verify(self, clip_id: str) -> bool:
        """Whether the stored row still has the digest it was written with."""
        shard, group = self._where[clip_id]
        row = self._open(shard).read_row_group(group)
        record: Record = {}
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

    def _column(self, clip_id: str, name: str) -> Any:
        shard, group = self._where[clip_id]
        return self._open(shard).read_row_group(group, columns=[name]).column(0)[0]

    def _numbers(self, clip_id: str, name: str) -> np.ndarray:
        values = self._column(clip_id, name).values.to_numpy(zero_copy_only=False)
        return np.array(values)  # a copy: the caller may write into it
