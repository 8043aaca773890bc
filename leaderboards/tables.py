"""From result rows to the tables of a board: which rows may share one, and what stands in each cell.

Everything is computed here, in plain records; `board.py` only writes them as Markdown, CSV and HTML.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.compute as pc

from leaderboards.results import TABLE_KEYS, Results
from leaderboards.statistics import Interval, common_pairs, jackknife_interval, mean_interval
from talking_face.emotions import EMOTIONS
from talking_face.reasons import Reason

_METRIC_ORDER = ("psnr", "ssim", "m_lmd", "f_lmd", "lse", "csim", "ea", "fid")


@dataclass(frozen=True)
class Column:
    """One metric under one signature."""

    metric: str  # name:variant
    signature: str
    higher_is_better: bool
    unit: str
    short_signature: str = ""  # what sets it apart from another column of the same metric; else empty

    @property
    def name(self) -> str:
        """`M-LMD` for `m_lmd:eat`."""
        return self.metric.split(":")[0].replace("_", "-").upper()

    @property
    def variant(self) -> str:
        return self.metric.partition(":")[2]


@dataclass(frozen=True)
class Cell:
    """One method under one metric. `mean` is over the table's common pairs where the method is compared, else over
    its own; None where it has no finite value."""

    mean: float | None
    interval: Interval | None
    n: int  # pairs in the mean
    scored: int  # pairs with a value, or an infinite one
    expected: int
    infinite: int  # of the scored: identical to the target, so left out of the mean
    compared: bool = True
    best: bool = False

    @property
    def complete(self) -> bool:
        return self.scored == self.expected


@dataclass(frozen=True)
class Row:
    """One method, with what the catalogue says of it."""

    method: str
    revision: str
    title: str
    role: str
    summary: str
    sees: tuple[str, ...]
    command: str
    codec: str
    notes: tuple[tuple[str, int], ...]  # what was done to videos, and to how many
    cells: tuple[Cell | None, ...]  # by column; None where the metric was not asked for


@dataclass(frozen=True)
class Breakdown:
    """One metric by target emotion."""

    column: Column
    emotions: tuple[str, ...]
    pairs: tuple[int, ...]  # expected, by emotion
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]  # (method title, cells by emotion)


@dataclass(frozen=True)
class Loss:
    """Pairs without a value: how many, why, and one of them in words."""

    method: str
    metrics: tuple[str, ...]
    reason: str
    count: int
    detail: str


@dataclass(frozen=True)
class Table:
    """Rows that may be compared: one setting, data set, pair list, profile and suite version."""

    key: Mapping[str, str]
    setting: Mapping[str, Any]  # the setting's record: title, summary, disjoint, shared, ...
    pairs: int
    drawn: int  # pairs before a subset was taken
    speakers: int
    seeds: int
    missing_cells: tuple[str, ...]
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    breakdowns: tuple[Breakdown, ...]
    losses: tuple[Loss, ...]
    apart: Mapping[str, str] = field(default_factory=dict)  # keys in which it differs from the setting's other tables

    @property
    def title(self) -> str:
        return str(self.setting.get("title") or self.key["setting"])


def build_tables(results: Results) -> tuple[Table, ...]:
    """All tables, ordered by setting. Rows whose data, pairs, rules, profile or suite version differ stand in tables of
    their own; metrics whose signatures differ stand in columns of their own."""
    frame = results.frame()
    tables = []
    for values, index in frame.groupby(list(TABLE_KEYS), dropna=False).groups.items():
        key = dict(zip(TABLE_KEYS, map(str, values), strict=True))
        mask = np.asarray(index)
        records = [r for r in results.records if all(str(r["key"].get(k)) == v for k, v in key.items())]
        tables.append(_build_table(key, frame.loc[mask], results.table["stats"], records))
    tables.sort(key=lambda t: (t.key["setting"] != "neutral-base", tuple(t.key.values())))
    return tuple(_tell_apart(tables))


def _build_table(key: dict[str, str], frame: pd.DataFrame, stats: Any, records: Sequence[Mapping[str, Any]]) -> Table:
    columns = _columns(frame)
    pairs = frame.drop_duplicates("pair_id")
    methods = sorted({(m, r) for m, r in frame[["method", "revision"]].drop_duplicates().itertuples(index=False)})
    about = {(r["key"]["method"], r["key"]["revision"]): r for r in records}
    several = Counter(name for name, _ in methods)

    cells: dict[tuple[str, str], list[Cell | None]] = {method: [] for method in methods}
    breakdowns = []
    emotions = sorted(pairs["target_emotion"].dropna().unique(), key=_emotion_order)
    roles = {method: str(about.get(method, {}).get("method", {}).get("role", "method")) for method in methods}
    for column in columns:
        part = frame[frame["signature"] == column.signature]
        by_method = {name: group for name, group in part.groupby(["method", "revision"], sort=True) if len(group)}
        made, by_emotion = _column_cells(column, by_method, len(pairs), emotions, pairs, stats)
        for method in methods:
            cells[method].append(made.get(method))
        rows = [(method, by_emotion[method]) for method in methods if method in by_emotion]
        breakdowns.append((column, rows))
    _mark_best(columns, cells, roles)

    def title(method: tuple[str, str]) -> str:
        name = str(about.get(method, {}).get("method", {}).get("title", method[0]))
        return f"{name} @ {method[1]}" if several[method[0]] > 1 else name

    order = sorted(methods, key=lambda m: (roles[m] != "ceiling", roles[m] == "floor", title(m)))
    rows_out = [_row(method, title(method), about.get(method, {}), frame, tuple(cells[method])) for method in order]
    rank = {method: i for i, method in enumerate(order)}
    counts = pairs["target_emotion"].value_counts()
    return Table(
        key=key,
        setting=next((r["setting"] for r in records if r.get("setting")), {}),
        pairs=len(pairs),
        drawn=max([int(r.get("pairs", {}).get("drawn", 0)) for r in records], default=0),
        speakers=int(pairs["speaker"].nunique()),
        seeds=int(pairs["seed"].nunique()),
        missing_cells=tuple(sorted({cell for r in records for cell in r.get("pairs", {}).get("missing", ())})),
        columns=tuple(columns),
        rows=tuple(rows_out),
        breakdowns=tuple(
            Breakdown(
                column,
                tuple(emotions),
                tuple(int(counts[e]) for e in emotions),
                tuple((title(m), tuple(c)) for m, c in sorted(rows, key=lambda item: rank[item[0]])),
            )
            for column, rows in breakdowns
        ),
        losses=_losses(frame, {m: title(m) for m in methods}),
    )


def _columns(frame: pd.DataFrame) -> list[Column]:
    found = frame.drop_duplicates(["metric", "signature", "higher_is_better", "unit"])
    several = Counter(found["metric"])
    columns = []
    for row in found.itertuples(index=False):
        others = [s for s, m in zip(found["signature"], found["metric"], strict=True) if m == row.metric]
        short = _difference(row.signature, others) if several[row.metric] > 1 else ""
        columns.append(Column(row.metric, row.signature, bool(row.higher_is_better), row.unit, short))
    return sorted(columns, key=_column_order)


def _column_order(column: Column) -> tuple[int, str, str]:
    name = column.metric.split(":")[0]
    return (_METRIC_ORDER.index(name) if name in _METRIC_ORDER else 99, column.metric, column.signature)


def _difference(signature: str, others: Sequence[str]) -> str:
    """The fields of a signature in which the others differ from it."""
    fields = [set(text.split("|")) for text in others]
    shared = set.intersection(*fields)
    return "|".join(part for part in signature.split("|") if part not in shared)


def _column_cells(
    column: Column,
    by_method: Mapping[Any, pd.DataFrame],
    expected: int,
    emotions: Sequence[str],
    pairs: pd.DataFrame,
    stats: Any,
) -> tuple[dict[Any, Cell], dict[Any, list[Cell | None]]]:
    """Cells of one column, and the same by target emotion."""
    scored = {name: frozenset(group.loc[_has_value(group), "pair_id"]) for name, group in by_method.items()}
    compared, shared = common_pairs(scored, expected)
    cells: dict[Any, Cell] = {}
    by_emotion: dict[Any, list[Cell | None]] = {}
    expected_by = pairs["target_emotion"].value_counts()
    for name, group in by_method.items():
        use = group[group["pair_id"].isin(shared if name in compared else scored[name])]
        cells[name] = _cell(column, group, use, expected, name in compared, stats)
        by_emotion[name] = [
            _cell(
                column,
                group[group["target_emotion"] == emotion],
                use[use["target_emotion"] == emotion],
                int(expected_by[emotion]),
                name in compared,
                stats,
            )
            for emotion in emotions
        ]
    return cells, by_emotion


def _cell(column: Column, group: pd.DataFrame, use: pd.DataFrame, expected: int, compared: bool, stats: Any) -> Cell:
    infinite = int((group["reason"] == Reason.INFINITE.value).sum())
    scored = int(_has_value(group).sum())
    mean, interval, n = _estimate(column, use, stats)
    return Cell(mean, interval, n, scored, expected, infinite, compared)


def _estimate(column: Column, use: pd.DataFrame, stats: Any) -> tuple[float | None, Interval | None, int]:
    """Mean over pairs, or the metric's own statistic where it is made of pooled sums."""
    pooled = _pooled(column.metric)
    if pooled is None:
        finite = use[use["value"].notna()]
        if finite.empty:
            return None, None, 0
        mean, interval = mean_interval(finite["value"].to_numpy(), finite["speaker"].to_numpy())
        return mean, interval, len(finite)
    sums = pd.DataFrame([dict(item) for item in pc.take(stats, use.index.to_numpy()).to_pylist()])
    if sums.empty:
        return None, None, 0

    def estimate(keep: np.ndarray) -> float:
        value = pooled({str(name): float(total) for name, total in sums.iloc[keep].sum().items()})
        return float("nan") if value is None else float(value)

    value = estimate(np.arange(len(sums)))
    if not np.isfinite(value):
        return None, None, 0
    interval = jackknife_interval(estimate, use["speaker"].to_numpy())
    good = interval is not None and np.isfinite([interval.low, interval.high]).all()
    return value, interval if good else None, len(sums)


