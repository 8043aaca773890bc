"""Reads and writes result rows: one row per method, pair and metric, in Parquet files.

One file contains the rows of one revision of a method in one setting, on one data set, pair list and suite version. If
new rows are written to an existing file, they replace the rows with the same pair and signature. The other rows are
kept, so results accumulate. The bytes of a file depend only on its rows and its record. Every file contains a digest of
itself, which is checked when the file is read; see `talking_face.sealed`. Rows can come from a stranger, so they are
checked too; see `row_checks.check_rows`.

Files of older versions have no column `origin`. Their rows get the origin that the speakers' names prove, else
`unknown`. If rows with an origin have the same data digest, they are on the same clips, so rows without an origin take
it over.
"""

from __future__ import annotations

import json
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from cmet_leaderboards.file_record import FileRecord
from cmet_leaderboards.row import TABLE_KEYS, ResultRow
from cmet_leaderboards.row_checks import check_rows
from talking_face.arrow import schema_of
from talking_face.files import STRAY
from talking_face.lines import one_line
from talking_face.names import file_name_of, inside, storable
from talking_face.origin import origin_of_clips, without_guess
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, discard, read_sealed_table, write_sealed_table
from talking_face.signature import canonical_json, digest

SCHEMA = schema_of(ResultRow, nullable=True)
FILE_KEYS = (*TABLE_KEYS, "method", "revision")  # all rows of a file agree in these keys
_REQUIRED = tuple(field.name for field in schema_of(ResultRow) if not field.nullable)  # columns without nulls
_OF_VIDEO = (*TABLE_KEYS, "method", "revision", "pair_id")  # rows that agree in these columns are of one video
_REMEDY = "score the method again, or move the file out of the folder"
_META_KEY = b"cmet_eval.results"
BOARD_KEY = b"cmet_eval.board"  # marks a Parquet file as a board


@dataclass(frozen=True)
class Part:
    """The rows of one file: one revision of a method in one table."""

    path: Path  # for messages
    table: pa.Table  # SCHEMA, text as dictionaries
    record: FileRecord


@dataclass(frozen=True)
class Results:
    """All rows under a folder, and the records of their files."""

    table: pa.Table  # SCHEMA, text as dictionaries; one row per TABLE_KEYS, method, revision, pair, signature
    records: tuple[FileRecord, ...]  # one per file

    @property
    def methods(self) -> list[str]:
        """The names of the methods, sorted."""
        return [str(name) for name in codes(self.table["method"])[1]]

    @property
    def keys(self) -> list[dict[str, str]]:
        """The TABLE_KEYS of each table, sorted by these keys."""
        found = grouped(self.table, TABLE_KEYS)[1]
        return [dict(zip(TABLE_KEYS, map(str, key), strict=True)) for key in found]

    def frame(self) -> pd.DataFrame:
        """The rows as plain text and numbers, without `stats`, because its conversion to Python objects is slow."""
        table = self.table.drop_columns(["stats"])
        frame: pd.DataFrame = table.cast(pa.schema([SCHEMA.field(name) for name in table.schema.names])).to_pandas()
        return frame


def codes(column: pa.ChunkedArray) -> tuple[np.ndarray, list[Hashable]]:
    """Replace the values of a column by integers.

    Returns:
        codes: (n,) int64, the index of each row's value; -1 for null.
        values: the values that occur, sorted.
    """
    joined = column.combine_chunks().dictionary_encode()
    joined = joined.combine_chunks() if isinstance(joined, pa.ChunkedArray) else joined
    values = joined.dictionary.to_pylist()
    if len(values) == 1 and not joined.null_count:
        return np.zeros(len(joined), np.int64), values
    indices = pc.fill_null(joined.indices, -1).to_numpy(zero_copy_only=False)
    # A slice of a table has the dictionary of the whole table, so keep only the values that occur.
    used = np.flatnonzero(np.bincount(indices[indices >= 0], minlength=len(values)))
    order = sorted(used, key=lambda i: values[i])
    rank = np.full(len(values) + 1, -1, np.int64)
    rank[order] = np.arange(len(order))
    return rank[indices], [values[i] for i in order]


def grouped(table: pa.Table, names: Sequence[str]) -> tuple[np.ndarray, list[tuple[Hashable, ...]]]:
    """The same as `codes`, but for combinations of the values of several columns, sorted by these columns in order."""
    parts = [codes(table[name]) for name in names]
    total = _combined(parts, table.num_rows)
    first = np.empty(int(total.max(initial=-1)) + 1, np.int64)
    first[total[::-1]] = np.arange(len(total))[::-1]  # the last assignment to an index stays
    found = [tuple(values[numbers[i]] if numbers[i] >= 0 else None for numbers, values in parts) for i in first]
    return total, found


