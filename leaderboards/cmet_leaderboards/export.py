"""Writes boards in formats that programs read: one long table (CSV and Parquet), and one JSON file with a schema.

The same tables give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from cmet_leaderboards.escaping import csv_cell
from cmet_leaderboards.grid import Column, MethodId
from cmet_leaderboards.pairwise import PairwiseComparison
from cmet_leaderboards.results import BOARD_KEY
from cmet_leaderboards.sections import Confusion, Drop, EmotionTransfer, MethodPair, Sensitivity
from cmet_leaderboards.statistics import Interval
from cmet_leaderboards.tables import Breakdown, Cell, MethodRow, Table
from talking_face.arrow import schema_of
from talking_face.sealed import sealed, table_bytes

SCHEMA_FILE = Path(__file__).parent / "board.schema.json"  # the schema of the document that `to_json` writes
FORMAT = "cmet-eval-board-1"
Json = dict[str, object]


@dataclass(frozen=True, kw_only=True)
class BoardRow:
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
    reference_emotion: str | None = None
    target_emotion: str | None = None
    speaker: str | None = None
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


def records(tables: Sequence[Table]) -> Iterator[BoardRow]:
    """The rows of every method and metric: over all pairs, by target emotion, by speaker, and by both emotions."""
    for table in tables:
        methods = {row.title: (row.method, row.revision) for row in table.rows}
        for i, column in enumerate(table.columns):
            for row in table.rows:
                if (cell := row.cells[i]) is not None:
                    yield _record(table, (row.method, row.revision), column, cell)
            for field, part in (("target_emotion", table.by_emotion[i]), ("speaker", table.by_speaker[i])):
                for title, cells in part.rows:
                    for group, cell in zip(part.groups, cells, strict=True):
                        if cell is not None:
                            yield _record(table, methods[title], column, cell, **{field: group})
            if table.transfers:
                yield from _transfer_records(table, table.transfers[i])


def _record(table: Table, method: MethodId, column: Column, cell: Cell, **part: str) -> BoardRow:
    interval, share = cell.interval, cell.share
    way = share.interval if share else None
    return BoardRow(
        **table.key,  # type: ignore[arg-type]
        **part,  # type: ignore[arg-type]
        method=method[0],
        revision=method[1],
        metric=column.metric,
        signature=column.signature,
        higher_is_better=column.higher_is_better,
        ideal=column.ideal,
        unit=column.unit,
        mean=cell.mean,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        interval_over=interval.over if interval else None,
        n=cell.n,
        scored=cell.scored,
        expected=cell.expected,
        infinite=cell.infinite,
        compared=cell.compared,
        best=cell.best,
        rank=cell.rank,
        ties=", ".join(cell.ties) or None,
        distance=cell.loss if column.ideal is not None else None,
        share=share.value if share else None,
        share_low=way.low if way else None,
        share_high=way.high if way else None,
    )


def _transfer_records(table: Table, transfer: EmotionTransfer) -> Iterator[BoardRow]:
    for method, means, counts in transfer.rows:
        for (r, t), expected in np.ndenumerate(transfer.pairs):
            if expected:
                n, mean = int(counts[r, t]), float(means[r, t])
                cell = Cell(mean if n else None, None, n, n, int(expected), 0)
                where = {"reference_emotion": transfer.references[r], "target_emotion": transfer.targets[t]}
                yield _record(table, method, transfer.column, cell, **where)


def to_csv(rows: Sequence[BoardRow]) -> str:
    """`records` as CSV. Numbers have all their digits, and null is an empty cell; see `escaping.csv_cell`."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(FIELDS.names)
    for row in rows:
        writer.writerow([csv_cell(getattr(row, name)) for name in FIELDS.names])
    return buffer.getvalue()


def to_parquet(rows: Sequence[BoardRow]) -> bytes:
    """`records` as Parquet, with a digest; see `talking_face.sealed`."""
    schema = FIELDS.with_metadata({BOARD_KEY: FORMAT})
    return table_bytes(pa.Table.from_pylist([vars(row) for row in rows], schema=schema))


def to_json(tables: Sequence[Table]) -> str:
    """All numbers and facts of the board as JSON with a digest, in the form that SCHEMA_FILE describes."""
    document = sealed({"format": FORMAT, "tables": [_table(table) for table in tables]})
    return json.dumps(document, allow_nan=False) + "\n"


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


def _numbers(matrix: np.ndarray) -> list[list[float | None]]:
    return [[float(x) if math.isfinite(x) else None for x in line] for line in matrix]


def _transfer(table: Table, transfer: EmotionTransfer) -> Json:
    return {
        "metric": transfer.column.metric,
        "signature": transfer.column.signature,
        "references": list(transfer.references),
        "targets": list(transfer.targets),
        "pairs": transfer.pairs.tolist(),
        "rows": [
            {"method": table.name(method), "means": _numbers(means), "n": counts.tolist()}
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
        "clips": _numbers(one.clips),
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
