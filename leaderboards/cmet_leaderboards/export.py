"""Writes boards in formats that programs read: one long table (CSV and Parquet), and one JSON file with a schema.

The same tables give the same bytes.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmet_leaderboards.escaping import csv_cell
from cmet_leaderboards.grid import Column, MethodId
from cmet_leaderboards.pairwise import PairwiseComparison
from cmet_leaderboards.results import BOARD_KEY
from cmet_leaderboards.sections import Confusion, Drop, EmotionTransfer, MethodPair, Sensitivity
from cmet_leaderboards.statistics import Interval
from cmet_leaderboards.tables import Breakdown, Cell, MethodRow, Table
from talking_face.arrow import schema_of
from talking_face.files import sha256_of
from talking_face.sealed import SEAL, table_bytes
from talking_face.signature import canonical_json

SCHEMA_FILE = Path(__file__).parent / "board.schema.json"  # the schema of the document that `to_json` writes
FORMAT = "cmet-eval-board-1"
Json = dict[str, object]


class BoardRow(NamedTuple):
    """One number of a board. Its fields are the columns of the CSV and Parquet files.

    A row without emotions and without a speaker is a cell of the board. A row with emotions or
    with a speaker is computed from the part of the cell's pairs with these emotions or this speaker.
    """

    setting: str
    method: str
    revision: str
    metric: str
    signature: str
    higher_is_better: bool
    ideal: float | None
    unit: str
    reference_emotion: str | None
    target_emotion: str | None
    speaker: str | None
    mean: float | None
    low: float | None
    high: float | None
    interval_over: str | None
    n: int
    scored: int
    expected: int
    infinite: int
    compared: bool
    best: bool
    rank: int | None
    ties: str | None  # titles of the methods that tie with this method
    distance: float | None  # mean distance from the ideal value, if the metric has one
    share: float | None  # of the way from the best floor to the ground truth; only over all pairs
    share_low: float | None
    share_high: float | None
    dataset: str
    origin: str
    data_digest: str
    data_signature: str
    pairs_digest: str
    rules: str
    profile: str
    suite_version: str


FIELDS = schema_of(BoardRow, nullable=True)
_KEYS = ("dataset", "origin", "data_digest", "data_signature", "pairs_digest", "rules", "profile", "suite_version")


def records(table: Table) -> Iterator[BoardRow]:
    """The rows of every method and metric: over all pairs, by target emotion, by speaker, and by both emotions."""
    methods = {row.title: (row.method, row.revision) for row in table.rows}
    end = tuple(table.key[name] for name in _KEYS)
    for i, column in enumerate(table.columns):
        facts = (column.metric, column.signature, column.higher_is_better, column.ideal, column.unit)
        for method, part, cell in _cells(table, i, methods):
            yield BoardRow._make((table.key["setting"], *method, *facts, *part, *_numbers(cell, column), *end))


def _cells(
    table: Table, i: int, methods: Mapping[str, MethodId]
) -> Iterator[tuple[MethodId, tuple[str | None, str | None, str | None], Cell]]:
    """The cells of one metric: method; reference emotion, target emotion and speaker; and the cell."""
    for row in table.rows:
        if (cell := row.cells[i]) is not None:
            yield (row.method, row.revision), (None, None, None), cell
    for by_speaker, part in ((False, table.by_emotion[i]), (True, table.by_speaker[i])):
        where = [(None, None, group) if by_speaker else (None, group, None) for group in part.groups]
        for title, cells in part.rows:
            for place, cell in zip(where, cells, strict=True):
                if cell is not None:
                    yield methods[title], place, cell
    if table.transfers:
        yield from _transfer_cells(table.transfers[i])


def _transfer_cells(
    transfer: EmotionTransfer,
) -> Iterator[tuple[MethodId, tuple[str | None, str | None, str | None], Cell]]:
    for method, means, counts in transfer.rows:
        for (r, t), expected in np.ndenumerate(transfer.pairs):
            if expected:
                n, mean = int(counts[r, t]), float(means[r, t])
                cell = Cell(mean if n else None, None, n, n, int(expected), 0)
                yield method, (transfer.references[r], transfer.targets[t], None), cell


def _numbers(cell: Cell, column: Column) -> tuple[object, ...]:
    """The fields of a `BoardRow` from `mean` to `share_high`."""
    interval, share = cell.interval, cell.share
    way = share.interval if share else None
    return (
        cell.mean,
        *((interval.low, interval.high, interval.over) if interval else (None, None, None)),
        *(cell.n, cell.scored, cell.expected, cell.infinite, cell.compared, cell.best, cell.rank),
        ", ".join(cell.ties) or None,
        cell.loss if column.ideal is not None else None,
        share.value if share else None,
        *((way.low, way.high) if way else (None, None)),
    )


@dataclass(frozen=True)
class LongTable:
    """The `records` of a board, ready to be written."""

    lines: tuple[str, ...]  # CSV, one line per row, without the head
    table: pa.Table  # FIELDS

    @classmethod
    def of(cls, tables: Sequence[Table]) -> LongTable:
        """The rows of all tables."""
        rows = [row for table in tables for row in records(table)]
        columns = list(zip(*rows, strict=True)) or [()] * len(FIELDS)
        texts = (_texts(column) for column in columns)
        arrays = [pa.array(column, field.type) for column, field in zip(columns, FIELDS, strict=True)]
        return cls(tuple(map(",".join, zip(*texts, strict=True))), pa.table(arrays, schema=FIELDS))

    def of_setting(self, name: str) -> LongTable:
        """The rows of one setting."""
        mine = pc.equal(self.table["setting"], name)
        lines = itertools.compress(self.lines, mine.to_pylist())
        return LongTable(tuple(lines), self.table.filter(mine).combine_chunks())

    def to_csv(self) -> str:
        """The rows as CSV. Numbers have all their digits, and null is an empty cell; see `escaping.csv_cell`."""
        return "\n".join([",".join(FIELDS.names), *self.lines, ""])

    def to_parquet(self) -> bytes:
        """The rows as Parquet, with a digest; see `talking_face.sealed`."""
        return table_bytes(self.table.replace_schema_metadata({BOARD_KEY: FORMAT}))


def _texts(column: Sequence[object]) -> list[str]:
    """The texts of a column's cells in a CSV file. Each different text is escaped once."""
    if float in set(map(type, column)):
        return ["" if value is None else repr(value) for value in column]
    known = {value: _escaped(value) for value in dict.fromkeys(column)}
    return [known[value] for value in column]