def _combined(parts: Sequence[tuple[np.ndarray, list[Hashable]]], rows: int) -> np.ndarray:
    """(rows,) numbers of the combinations of several results of `codes`."""
    total = np.zeros(rows, np.int64)
    for numbers, values in parts:
        if numbers.min(initial=0) < numbers.max(initial=0):
            # Number the combinations again at each step, so that the product stays far below 2**63.
            total = _renumbered(total * (len(values) + 1) + numbers + 1)
    return total


def _renumbered(numbers: np.ndarray) -> np.ndarray:
    """Numbers of at least 0 as 0, 1, 2, ... in the same order, without gaps."""
    size = int(numbers.max(initial=-1)) + 1
    if size > 4 * len(numbers) + 1000:
        return np.unique(numbers, return_inverse=True)[1]
    there = np.zeros(size, bool)  # ten times faster than sorting a million numbers
    there[numbers] = True
    return (np.cumsum(there) - 1)[numbers]


def write_results(rows: Iterable[ResultRow], folder: Path, record: Mapping[str, object]) -> Path:
    """Write the rows of one method in one setting under `folder`, merged with the rows in the existing file.

    If the existing file is damaged, one line is printed to stderr, and the new rows replace the file.

    Args:
        rows: all rows must have the same method, revision, setting, rules, data, pairs, version and profile.
        folder: the results folder.
        record: `method`, `setting`, `pairs` (dicts of plain values) and `command` (text), printed on the board.

    Returns:
        the file's path: `SETTING/METHOD@REVISION--data-...--pairs-...--suite-...--PROFILE--DIGEST.parquet`. The last
        part is a digest of all keys, so rows with different keys are never in the same file.

    Raises:
        ValueError: the rows have different keys.
        UserError: a row has a value that `check_rows` does not allow, or the existing file holds other rows.
    """
    rows = list(rows)
    keys = {tuple(str(getattr(row, name)) for name in FILE_KEYS) for row in rows}
    if len(keys) != 1:
        raise ValueError(f"rows of one file must agree in {', '.join(FILE_KEYS)}; got {len(keys)} combinations")
    key = dict(zip(FILE_KEYS, keys.pop(), strict=True))
    path = _path(folder, key)
    merged = {(row.pair_id, row.signature): row for row in rows}
    # Keep an older row only if it is for the same video: a row of a board must not mix two versions of a method.
    videos = {row.pair_id: row.video_sha256 for row in rows}
    for old in _older_rows(path, key):
        if videos.get(old.pair_id, old.video_sha256) == old.video_sha256:
            merged.setdefault((old.pair_id, old.signature), old)
    table = storable_table(merged.values())
    write_sealed_table(table.replace_schema_metadata({_META_KEY: canonical_json(dict(record)).encode()}), path)
    return path


def storable_table(rows: Iterable[ResultRow]) -> pa.Table:
    """The rows of one file as a sorted table. Raises UserError if `check_rows` does not allow a row."""
    table = _table(rows)
    try:
        check_rows(table, SCHEMA, _REQUIRED, FILE_KEYS)
    except (ValueError, pa.ArrowException) as error:
        method, setting = (table[name][0].as_py() for name in ("method", "setting"))
        raise UserError(f"the rows of {method!r} in {setting!r} cannot be stored: {error}") from None
    return table


def _path(folder: Path, key: Mapping[str, str]) -> Path:
    """The file of the rows with these keys. The names of a file can have 255 bytes, so the readable part is cut."""
    name = file_name_of(key["method"], key["revision"])[:100]
    data, pairs = (file_name_of(key[name][:8]) for name in ("data_digest", "pairs_digest"))
    version, profile = (file_name_of(key[name])[:20] for name in ("suite_version", "profile"))
    # The origin follows from the data digest. Without it, the files of older versions keep their names.
    rest = digest({column: value for column, value in key.items() if column != "origin"})
    stem = f"{name}--data-{data}--pairs-{pairs}--suite-{version}--{profile}--{rest}"
    return inside(folder, file_name_of(key["setting"]), f"{stem}.parquet")


