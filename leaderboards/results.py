"""Result rows: one row a method, pair and metric, with the signature that made it; Parquet, long format.

One file holds one method (and revision) in one setting, on one data set, pair list and suite version. Writing it again
replaces the rows of the same pair and signature and keeps the others, so that results accumulate; the bytes depend on
the rows alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from talking_face.reasons import UserError
from talking_face.signature import canonical_json

SCHEMA = pa.schema(
    [
        ("setting", pa.string()),
        ("method", pa.string()),
        ("revision", pa.string()),
        ("pair_id", pa.string()),
        ("seed", pa.int32()),
        ("speaker", pa.string()),
        ("reference_emotion", pa.string()),
        ("target_emotion", pa.string()),
        ("intensity", pa.int32()),
        ("ground_truth_clip", pa.string()),
        ("metric", pa.string()),  # name:variant
        ("signature", pa.string()),  # the metric's
        ("higher_is_better", pa.bool_()),
        ("unit", pa.string()),
        ("value", pa.float64()),  # null where there is a reason
        ("reason", pa.string()),  # talking_face.reasons.Reason
        ("detail", pa.string()),
        ("n", pa.int32()),  # frames (or the metric's own unit) in the value
        ("stats", pa.map_(pa.string(), pa.float64())),  # sums; pooled metrics are made of these
        ("notes", pa.string()),  # what was done to the video: cut, held, resampled
        ("codec", pa.string()),  # of the file that was scored
        ("video_sha256", pa.string()),
        ("dataset", pa.string()),
        ("data_digest", pa.string()),
        ("data_signature", pa.string()),
        ("pairs_digest", pa.string()),
        ("rules", pa.string()),  # digest of the setting's rules
        ("profile", pa.string()),  # evaluator profile: embedded | paper
        ("suite_version", pa.string()),
    ]
)
# Rows that differ in one of these never share a table, let alone a column.
TABLE_KEYS = (
    "setting",
    "rules",
    "dataset",
    "data_digest",
    "data_signature",
    "pairs_digest",
    "profile",
    "suite_version",
)
_FILE_KEYS = ("setting", "method", "revision", "data_digest", "pairs_digest", "suite_version", "profile")
_SORT = ("metric", "signature", "pair_id")
_META_KEY = b"cmet_eval.results"


@dataclass(frozen=True)
class Results:
    """All rows under a folder, and the records that came with them."""

    table: pa.Table  # SCHEMA, unique by file keys, pair and signature
    records: tuple[dict[str, Any], ...]  # one a file: {"method": ..., "setting": ..., "command": ..., "key": [...]}

    def frame(self) -> pd.DataFrame:
        """The rows without `stats`, which is slow to turn into Python objects."""
        frame: pd.DataFrame = self.table.drop_columns(["stats"]).to_pandas()
        return frame


def write_results(rows: Iterable[Mapping[str, Any]], folder: Path, record: Mapping[str, Any]) -> Path:
    """Write the rows of one method in one setting under `folder`, merged with what is there already.

    Args:
        rows: dicts with SCHEMA's columns; all must agree in method, revision, setting, data, pairs and version.
        folder: the results folder.
        record: `method`, `setting`, `pairs` (dicts of plain values) and `command` (text), shown on the board.

    Returns:
        the file's path: `SETTING/METHOD@REVISION--data-...--pairs-...--suite-....parquet`.
    """
    rows = list(rows)
    keys = {tuple(str(row[name]) for name in _FILE_KEYS) for row in rows}
    if len(keys) != 1:
        raise ValueError(f"rows of one file must agree in {', '.join(_FILE_KEYS)}; got {len(keys)} combinations")
    setting, method, revision, data, pairs, version, profile = keys.pop()
    name = f"{method}@{revision}--data-{data[:8]}--pairs-{pairs[:8]}--suite-{version}--{profile}.parquet"
    path = folder / _safe(setting) / _safe(name)
    merged = {(row["pair_id"], row["signature"]): dict(row) for row in rows}
    if path.exists():
        # An older row stays only where it measured the same video: a board row never mixes two versions of a method.
        videos = {row["pair_id"]: row["video_sha256"] for row in rows}
        for row in _read(path).to_pylist():
            if videos.get(row["pair_id"], row["video_sha256"]) == row["video_sha256"]:
                merged.setdefault((row["pair_id"], row["signature"]), row)
    table = _table(merged.values()).replace_schema_metadata({_META_KEY: canonical_json(dict(record)).encode()})
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    pq.write_table(table, part, compression="zstd")
    part.replace(path)
    return path


def read_results(folder: Path) -> Results:
    """Every result file under `folder`.

    Raises:
        UserError: no file, one that is not a result file, or two files that disagree on the same number.
    """
    paths = sorted(folder.rglob("*.parquet"))
    if not paths:
        raise UserError(f"no result rows under {folder}; make some with cmet-eval run or cmet-eval score")
    tables, records = [], []
    for path in paths:
        table = _read(path)
        record = json.loads((table.schema.metadata or {}).get(_META_KEY, b"{}"))
        first = table.slice(0, 1).select([*TABLE_KEYS, "method", "revision"]).to_pylist()
        records.append({**record, "key": first[0] if first else {}})
        source = pa.array([str(path)] * table.num_rows, pa.string()).dictionary_encode()
        tables.append(table.replace_schema_metadata(None).append_column("file", source))
    table = pa.concat_tables(tables)
    return Results(_unique(table).drop_columns(["file"]), tuple(records))


def _unique(table: pa.Table) -> pa.Table:
    """Rows copied into two files count once; rows that disagree are an error naming both files."""
    names = [*TABLE_KEYS, "method", "revision", "pair_id", "signature"]
    frame = table.select([*names, "value", "reason", "file"]).to_pandas()
    again = frame.duplicated(names, keep=False)
    if not again.any():
        return table
    differ = frame[again].groupby(names, dropna=False)[["value", "reason"]].nunique(dropna=False).gt(1).any(axis=1)
    if differ.any():
        key = dict(zip(names, differ[differ].index[0], strict=True))
        both = frame[again].loc[(frame[again][names] == pd.Series(key)).all(axis=1), "file"].unique()
        raise UserError(
            f"{key['method']} has two values for {key['pair_id']} under {key['signature']}: "
            f"in {' and in '.join(sorted(map(str, both)))}; remove the file that is out of date"
        )
    return table.filter(pa.array(~frame.duplicated(names, keep="first").to_numpy()))


def _table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    def clean(row: Mapping[str, Any]) -> dict[str, Any]:
        stats = row.get("stats") or {}
        items = stats.items() if isinstance(stats, Mapping) else stats
        return {**row, "stats": sorted((str(key), float(value)) for key, value in items)}

    ordered = sorted((clean(row) for row in rows), key=lambda row: tuple(str(row[name]) for name in _SORT))
    return pa.Table.from_pylist(ordered, schema=SCHEMA)


def _read(path: Path) -> pa.Table:
    try:
        table = pq.ParquetFile(path).read()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from error
    if table.schema.names != SCHEMA.names:
        wrong = sorted(set(table.schema.names) ^ set(SCHEMA.names))
        raise UserError(f"{path} does not hold result rows (columns {', '.join(wrong)}); move it out of the folder")
    return table


def _safe(name: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-_.@") else "_" for char in name)