def _escaped(value: object) -> str:
    buffer = io.StringIO()
    # A second, empty cell: the writer puts the only cell of a line between quotation marks if it is empty.
    csv.writer(buffer, lineterminator="\n").writerow([csv_cell(value), ""])
    return buffer.getvalue().removesuffix(",\n")


@dataclass(frozen=True)
class JsonTable:
    """One table of the JSON file as text: as it is written, and in the canonical form from which the digest is made."""

    text: str
    canonical: str

    @classmethod
    def of(cls, table: Table) -> JsonTable:
        """The texts of one table."""
        value = _table(table)
        return cls(json.dumps(value, allow_nan=False), canonical_json(value))


def to_json(tables: Sequence[Table]) -> str:
    """The JSON of a board with these tables."""
    return json_file(list(map(JsonTable.of, tables)))


def json_file(tables: Sequence[JsonTable]) -> str:
    """All numbers and facts of the board as JSON with a digest, in the form that SCHEMA_FILE describes.

    The text is that of `json.dumps(sealed({"format": FORMAT, "tables": [...]}))`. Each table becomes text only once,
    because a file with all settings and a file of one setting have it.
    """
    canonical = f'{{"format":"{FORMAT}","tables":[{",".join(table.canonical for table in tables)}]}}'
    seal = sha256_of(canonical.encode())
    return f'{{"format": "{FORMAT}", "tables": [{", ".join(table.text for table in tables)}], "{SEAL}": "{seal}"}}\n'


def _table(table: Table) -> Json:
    return {
        "key": dict(table.key),
        "title": table.title,
        "summary": table.setting.summary,
        "pairs": table.pairs,
        "drawn": table.drawn,
        "speakers": table.speakers,
        "seeds": table.seeds,
        "missing_cells": list(table.missing_cells),
        "apart": dict(table.differing_keys),
        "pair_notes": list(table.pair_notes),
        "bands": table.bands,
        "columns": [_column(column) for column in table.columns],
        "methods": [_method(row) for row in table.rows],
        "by_emotion": [_breakdown(part) for part in table.by_emotion],
        "by_speaker": [_breakdown(part) for part in table.by_speaker],
        "duels": [[_comparison(table, found) for found in column] for column in table.comparisons],
        "flows": [_transfer(table, transfer) for transfer in table.transfers],
        "confusions": [_confusion(table, one) for found in table.confusions for one in found],
        "drops": [_drop(table, drop) for drop in table.drops],
        "sensitivity": [_sensitivity(table, found) for found in table.sensitivity],
        "missing": [
            {"method": x.method, "metrics": list(x.metrics), "reason": x.reason, "pairs": x.count, "example": x.detail}
            for x in table.missing
        ],
        "published": [
            {
                "title": part.title,
                "protocol": part.protocol,
                "metrics": list(part.metrics),
                "methods": [{"method": method, "values": list(values)} for method, values in part.methods],
                "copied": [
                    {"method": method, "from": source, "metrics": list(metrics)}
                    for method, source, metrics in part.copied
                ],
            }
            for part in table.published
        ],
    }


