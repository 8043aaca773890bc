"""Reduces a table of a board to what a paper or a README prints: some columns, bold by the test, and one caption.

`latex` and `readme` write it. A number is printed only with what is needed to read it: the direction of its metric, its
coverage if that is not complete, and a digest of its signature.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cmet_leaderboards.formatting import data_notes, facts, half_width, interval_note, mean
from cmet_leaderboards.grid import Column
from cmet_leaderboards.metric_facts import full_title
from cmet_leaderboards.statistics import ALPHA
from cmet_leaderboards.tables import Cell, MethodRow, Table
from talking_face.files import sha256_of
from talking_face.names import did_you_mean
from talking_face.reasons import UserError
from talking_face.signature import digest

_DIGITS = 8  # of the SHA-256 of a signature
# Roles in the order of the groups of rows, with the word after a title.
_GROUPS: tuple[Mapping[str, str], ...] = (
    {"ceiling": "ceiling", "control": "control"},
    {"method": ""},
    {"floor": "floor"},
)


@dataclass(frozen=True)
class PaperOptions:
    """What is printed of the tables."""

    settings: Sequence[str] = ()  # names of settings; empty: all
    metrics: Sequence[str] = ()  # keys of metrics, in the order of the columns; empty: all, in the board's order
    intervals: bool = False  # print half of each 95% interval after its mean


@dataclass(frozen=True)
class PaperColumn:
    """The head of a column."""

    name: str  # such as M-LMD
    arrow: str  # ↑, ↓ or →1
    facts: tuple[str, ...]  # variant, unit, and the coverage that most methods have if it is not complete

    @property
    def label(self) -> str:
        return " ".join(filter(None, [self.name, f"({', '.join(self.facts)})" if self.facts else "", self.arrow]))


@dataclass(frozen=True)
class PaperCell:
    """The texts of a cell."""

    value: str
    half: str = ""  # half of the interval; empty: it is not printed
    coverage: str = ""  # empty: that of the column, or complete
    bold: bool = False


@dataclass(frozen=True)
class PaperRow:
    """The row of a method."""

    title: str
    role: str  # ceiling, control or floor; empty for a method
    cells: tuple[PaperCell, ...]


@dataclass(frozen=True)
class PaperTable:
    """One table of a board for a paper."""

    title: str
    name: str  # a name for references; two tables of a board have different names
    columns: tuple[PaperColumn, ...]
    groups: tuple[tuple[PaperRow, ...], ...]  # ceilings and controls, methods, floors; no group is empty
    notes: tuple[str, ...]  # the sentences of the caption after the title
    signatures: tuple[tuple[str, str, str], ...]  # (metric, digest, signature) of each column


def chosen_tables(tables: Sequence[Table], options: PaperOptions) -> list[Table]:
    """The tables of the named settings with the columns of the named metrics, in the order of the board.

    Raises UserError if a setting or a metric is not on the board.
    """
    known = list(dict.fromkeys(table.key["setting"] for table in tables))
    for name in options.settings:
        if name not in known:
            raise UserError(
                f"no setting {name!r} on this board{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
    chosen = [table for table in tables if not options.settings or table.key["setting"] in options.settings]
    keys = list(dict.fromkeys(column.metric for table in chosen for column in table.columns))
    for key in options.metrics:
        if key not in keys:
            raise UserError(f"no metric {key!r} on this board{did_you_mean(key, keys)}; there are {', '.join(keys)}")
    found = [_with_metrics(table, options.metrics) for table in chosen]
    return [table for table in found if table.columns]


def paper_tables(tables: Sequence[Table], options: PaperOptions) -> list[PaperTable]:
    """The chosen tables for a paper. Raises the same errors as `chosen_tables`."""
    return [_paper_table(table, options) for table in chosen_tables(tables, options)]


def signature_digest(signature: str) -> str:
    """The first 8 digits of the SHA-256 of a signature: `printf %s SIGNATURE | sha256sum`."""
    return sha256_of(signature.encode())[:_DIGITS]


def _with_metrics(table: Table, metrics: Sequence[str]) -> Table:
    """The table with the columns of these metrics, in this order; with all columns if there are none."""
    if not metrics:
        return table
    order = [i for key in metrics for i, column in enumerate(table.columns) if column.metric == key]
    rows = tuple(replace(row, cells=tuple(row.cells[i] for i in order)) for row in table.rows)
    return replace(table, columns=tuple(table.columns[i] for i in order), rows=rows)


def _paper_table(table: Table, options: PaperOptions) -> PaperTable:
    bold = [_leading(table, i) for i in range(len(table.columns))]
    usual = [_usual_coverage(table, i) for i in range(len(table.columns))]
    looks = list(zip(bold, usual, strict=True))
    groups = []
    for roles in _GROUPS:
        rows = [_row(table, row, roles[row.role], looks, options) for row in table.rows if row.role in roles]
        groups += [tuple(rows)] if rows else []
    name = re.sub(r"[^A-Za-z0-9.-]+", "-", table.key["setting"])
    return PaperTable(
        title=table.title,
        name=f"{name}-{digest(dict(table.key), 6)}" if table.differing_keys else name,
        columns=tuple(_head(*pair) for pair in zip(table.columns, usual, strict=True)),
        groups=tuple(groups),
        notes=tuple(_notes(table, options)),
        signatures=tuple((full_title(c.metric), signature_digest(c.signature), c.signature) for c in table.columns),
    )


def _head(column: Column, usual: str) -> PaperColumn:
    covered = f"{usual} pairs" if usual else ""
    return PaperColumn(column.name, column.arrow, (*column.details, *([covered] if covered else [])))


def _usual_coverage(table: Table, column: int) -> str:
    """The coverage that most methods of a column have; empty if that is complete."""
    texts = Counter(_coverage(cell) for row in table.rows if (cell := row.cells[column]) is not None and cell.scored)
    return max(texts, key=lambda text: (texts[text], text), default="")


def _coverage(cell: Cell) -> str:
    """The pairs in the mean if they are not all, the pairs with an infinite value, and whether it is not compared."""
    parts = [f"{cell.n}/{cell.expected}"] if cell.n != cell.expected else []
    parts += [f"∞ on {cell.infinite}"] if cell.infinite else []
    return " · ".join(parts + ["not compared"] * (not cell.compared))


def _leading(table: Table, column: int) -> frozenset[str]:
    """The titles whose numbers are bold: the best mean, and the methods that the test does not separate from it.

    If these are more than half of the compared methods, the result is empty, because the column separates too little.
    """
    cells = {row.title: cell for row in table.rows if (cell := row.cells[column]) is not None and cell.rank is not None}
    best = [title for title, cell in cells.items() if cell.best]
    group = {title for name in best for title in (name, *cells[name].ties)}
    return frozenset(group if 2 * len(group) <= len(cells) else ())


def _row(
    table: Table, row: MethodRow, role: str, looks: Sequence[tuple[frozenset[str], str]], options: PaperOptions
) -> PaperRow:
    """The row of a method. `looks`: the titles with a bold number, and the usual coverage, of each column."""
    cells = zip(table.columns, row.cells, looks, strict=True)
    made = (_cell(column, cell, row.title in bold, usual, options) for column, cell, (bold, usual) in cells)
    return PaperRow(row.title, role, tuple(made))


def _cell(column: Column, cell: Cell | None, bold: bool, usual: str, options: PaperOptions) -> PaperCell:
    if cell is None or not cell.scored:
        return PaperCell("–")
    own = "" if cell.infinite == cell.expected else _coverage(cell)
    return PaperCell(
        mean(cell, column),
        half_width(cell.interval, column) if options.intervals else "",
        "" if own == usual else own or f"{cell.n}/{cell.expected}",
        bold,
    )


def _range(numbers: Sequence[int]) -> str:
    """The smallest and the largest number, such as `21 to 24`."""
    low, high = min(numbers, default=0), max(numbers, default=0)
    return str(low) if low == high else f"{low} to {high}"


def _notes(table: Table, options: PaperOptions) -> list[str]:
    bands = f", or a difference inside the noise band, {table.bands}" if table.bands else ""
    test = (
        "Bold: the best mean, and the methods that the paired test does not separate from it "
        f"(p of at least {ALPHA:g} after Holm's correction over the comparisons of the column{bands}). "
        "If these are more than half of the methods, no number of the column is bold."
    )
    scored = [cell.scored for row in table.rows for cell in row.cells if cell is not None and cell.compared]
    covered = (
        f"A number is the mean over all {table.pairs} pairs, or over the fraction that its column or its cell states; "
        f"– means that no pair has a value. Coverage: {_range(scored)} of {table.pairs} pairs have a value."
    )
    digests = ", ".join(f"{full_title(c.metric)} {signature_digest(c.signature)}" for c in table.columns)
    return [
        f"{facts(table)}.".replace(" · ", ", "),
        *data_notes(table),
        *([f"± is half of the 95% interval. {interval_note(table)}"] if options.intervals else []),
        test,
        covered,
        f"Signatures, as the first {_DIGITS} digits of their SHA-256: {digests}.",
    ]
