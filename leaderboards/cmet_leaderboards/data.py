"""Boards as data: one long table (CSV, Parquet) and one JSON document with a schema.

The same tables give the same bytes.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cmet_leaderboards.grid import Column, MethodId
from cmet_leaderboards.results import BOARD_KEY
from cmet_leaderboards.sections import Confusion, Drop, Duel, Flow, Sensitivity
from cmet_leaderboards.statistics import Interval
from cmet_leaderboards.tables import Breakdown, Cell, Table

SCHEMA_FILE = Path(__file__).parent / "board.schema.json"  # of what `to_json` gives
FORMAT = "cmet-eval-board-1"

# A row with no emotion and no speaker is the board's cell; the others are parts of it.
FIELDS = pa.schema(
    [
        ("setting", pa.string()),
        ("method", pa.string()),
        ("revision", pa.string()),
        ("metric", pa.string()),
        ("signature", pa.string()),
        ("higher_is_better", pa.bool_()),
        ("ideal", pa.float64()),
        ("unit", pa.string()),
        ("reference_emotion", pa.string()),
        ("target_emotion", pa.string()),
        ("speaker", pa.string()),
        ("mean", pa.float64()),
        ("low", pa.float64()),
        ("high", pa.float64()),
        ("interval_over", pa.string()),
        ("n", pa.int32()),
        ("scored", pa.int32()),
        ("expected", pa.int32()),
        ("infinite", pa.int32()),
        ("compared", pa.bool_()),
        ("best", pa.bool_()),
        ("rank", pa.int32()),
        ("ties", pa.string()),  # titles of the methods that it ties with
        ("distance", pa.float64()),  # mean distance from the ideal, where the metric has one
        *((name, pa.string()) for name in ("dataset", "data_digest", "data_signature", "pairs_digest", "rules")),
        *((name, pa.string()) for name in ("profile", "suite_version")),
    ]
)


def records(tables: Sequence[Table]) -> Iterator[dict[str, Any]]:
    """Rows with FIELDS: a method and metric over all pairs, by target emotion, by speaker, by both emotions."""
    for table in tables:
        names = {row.title: row for row in table.rows}
        for i, column in enumerate(table.columns):
            for row in table.rows:
                if (cell := row.cells[i]) is not None:
                    yield _record(table, (row.method, row.revision), column, cell, {})
            for field, part in (("target_emotion", table.by_emotion[i]), ("speaker", table.by_speaker[i])):
                for title, cells in part.rows:
                    who = (names[title].method, names[title].revision)
                    for group, cell in zip(part.groups, cells, strict=True):
                        if cell is not None:
                            yield _record(table, who, column, cell, {field: group})
            if table.flows:
                yield from _flow_records(table, table.flows[i])


def _record(table: Table, method: MethodId, column: Column, cell: Cell, part: dict[str, str]) -> dict[str, Any]:
    interval = cell.interval
    return {
        **dict.fromkeys(FIELDS.names),
        **table.key,
        "method": method[0],
        "revision": method[1],
        "metric": column.metric,
        "signature": column.signature,
        "higher_is_better": column.higher_is_better,
        "ideal": column.ideal,
        "unit": column.unit,
        **part,
        "mean": cell.mean,
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
        "interval_over": interval.over if interval else None,
        "n": cell.n,
        "scored": cell.scored,
        "expected": cell.expected,
        "infinite": cell.infinite,
        "compared": cell.compared,
        "best": cell.best,
        "rank": cell.rank,
        "ties": ", ".join(cell.ties) or None,
        "distance": cell.loss if column.ideal is not None else None,
    }


def _flow_records(table: Table, flow: Flow) -> Iterator[dict[str, Any]]:
    for method, means, counts in flow.rows:
        for (r, t), expected in np.ndenumerate(flow.pairs):
            if expected:
                n, mean = int(counts[r, t]), float(means[r, t])
                cell = Cell(mean if n else None, None, n, n, int(expected), 0)
                where = {"reference_emotion": flow.references[r], "target_emotion": flow.targets[t]}
                yield _record(table, method, flow.column, cell, where)


def to_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """`records` as CSV; numbers in full, nothing for null."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(FIELDS.names)
    for row in rows:
        writer.writerow(["" if v is None else repr(v) if isinstance(v, float) else v for v in row.values()])
    return buffer.getvalue()


