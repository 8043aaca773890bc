"""Result rows: one row a method, pair and metric, with the signature that made it; Parquet, long format.

One file holds one method (and revision) in one setting, on one data set, pair list and suite version. Writing it again
replaces the rows of the same pair and signature and keeps the others, so that results accumulate; the bytes depend on
the rows alone.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
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
        ("ideal", pa.float64()),  # the right value where neither up nor down is better (1 of a ratio); else null
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
BOARD_KEY = b"cmet_eval.board"  # marks a Parquet file as a board's


@dataclass(frozen=True)
class Results:
    """All rows under a folder, and the records that came with them."""

    table: pa.Table  # SCHEMA with text as dictionaries; unique by TABLE_KEYS, method, revision, pair and signature
    records: tuple[dict[str, Any], ...]  # one a file: {"method": ..., "setting": ..., "command": ..., "key": {...}}

    def frame(self) -> pd.DataFrame:
        """The rows as plain text and numbers, without `stats`, which is slow to turn into Python objects."""
        table = self.table.drop_columns(["stats"])
        frame: pd.DataFrame = table.cast(pa.schema([SCHEMA.field(name) for name in table.schema.names])).to_pandas()
        return frame


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Any]]:
    """Integers for the values of a column: (codes (n,), values), the values sorted; -1 stands for null."""
    joined = column.combine_chunks().dictionary_encode()
    joined = joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
    indices = pc.fill_null(joined.indices, -1).to_numpy(zero_copy_only=False)
    values = joined.dictionary.to_pylist()
    # A part of a table keeps the whole one's dictionary.
    used = np.flatnonzero(np.bincount(indices[indices >= 0], minlength=len(values)))
    order = sorted(used, key=lambda i: values[i])
    rank = np.full(len(values) + 1, -1, np.int64)
    rank[order] = np.arange(len(order))
    return rank[indices], [values[i] for i in order]


def grouped(table: pa.Table, names: Sequence[str]) -> tuple[np.ndarray, list[tuple[Any, ...]]]:
    """As `codes`, for the combinations of several columns that occur, sorted by the first column first."""
    total, parts = np.zeros(table.num_rows, np.int64), [codes(table[name]) for name in names]
    for numbers, values in parts:
        if numbers.min(initial=0) < numbers.max(initial=0):
            # Numbered anew at each step, so that the product stays far below 2**63.
            total = np.unique(total * (len(values) + 1) + numbers + 1, return_inverse=True)[1]
    first = np.unique(total, return_index=True)[1]
    found = [tuple(values[numbers[i]] if numbers[i] >= 0 else None for numbers, values in parts) for i in first]
    return total, found


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
    """Every result file under `folder`, or the one file.

    Raises:
        UserError: no file, one that is not a result file, or two files that disagree on the same number.
    """
    found = [folder] if folder.is_file() else folder.rglob("*.parquet")
    paths = sorted(path for path in found if not _is_board(path))
    if not paths:
        raise UserError(f"no result rows under {folder}; make some with cmet-eval run or cmet-eval score")
    tables, records = [], []
    for path in paths:
        table = _read(path)
        record = json.loads((table.schema.metadata or {}).get(_META_KEY, b"{}"))
        first = table.slice(0, 1).select([*TABLE_KEYS, "method", "revision"]).to_pylist()
        records.append({**record, "key": first[0] if first else {}})
        tables.append(table.replace_schema_metadata(None))
    table = pa.concat_tables(tables).unify_dictionaries()
    source = np.repeat(np.arange(len(paths)), [part.num_rows for part in tables])
    return Results(_consistent(table, source, paths), tuple(records))


def _consistent(table: pa.Table, source: np.ndarray, paths: Sequence[Path]) -> pa.Table:
    """Rows copied into two files count once. Rows that contradict one another are an error that names both files: two
    values of one number, two videos behind one pair of a method, two meanings of one signature."""
    video, videos = grouped(table, [*TABLE_KEYS, "method", "revision", "pair_id"])
    signature, signatures = grouped(table, ["signature"])

    def refuse(groups: np.ndarray, what: np.ndarray, say: Any) -> None:
        """Where one group holds two of `what`, `say(row, other row)` tells of it."""
        known = np.flatnonzero(what >= 0)
        first = np.full(int(groups.max(initial=-1)) + 1, -1)
        first[groups[known][::-1]] = known[::-1]
        wrong = known[what[known] != what[first[groups[known]]]]
        if len(wrong):
            raise UserError(say(int(wrong[0]), int(first[groups[wrong[0]]])))

    def files(*rows: int) -> str:
        return " and ".join(sorted({str(paths[source[row]]) for row in rows}))

    def same_number(row: int, other: int) -> str:
        *_, method, _, pair = videos[video[row]]
        return (
            f"{method} has two values for {pair} under {signatures[signature[row]][0]}: in {files(row, other)}; "
            "remove the file that is out of date"
        )

    def same_video(row: int, other: int) -> str:
        *_, method, revision, pair = videos[video[row]]
        return (
            f"{method} @ {revision} was scored on two different videos of {pair}: in {files(row, other)}; score all "
            "metrics on one of them, or give the other another --revision"
        )

    def same_meaning(row: int, other: int) -> str:
        return (
            f"rows with the signature {signatures[signature[row]][0]} disagree on the metric's name, direction or "
            f"unit: in {files(row, other)}; remove the file that is out of date"
        )

    number = video * max(1, len(signatures)) + signature
    number = np.unique(number, return_inverse=True)[1]
    again = np.bincount(number)[number] > 1
    if again.any():
        rows = np.flatnonzero(again)
        outcome = grouped(table.take(rows), ["value", "reason"])[0]
        refuse(number[rows], outcome, lambda a, b: same_number(int(rows[a]), int(rows[b])))
    refuse(video, codes(table["video_sha256"])[0], same_video)
    refuse(signature, grouped(table, ["metric", "higher_is_better", "ideal", "unit"])[0], same_meaning)
    if not again.any():
        return table
    return table.take(np.sort(np.unique(number, return_index=True)[1]))


def _table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    def clean(row: Mapping[str, Any]) -> dict[str, Any]:
        stats = row.get("stats") or {}
        items = stats.items() if isinstance(stats, Mapping) else stats
        return {**row, "stats": sorted((str(key), float(value)) for key, value in items)}

    ordered = sorted((clean(row) for row in rows), key=lambda row: tuple(str(row[name]) for name in _SORT))
    return pa.Table.from_pylist(ordered, schema=SCHEMA)


def _read(path: Path) -> pa.Table:
    """One file's rows, text as dictionaries: a million rows then take a tenth of the memory."""
    text = [field.name for field in SCHEMA if field.type == pa.string()]
    try:
        there = pq.read_schema(path).names
        table = pq.ParquetFile(path, read_dictionary=[name for name in text if name in there]).read()
    except (OSError, pa.ArrowException) as error:
        raise UserError(f"{path} is not a readable Parquet file: {error}") from error
    if "ideal" not in table.schema.names and "unit" in table.schema.names:  # rows from before there was such a metric
        at = table.schema.names.index("unit")
        table = table.add_column(at, SCHEMA.field("ideal"), pa.nulls(table.num_rows, pa.float64()))
    if table.schema.names != SCHEMA.names:
        wrong = sorted(set(table.schema.names) ^ set(SCHEMA.names))
        raise UserError(f"{path} does not hold result rows (columns {', '.join(wrong)}); move it out of the folder")
    return table


def _is_board(path: Path) -> bool:
    """Boards may be written below the rows that they are made of."""
    try:
        return BOARD_KEY in (pq.read_schema(path).metadata or {})
    except (OSError, pa.ArrowException):
        return False


def _safe(name: str) -> str:
    return "".join(char if char.isascii() and (char.isalnum() or char in "-_.@") else "_" for char in name)