def _pooled(metric: str) -> Any:
    """`mean_of` of a metric that overrides the plain mean over clips; None for the others and for unknown metrics."""
    from metrics.base import Metric
    from metrics.registry import get_metric
    from talking_face.reasons import UserError

    try:
        found = get_metric(metric)
    except (UserError, KeyError, ValueError):
        return None
    return None if type(found).mean_of is Metric.mean_of else found.mean_of


def _has_value(group: pd.DataFrame) -> pd.Series:
    has: pd.Series = group["value"].notna() | (group["reason"] == Reason.INFINITE.value)
    return has


def _mark_best(
    columns: Sequence[Column], cells: dict[tuple[str, str], list[Cell | None]], roles: Mapping[tuple[str, str], str]
) -> None:
    """Mark the best mean of each column among compared methods; a ceiling takes no part."""
    for i, column in enumerate(columns):
        means = {
            method: cell.mean
            for method, row in cells.items()
            if roles[method] != "ceiling" and (cell := row[i]) is not None and cell.mean is not None and cell.compared
        }
        if len(means) < 2:
            continue
        top = (max if column.higher_is_better else min)(means.values())
        for method, mean in means.items():
            cell = cells[method][i]
            if mean == top and cell is not None:
                cells[method][i] = Cell(**{**cell.__dict__, "best": True})