def _older_rows(path: Path, key: Mapping[str, str]) -> Iterator[ResultRow]:
    """The rows in the existing file; none if the file is absent or damaged."""
    try:
        table = _read(path, "the new rows replace it; score the other metrics of this method again")
    except FileNotFoundError:
        return
    except Damaged as error:
        discard(error)
        return
    for stored in table.to_pylist():
        if stored["origin"] == "unknown":
            stored["origin"] = key["origin"]
        if any(stored[name] != value for name, value in key.items()):
            raise UserError(f"{path} holds rows with another {', '.join(key)}; move it out of the folder")
        yield ResultRow.of(stored)


def read_results(folder: Path) -> Results:
    """Read all result files under `folder`, or the file itself if `folder` is a file.

    Raises:
        Damaged: a file is not what was written.
        UserError: there is no file, a file does not contain result rows, or two files contradict each other.
    """
    found = [folder] if folder.is_file() else folder.rglob("*.parquet")
    parts = []
    for path in sorted(path for path in found if not path.match(STRAY)):
        table = _read(path, _REMEDY)
        metadata = table.schema.metadata or {}
        if BOARD_KEY in metadata:  # a board can be stored under the folder of the rows that it is computed from
            continue
        record = _record(path, table, metadata.get(_META_KEY, b"{}"))
        parts.append(Part(path, table.replace_schema_metadata(None), record))
    if not parts:
        raise UserError(f"no result rows under {folder}; make some with cmet-eval run or cmet-eval score")
    return combined(parts)


def combined(parts: Sequence[Part]) -> Results:
    """The rows of several files, each row once.

    Raises:
        UserError: two files contradict each other.
    """
    origins = _origins(parts)
    tables = [_with_origin(part.table, origins) for part in parts]
    table = pa.concat_tables(tables).unify_dictionaries()
    source = np.repeat(np.arange(len(parts)), [len(table) for table in tables])
    records = tuple(part.record.with_origin(origins) for part in parts)
    return Results(_without_copies(table, source, [part.path for part in parts]), records)


def checked_part(path: Path, table: pa.Table, record: FileRecord) -> Part:
    """Rows that were not read from a result file, after the checks of `row_checks.check_rows`.

    Args:
        path: the file, for messages.
        table: the rows; a column of text can be a dictionary.
        record: the record of the rows.

    Raises:
        UserError: a row is wrong.
    """
    try:
        check_rows(table, SCHEMA, _REQUIRED, FILE_KEYS)
    except (ValueError, pa.ArrowException) as error:
        raise UserError(_not_rows(path, str(error))) from None
    words = pa.dictionary(pa.int32(), pa.string())
    schema = pa.schema([(field.name, words if field.type == pa.string() else field.type) for field in SCHEMA])
    return Part(path, table.cast(schema), record)


def _origins(parts: Sequence[Part]) -> dict[str, str]:
    """The known origin of each data digest. Raises UserError if two files state different origins of the same data."""
    found: dict[str, tuple[str, Path]] = {}
    for part in parts:
        data, origin = part.record.key.get("data_digest", ""), part.record.key.get("origin", "unknown")
        if origin == "unknown":
            continue
        before, other = found.setdefault(data, (origin, part.path))
        if before != origin:
            raise UserError(
                f"the same data {data[:12]} are {before} in {other} and {origin} in {part.path}; remove the wrong file"
            )
    return {data: origin for data, (origin, _) in found.items()}


def _with_origin(table: pa.Table, origins: Mapping[str, str]) -> pa.Table:
    """The rows of one file, with the origin that other files state of the same data."""
    first = table.slice(0, 1).select(["origin", "data_digest"]).to_pylist()
    if not first or first[0]["origin"] != "unknown" or first[0]["data_digest"] not in origins:
        return table
    known = _repeated(origins[first[0]["data_digest"]], table.num_rows)
    return table.set_column(table.schema.get_field_index("origin"), "origin", known)


def _repeated(text: str, count: int) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(np.zeros(count, np.int32)), pa.array([text]))


def _record(path: Path, table: pa.Table, stored: bytes) -> FileRecord:
    first = table.slice(0, 1).select(FILE_KEYS).to_pylist()
    try:
        return FileRecord.of(json.loads(stored), first[0] if first else {})
    except (ValueError, RecursionError) as error:
        raise UserError(_not_rows(path, f"its record: {error}")) from None


def _not_rows(path: Path, problem: str) -> str:
    return f"{path} does not hold result rows ({one_line(problem, 300)}); move it out of the folder"


