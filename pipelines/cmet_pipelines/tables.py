"""Reads the CSV tables that datasets and users provide: labels, votes, sentences and lists of clips.

Every fault of a table is a UserError of one line that names the file and, if there is one, the line.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from talking_face.clip import MediaSource
from talking_face.media.source import read_source
from talking_face.names import printable
from talking_face.reasons import ClipError, Reason, UserError

LARGEST = 256 << 20  # bytes; a row of labels has about 100 bytes

# First bytes of files that are often renamed to .csv, and what they are.
_NOT_TEXT = {
    b"PK\x03\x04": "an Excel workbook or a zip archive",
    b"\xd0\xcf\x11\xe0": "an Excel workbook",
    b"PAR1": "a Parquet file",
    b"\x1f\x8b": "a compressed file",
    b"version https://git-lfs": "a git-lfs pointer (run `git lfs pull`)",
}
_NO_VALUE = frozenset({"", "nan", "none", "n/a", "na", "null", "<na>", "-"})  # in lower case


@dataclass(frozen=True)
class Row:
    """One row of a table: its last line in the file, counted from 1, and its cells by column, without outer spaces."""

    line: int
    cells: dict[str, str]
    surplus: bool = False  # whether the row has more cells than the table has columns


@dataclass(frozen=True)
class Table:
    """A table. `name` is for messages. The columns are in lower case. Rows without any text are left out."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]


def has_value(cell: str) -> bool:
    """Whether a cell holds a label. Empty cells and `nan`, `none`, `n/a`, `NA`, `null`, `-` hold none."""
    return cell.strip().lower() not in _NO_VALUE


def read_bytes(source: MediaSource | Path, name: str) -> bytes:
    """The content of a table, on disk or in a tar. Raises UserError for a missing, special or too large file.

    Args:
        source: the file.
        name: what the messages call it, for example `the label file labels.csv`.
    """
    try:
        return read_source(source, LARGEST)
    except ClipError as error:
        if error.reason is Reason.EMPTY_FILE:
            return b""
        raise UserError(f"{name} cannot be read: {error.detail}; give a CSV") from None
    except ValueError:  # a NUL byte in a path
        raise UserError(f"{name} cannot be read: its path holds a NUL byte") from None


def decode(data: bytes, name: str) -> str:
    """The text of a table in UTF-8 or UTF-16. Bytes that are not UTF-8 become lone surrogates, as in names on disk.

    Raises UserError if the bytes are not text.
    """
    for magic, what in _NOT_TEXT.items():
        if data.startswith(magic):
            raise UserError(f"{name} is {what}, not a CSV; save the table as CSV in UTF-8")
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        try:
            return data.decode("utf-16")
        except UnicodeDecodeError:
            raise UserError(f"{name} is damaged UTF-16 text; save it as CSV in UTF-8") from None
    if b"\0" in data:
        raise UserError(f"{name} holds NUL bytes, so it is not a CSV; save the table as CSV in UTF-8")
    return data.decode("utf-8-sig", "surrogateescape")


def parse(text: str, name: str, needs: Collection[str], raw: Collection[str] = (), *, strict: bool = True) -> Table:
    """The table in a text.

    Args:
        text: the CSV.
        name: what the messages call the file.
        needs: columns that the table must have; their case does not matter.
        raw: columns whose cells can hold bytes that are not UTF-8, because they name files.
        strict: whether a quote without its end is an error. If not, it can join several rows to one.

    Raises UserError for a missing or repeated column, a broken quote, and bytes that are not UTF-8 in other columns.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=strict)
    try:
        columns = tuple(cell.strip().lower() for cell in next(filter(any, reader), ()))
        _check_columns(columns, name, needs)
        rows = []
        for cells in reader:
            if any(cell.strip() for cell in cells):
                by_column = dict(zip(columns, (cell.strip() for cell in cells), strict=False))
                surplus = any(cell.strip() for cell in cells[len(columns) :])
                rows.append(Row(reader.line_num, dict.fromkeys(columns, "") | by_column, surplus))
    except csv.Error as error:
        raise UserError(f"{name} is not a CSV after line {reader.line_num}: {error}") from None
    if not is_utf8(text):
        for row in rows:
            if not all(is_utf8(cell) for column, cell in row.cells.items() if column not in raw):
                raise UserError(f"{name} line {row.line} is not UTF-8 text; save it as CSV in UTF-8")
    return Table(name, columns, tuple(rows))


def _check_columns(columns: tuple[str, ...], name: str, needs: Collection[str]) -> None:
    lacking = [column for column in needs if column.lower() not in columns]
    if lacking:
        has = printable(", ".join(columns))[:200] or "nothing"
        separated = len(columns) == 1 and re.search("[;\t|]", columns[0])
        cure = "separate columns by commas" if separated else "name one so"
        raise UserError(f"{name} has no column `{'`, `'.join(lacking)}` (it has: {has}); {cure}")
    if twice := sorted({column for column in columns if column and columns.count(column) > 1}):
        raise UserError(f"{name} has two columns `{printable(twice[0])}`; keep one")


def is_utf8(text: str) -> bool:
    """Whether the text has no lone surrogates (bytes that are not UTF-8)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_table(source: MediaSource | Path, name: str, needs: Collection[str], raw: Collection[str] = ()) -> Table:
    """The table in a file; see `read_bytes`, `decode` and `parse`. Rows with too many cells raise UserError, too."""
    table = parse(decode(read_bytes(source, name), name), name, needs, raw)
    for row in table.rows:
        if row.surplus:
            detail = "has more cells than columns; put text with commas in quotes"
            raise UserError(f"{name} line {row.line} {detail}")
    return table