def _method(row: MethodRow) -> Json:
    return {
        "method": row.method,
        "revision": row.revision,
        "title": row.title,
        "role": row.role,
        "summary": row.summary,
        "sees": list(row.sees),
        "training_seeds": list(row.training_seeds),
        "command": row.command,
        "codec": row.codec,
        "notes": [{"text": text, "videos": count} for text, count in row.notes],
        "cells": [_cell(cell) for cell in row.cells],
    }


def _column(column: Column) -> Json:
    return {
        "metric": column.metric,
        "signature": column.signature,
        "higher_is_better": column.higher_is_better,
        "ideal": column.ideal,
        "unit": column.unit,
    }


def _interval(interval: Interval | None) -> Json | None:
    if interval is None:
        return None
    return {
        "low": interval.low,
        "high": interval.high,
        "over": interval.over,
        "units": interval.units,
        "seeds": interval.seeds,
    }


def _cell(cell: Cell | None) -> Json | None:
    if cell is None:
        return None
    return {
        "mean": cell.mean,
        "interval": _interval(cell.interval),
        "n": cell.n,
        "scored": cell.scored,
        "expected": cell.expected,
        "infinite": cell.infinite,
        "compared": cell.compared,
        "best": cell.best,
        "rank": cell.rank,
        "ties": [{"method": name, "why": why} for name, why in cell.ties.items()],
        "loss": cell.loss,
        "share": {"value": cell.share.value, "interval": _interval(cell.share.interval)} if cell.share else None,
    }


def _breakdown(part: Breakdown) -> Json:
    return {
        "groups": list(part.groups),
        "pairs": list(part.pairs),
        "rows": [{"method": title, "cells": [_cell(cell) for cell in cells]} for title, cells in part.rows],
    }


def _comparison(table: Table, found: PairwiseComparison) -> Json:
    return {
        "first": table.name(table.methods[found.first]),
        "second": table.name(table.methods[found.second]),
        "difference_of_losses": found.difference,
        "interval": _interval(found.interval),
        "n": found.n,
        "p": found.p,
        "p_holm": found.p_holm,
        "band": found.band,
        "verdict": found.verdict,
    }


def _matrix(matrix: np.ndarray) -> list[list[float | None]]:
    return [[float(x) if math.isfinite(x) else None for x in line] for line in matrix]


def _transfer(table: Table, transfer: EmotionTransfer) -> Json:
    return {
        "metric": transfer.column.metric,
        "signature": transfer.column.signature,
        "references": list(transfer.references),
        "targets": list(transfer.targets),
        "pairs": transfer.pairs.tolist(),
        "rows": [
            {"method": table.name(method), "means": _matrix(means), "n": counts.tolist()}
            for method, means, counts in transfer.rows
        ],
    }


def _confusion(table: Table, one: Confusion) -> Json:
    return {
        "metric": one.column.metric,
        "signature": one.column.signature,
        "method": table.name(one.method),
        "meant": list(one.targets),
        "said": list(one.predictions),
        "clips": _matrix(one.clips),
    }


def _drop(table: Table, drop: Drop) -> Json:
    return {
        "method": table.name(drop.method),
        "metric": drop.column.metric,
        "signature": drop.column.signature,
        "rise_of_loss": drop.change.mean,
        "interval": _interval(drop.change.interval),
        "p": drop.change.p,
    }


def _sensitivity(table: Table, found: Sensitivity) -> Json:
    def names(pairs: Sequence[MethodPair]) -> list[list[str]]:
        return [[table.name(a), table.name(b)] for a, b in pairs]

    return {
        "signatures": [column.signature for column in found.columns],
        "tau": [list(line) for line in found.tau],
        "methods": [list(line) for line in found.methods],
        "pairs": [list(line) for line in found.pairs],
        "agreed": names(found.agreed),
        "opposed": names(found.opposed),
        "partly": names(found.partly),
        "open": names(found.open),
    }