def _without_copies(table: pa.Table, source: np.ndarray, paths: Sequence[Path]) -> pa.Table:
    """The rows without repetitions: a row that is in two files is kept once.

    Args:
        table: the rows of all files.
        source: (n,) the index in `paths` of each row's file.

    Raises:
        UserError: two rows contradict each other. They have different values of the same metric for the same pair,
            different videos for the same pair and method, or different metric facts for the same signature. The message
            names both files.
    """
    video = _combined([codes(table[name]) for name in _OF_VIDEO], table.num_rows)
    signature, signatures = codes(table["signature"])
    number = _renumbered(video * max(1, len(signatures)) + signature)
    repeated = np.flatnonzero(np.bincount(number)[number] > 1)

    def files(conflict: np.ndarray) -> str:
        return " and ".join(sorted({str(paths[source[row]]) for row in conflict}))

    def name(conflict: np.ndarray) -> list[str]:
        return [str(table[column][int(conflict[0])].as_py()) for column in _OF_VIDEO[-3:]]

    if len(repeated):
        outcome = grouped(table.take(repeated), ["value", "reason"])[0]
        if (found := _conflict(number[repeated], outcome)) is not None:
            rows = repeated[found]
            method, _, pair = name(rows)
            raise UserError(
                f"{method} has two values for {pair} under {signatures[signature[rows[0]]]}: in {files(rows)}; "
                "remove the file that is out of date"
            )
    if (rows := _conflict(video, codes(table["video_sha256"])[0])) is not None:
        method, revision, pair = name(rows)
        raise UserError(
            f"{method} @ {revision} was scored on two different videos of {pair}: in {files(rows)}; score all "
            "metrics on one of them, or give the other another --revision"
        )
    if (rows := _conflict(signature, grouped(table, ["metric", "higher_is_better", "ideal", "unit"])[0])) is not None:
        raise UserError(
            f"rows with the signature {signatures[signature[rows[0]]]} disagree on the metric's name, direction or "
            f"unit: in {files(rows)}; remove the file that is out of date"
        )
    return table.take(np.sort(np.unique(number, return_index=True)[1])) if len(repeated) else table


def _conflict(groups: np.ndarray, values: np.ndarray) -> np.ndarray | None:
    """The indices, (2,), of two rows in one group with different values; None if no group has different values.

    Args:
        groups: (n,) int, the group of each row.
        values: (n,) int, the value of each row; a negative value is unknown and conflicts with nothing.
    """
    known = np.flatnonzero(values >= 0)
    first = np.full(int(groups.max(initial=-1)) + 1, -1)
    first[groups[known][::-1]] = known[::-1]
    wrong = known[values[known] != values[first[groups[known]]]]
    return np.array([wrong[0], first[groups[wrong[0]]]]) if len(wrong) else None


def _table(rows: Iterable[ResultRow]) -> pa.Table:
    """The rows as a sorted Arrow table. The statistics of each row are sorted by name."""
    ordered = sorted(rows, key=lambda row: (row.metric, row.signature, row.pair_id))
    texts = {text: storable(text) for text in {text for row in ordered for text in (row.detail, row.notes)}}
    stored = [
        vars(row)
        | {"detail": texts[row.detail], "notes": texts[row.notes]}
        | {"stats": sorted((name, float(value)) for name, value in row.stats.items())}
        for row in ordered
    ]
    return pa.Table.from_pylist(stored, schema=SCHEMA)


def _read(path: Path, remedy: str) -> pa.Table:
    """The rows of one file, or a board. Text columns become dictionaries: a million rows need a tenth of the memory."""
    table = read_sealed_table(path, remedy, dictionaries=True)
    if BOARD_KEY not in (table.schema.metadata or {}):
        try:
            table = _with_new_columns(table)
            check_rows(table, SCHEMA, _REQUIRED, FILE_KEYS)
        except (ValueError, pa.ArrowException) as error:
            raise UserError(_not_rows(path, str(error))) from None
    return table


def _with_new_columns(table: pa.Table) -> pa.Table:
    """The rows of an older version with the column that it did not have; all other rows as they are."""
    names = table.schema.names
    if "origin" in names or not {"dataset", "speaker"} <= set(names):
        return table
    speakers = table.select(["dataset", "speaker"]).group_by(["dataset", "speaker"]).aggregate([]).to_pylist()
    origin = origin_of_clips((str(row["dataset"]), row["speaker"]) for row in speakers)
    return table.append_column("origin", _repeated(without_guess(origin), table.num_rows))