def to_parquet(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """`records` as Parquet."""
    buffer = io.BytesIO()
    pq.write_table(
        pa.Table.from_pylist(list(rows), schema=FIELDS.with_metadata({BOARD_KEY: FORMAT})), buffer, compression="zstd"
    )
    return buffer.getvalue()


def to_json(tables: Sequence[Table]) -> str:
    """Everything on the board, as SCHEMA_FILE describes it."""
    return json.dumps({"format": FORMAT, "tables": [_table(table) for table in tables]}, allow_nan=False) + "\n"


def _table(table: Table) -> dict[str, Any]:
    return {
        "key": dict(table.key),
        "title": table.title,
        "summary": table.setting.summary,
        "pairs": table.pairs,
        "drawn": table.drawn,
        "speakers": table.speakers,
        "seeds": table.seeds,
        "missing_cells": list(table.missing_cells),
        "apart": dict(table.apart),
        "pair_notes": list(table.pair_notes),
        "bands": table.bands,
        "columns": [_column(column) for column in table.columns],
        "methods": [
            {
                "method": row.method,
                "revision": row.revision,
                "title": row.title,
                "role": row.role,
                "summary": row.summary,
                "sees": list(row.sees),
                "command": row.command,
                "codec": row.codec,
                "notes": [{"text": text, "videos": count} for text, count in row.notes],
                "cells": [_cell(cell) for cell in row.cells],
            }
            for row in table.rows
        ],
        "by_emotion": [_breakdown(part) for part in table.by_emotion],
        "by_speaker": [_breakdown(part) for part in table.by_speaker],
        "duels": [[_duel(table, duel) for duel in found] for found in table.duels],
        "flows": [_flow(table, flow) for flow in table.flows],
        "confusions": [_confusion(table, one) for found in table.confusions for one in found],
        "drops": [_drop(table, drop) for drop in table.drops],
        "sensitivity": [_sensitivity(table, found) for found in table.sensitivity],
        "missing": [
            {"method": x.method, "metrics": list(x.metrics), "reason": x.reason, "pairs": x.count, "example": x.detail}
            for x in table.losses
        ],
        "published": [
            {
                "title": part.title,
                "protocol": part.protocol,
                "metrics": list(part.metrics),
                "methods": [{"method": method, "values": list(values)} for method, values in part.methods],
            }
            for part in table.published
        ],
    }


def _column(column: Column) -> dict[str, Any]:
    return {
        "metric": column.metric,
        "signature": column.signature,
        "higher_is_better": column.higher_is_better,
        "ideal": column.ideal,
        "unit": column.unit,
    }


def _interval(interval: Interval | None) -> dict[str, Any] | None:
    if interval is None:
        return None
    return {"low": interval.low, "high": interval.high, "over": interval.over, "units": interval.units}


def _cell(cell: Cell | None) -> dict[str, Any] | None:
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
    }


def _breakdown(part: Breakdown) -> dict[str, Any]:
    return {
        "groups": list(part.groups),
        "pairs": list(part.pairs),
        "rows": [{"method": title, "cells": [_cell(cell) for cell in cells]} for title, cells in part.rows],
    }


def _duel(table: Table, duel: Duel) -> dict[str, Any]:
    return {
        "first": table.name(table.methods[duel.first]),
        "second": table.name(table.methods[duel.second]),
        "difference_of_losses": duel.difference,
        "interval": _interval(duel.interval),
        "n": duel.n,
        "p": duel.p,
        "p_holm": duel.p_holm,
        "band": duel.band,
        "verdict": duel.verdict,
    }


def _numbers(matrix: np.ndarray) -> list[list[float | None]]:
    return [[float(x) if math.isfinite(x) else None for x in line] for line in matrix]


def _flow(table: Table, flow: Flow) -> dict[str, Any]:
    return {
        "metric": flow.column.metric,
        "signature": flow.column.signature,
        "references": list(flow.references),
        "targets": list(flow.targets),
        "pairs": flow.pairs.tolist(),
        "rows": [
            {"method": table.name(method), "means": _numbers(means), "n": counts.tolist()}
            for method, means, counts in flow.rows
        ],
    }


def _confusion(table: Table, one: Confusion) -> dict[str, Any]:
    return {
        "metric": one.column.metric,
        "signature": one.column.signature,
        "method": table.name(one.method),
        "meant": list(one.meant),
        "said": list(one.said),
        "clips": _numbers(one.clips),
    }


def _drop(table: Table, drop: Drop) -> dict[str, Any]:
    return {
        "method": table.name(drop.method),
        "metric": drop.column.metric,
        "signature": drop.column.signature,
        "rise_of_loss": drop.change.mean,
        "interval": _interval(drop.change.interval),
        "p": drop.change.p,
    }


def _sensitivity(table: Table, found: Sensitivity) -> dict[str, Any]:
    def names(pairs: Sequence[tuple[MethodId, MethodId]]) -> list[list[str]]:
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