def _row(
    method: tuple[str, str], title: str, record: Mapping[str, Any], frame: pd.DataFrame, cells: tuple[Cell | None, ...]
) -> Row:
    mine = frame[(frame["method"] == method[0]) & (frame["revision"] == method[1])].drop_duplicates("pair_id")
    about = record.get("method", {})
    notes = Counter(_note_kind(text) for text in mine["notes"].dropna() if text)
    return Row(
        method=method[0],
        revision=method[1],
        title=title,
        role=str(about.get("role", "method")),
        summary=str(about.get("summary", "")),
        sees=tuple(about.get("sees", ())),
        command=str(record.get("command", "")),
        codec=", ".join(sorted({str(c) for c in mine["codec"].dropna() if c})),
        notes=tuple(sorted(notes.items())),
        cells=cells,
    )


def _note_kind(text: str) -> str:
    """Notes with their frame counts out, so that they can be counted: `cut from 54 to 50 frames` has `n to n`."""
    return re.sub(r"(?<![\d.])\d+(?= (?:to \d+ )?frames\b(?!/))|(?<=held to )\d+", "n", text)


def _losses(frame: pd.DataFrame, titles: Mapping[tuple[str, str], str]) -> tuple[Loss, ...]:
    lost = frame[frame["value"].isna() & (frame["reason"] != Reason.INFINITE.value)]
    merged: dict[tuple[str, str, int, str], set[str]] = {}
    for (method, revision, metric, reason), group in lost.groupby(["method", "revision", "metric", "reason"]):
        first = group.sort_values("pair_id").iloc[0]
        detail = f"{first['pair_id']}: {first['detail']}" if first["detail"] else str(first["pair_id"])
        merged.setdefault((titles[method, revision], str(reason), len(group), detail), set()).add(str(metric))
    return tuple(
        Loss(method, tuple(sorted(metrics)), reason, count, detail)
        for (method, reason, count, detail), metrics in sorted(merged.items())
    )


def _tell_apart(tables: Sequence[Table]) -> list[Table]:
    """Give tables of the same setting the keys in which they differ."""
    out = []
    for table in tables:
        same = [other.key for other in tables if other.key["setting"] == table.key["setting"]]
        apart = {k: table.key[k] for k in TABLE_KEYS if len({key[k] for key in same}) > 1}
        out.append(Table(**{**table.__dict__, "apart": apart}))
    return out


def _emotion_order(name: str) -> tuple[int, str]:
    return (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name)
