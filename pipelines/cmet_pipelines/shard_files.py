"""Writes shards: assigns clips to files, makes tables of one row per clip with digests, and writes sealed files."""

from __future__ import annotations

import hashlib
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import cast

import numpy as np
import pyarrow as pa

from cmet_pipelines.frames_codec import FrameCodec
from cmet_pipelines.records import ARRAY_FIELDS, IDENTITY_FIELDS, SCHEMA, ClipRecord, ShardFile
from talking_face.files import sha256_of
from talking_face.sealed import parquet_footer, sealed_writer
from talking_face.signature import canonical_json

SHARD_BYTES = 128 << 20
ROW_GROUP_CLIPS = 1
# The clips are assigned to shards before any clip is processed, so the size of a typical clip is assumed. The typical
# clip has 100 frames (4 s), and 9,300 stored bytes per frame for landmarks and other numbers.
_PLANNED_FRAMES, _PLANNED_NUMBERS = 100, 9_300
_PLANNED_SIDE = 512  # px, of a whole picture; the shards of larger pictures are larger
_FLOATS = ("landmarks", "landmarks_smoothed", "blendshapes", "crop_transform")


def to_table(record: Mapping[str, object]) -> pa.Table:
    """A table of one row. Raises KeyError if a column is missing."""
    columns = []
    for field in SCHEMA:
        value = record[field.name]
        if isinstance(value, np.ndarray):
            values = _arrow(value, field)
            columns.append(pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values, type=field.type))
        else:
            columns.append(pa.array([value], field.type))
    return pa.table(columns, schema=SCHEMA)


def _arrow(value: object, field: pa.Field) -> pa.Array:
    """The elements of an array column as a flat Arrow array."""
    return pa.array(value.reshape(-1) if isinstance(value, np.ndarray) else value, field.type.value_type)


def set_digests(record: dict[str, object] | ClipRecord) -> None:
    """Computes the values of `clip_digest` and `column_checksums` from all other columns of the record."""
    values: Mapping[str, object] = {**record}
    record["clip_digest"] = _clip_digest(values)
    record["column_checksums"] = [column_checksum(_arrow(values[field.name], field)) for field in ARRAY_FIELDS]


def column_checksum(values: pa.Array) -> int:
    """CRC-32 of one array column of one clip: of its numbers, or of the sizes of its blobs and the blobs.

    It is three times as fast as SHA-256 (4 GB/s). It finds every change within 32 neighbouring bits, and misses one in
    4 billion of other changes. The SHA-256 of the whole shard misses none.
    """
    if not pa.types.is_binary(values.type):
        return zlib.crc32(np.ascontiguousarray(values.to_numpy(zero_copy_only=False)).data)
    _, offsets, data = values.buffers()
    ends = np.frombuffer(offsets, np.int32)[values.offset : values.offset + len(values) + 1]
    return zlib.crc32(memoryview(data)[ends[0] : ends[-1]], zlib.crc32(np.diff(ends).data))


def row_is_sound(row: pa.Table) -> bool:
    """Whether the `clip_digest` of a stored row is the digest of the other columns of this row."""
    record: dict[str, object] = {}
    for field in SCHEMA:
        cell = row.column(field.name)[0]
        if field in ARRAY_FIELDS and field.name != "frames":
            shape = [int(side) if side.isdigit() else -1 for side in field.metadata[b"shape"].decode().split(",")]
            record[field.name] = cell.values.to_numpy(zero_copy_only=False).reshape(shape)
        else:
            record[field.name] = cell.as_py()
    return _clip_digest(record) == record["clip_digest"]


def _clip_digest(record: Mapping[str, object]) -> str:
    """SHA-256 of the values of all columns except the digests, in the order of the schema; 64 hex digits."""
    sha = hashlib.sha256()
    for field in SCHEMA:
        if field.name in ("clip_digest", "column_checksums"):
            continue
        value = record[field.name]
        sha.update(f"\0{field.name}\0".encode())
        if isinstance(value, np.ndarray):
            sha.update(f"{value.dtype.str}{value.shape}".encode())
            sha.update(np.ascontiguousarray(value).tobytes())
        elif field.name == "frames":
            for blob in cast(Sequence[bytes], value):
                sha.update(f"{len(blob)},".encode() + blob)
        else:
            sha.update(canonical_json(value).encode())
    return sha.hexdigest()


def clips_per_shard(size: int, codec: FrameCodec) -> int:
    """Number of clips in a shard of about 128 MB. Only the settings change this number, so every run plans the same.

    `size`: side of the crop, px; 0 for whole pictures.
    """
    side = size or _PLANNED_SIDE
    bytes_per_pixel = {"png": 1.2, "ffv1": 0.7, "webp": 0.35, "jpeg": 0.48, "jpeg420": 0.35}.get(codec.kind, 0.45)
    if codec.lossless:
        bytes_per_pixel = max(bytes_per_pixel, 0.7)
    clip = _PLANNED_FRAMES * (side * side * bytes_per_pixel + _PLANNED_NUMBERS)
    return int(min(512, max(8, SHARD_BYTES // clip // 8 * 8)))


def plan(clip_ids: Sequence[str], per_shard: int) -> list[list[str]]:
    """The clip ids of each shard: `per_shard` ids each, in sorted order. The last shard can be smaller."""
    ordered = sorted(clip_ids)
    return [ordered[start : start + per_shard] for start in range(0, len(ordered), per_shard)]


def write_shard(path: Path, rows: Iterable[pa.Table]) -> None:
    """Writes one sealed shard from tables of one row each, one table at a time. The same rows give the same bytes."""
    leaves = {field.name: f"{field.name}.list.element" for field in ARRAY_FIELDS}
    compression = {field.name: "zstd" for field in IDENTITY_FIELDS} | {leaf: "zstd" for leaf in leaves.values()}
    for field in IDENTITY_FIELDS:
        if pa.types.is_list(field.type):
            compression[f"{field.name}.list.element"] = compression.pop(field.name)
    compression[leaves["frames"]] = "none"  # frames are already encoded; zstd saves less than 1% and slows reading
    encoding = {leaves[name]: "BYTE_STREAM_SPLIT" for name in _FLOATS} | {leaves["audio"]: "DELTA_BINARY_PACKED"}
    with sealed_writer(
        path,
        SCHEMA,
        durable=True,
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


def describe(path: Path) -> ShardFile:
    """The size of a shard and the digest of its footer, as the card stores them. Raises OSError if there is no file."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "footer": sha256_of(parquet_footer(file))}
