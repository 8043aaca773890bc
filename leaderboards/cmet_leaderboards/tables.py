"""From result rows to the tables of a board: which rows may share one, and what stands in each cell.

Everything is computed here and in `sections`, in plain records; other files only write them in some format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pyarrow as pa

from cmet_leaderboards.bands import Bands
from cmet_leaderboards.file_record import FileRecord, MethodFacts, SettingFacts
from cmet_leaderboards.grid import ABSENT, INFINITE, LOST, Column, Grid, MethodId, grids
from cmet_leaderboards.published import Printed, printed
from cmet_leaderboards.results import TABLE_KEYS, Results
from cmet_leaderboards.sections import (
    DROP,
    Confusion,
    Drop,
    Duel,
    Flow,
    Sensitivity,
    confusions,
    drops,
    duels,
    flow,
    sensitivity,
    standing,
)
from cmet_leaderboards.statistics import Interval
from talking_face.emotions import EMOTIONS

# Roles that take no part in ranks and "best": what sees the ground truth.
APART = ("ceiling", "control")


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
    best: bool = False  # the best mean of the column
    rank: int | None = None  # 1 + how many are shown to be better; None for a ceiling and where nothing is compared
    ties: Mapping[str, str] = field(default_factory=dict)  # title of a tied method -> "tie" or "noise" (in the band)
    loss: float | None = None  # lower is better; with an ideal value, the mean distance from it

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
    """One metric by target emotion, or by speaker."""

    column: Column
    groups: tuple[str, ...]
    pairs: tuple[int, ...]  # expected, by group
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]  # (method title, cells by group)


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
    setting: SettingFacts
    pairs: int
    drawn: int  # pairs before a subset was taken
    speakers: int
    seeds: int
    missing_cells: tuple[str, ...]
    pair_notes: tuple[str, ...]  # what else to know of how the pairs were drawn
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    by_emotion: tuple[Breakdown, ...]  # by column, as the next four
    by_speaker: tuple[Breakdown, ...]
    duels: tuple[tuple[Duel, ...], ...]  # their numbers are indices of `methods`
    flows: tuple[Flow, ...]  # empty with a single reference emotion
    confusions: tuple[tuple[Confusion, ...], ...]
    sensitivity: tuple[Sensitivity, ...]
    losses: tuple[Loss, ...]
    methods: tuple[MethodId, ...]
    bands: str = ""  # where the noise bands come from
    drops: tuple[Drop, ...] = ()
    apart: Mapping[str, str] = field(default_factory=dict)  # keys in which it differs from the setting's other tables
    published: tuple[Printed, ...] = ()  # what papers print for the setting; with the first of its tables

    @property
    def title(self) -> str:
        return self.setting.title or self.key["setting"]

    def name(self, method: MethodId) -> str:
        """The title of a method on this board."""
        return next(row.title for row in self.rows if (row.method, row.revision) == method)


def build_tables(
    results: Results,
    bands: Bands = Bands(),  # noqa: B008 (frozen)
    published: Sequence[Mapping[str, Any]] = (),
) -> tuple[Table, ...]:
    """All tables, ordered by setting. Rows whose data, pairs, rules, profile or suite version differ stand in tables of
    their own; metrics whose signatures differ stand in columns of their own; so do `published` numbers, which see
    leaderboards/cmet_leaderboards/published.py for."""
    every = grids(results)
    tables = [_build_table(grid, _records(grid, results.records), bands) for grid in every]
    for i, after in enumerate(every):
        for before in every:
            if (before.key["setting"], after.key["setting"]) == DROP and _same_but_setting(before, after):
                tables[i] = replace(tables[i], drops=drops(before, after))
    tables.sort(key=lambda t: (t.key["setting"] != "neutral-base", tuple(t.key.values())))
    for name in dict.fromkeys(table.key["setting"] for table in tables):
        first = next(i for i, table in enumerate(tables) if table.key["setting"] == name)
        tables[first] = replace(tables[first], published=printed(published, name))
    return tuple(_tell_apart(tables))


def _same_but_setting(one: Grid, two: Grid) -> bool:
    return all(one.key[k] == two.key[k] for k in TABLE_KEYS if k not in ("setting", "rules", "pairs_digest"))


def _records(grid: Grid, records: Sequence[FileRecord]) -> list[FileRecord]:
    return [r for r in records if all(r.key.get(k) == v for k, v in grid.key.items())]


def _build_table(grid: Grid, records: Sequence[FileRecord], bands: Bands) -> Table:
    about = {(r.key["method"], r.key["revision"]): r for r in records}
    roles = {method: about[method].method.role if method in about else "method" for method in grid.methods}
    titles = _titles(grid.methods, about)
    columns = range(len(grid.columns))
    contestants = [m for m, method in enumerate(grid.methods) if roles[method] not in APART]
    found = {c: duels(grid, c, contestants, bands) for c in columns}
    order = sorted(
        range(len(grid.methods)),
        key=lambda m: (
            roles[grid.methods[m]] not in APART,
            roles[grid.methods[m]] == "floor",
            titles[grid.methods[m]],
        ),
    )
    cells = [_column_cells(grid, c, contestants, found[c], titles) for c in columns]
    emotions, references = _in_order(grid.target), _in_order(grid.reference)
    return Table(
        key=grid.key,
        setting=next((r.setting for r in records if r.setting is not None), SettingFacts()),
        pairs=len(grid.pair_ids),
        drawn=max((r.pairs.drawn for r in records), default=0),
        speakers=len(set(grid.speaker)),
        seeds=len(set(grid.seed)),
        missing_cells=tuple(sorted({cell for r in records for cell in r.pairs.missing})),
        pair_notes=tuple(sorted({note for r in records for note in r.pairs.notes})),
        columns=grid.columns,
        rows=tuple(_row(grid, m, titles, about, tuple(cells[c][m] for c in columns)) for m in order),
        by_emotion=tuple(_breakdown(grid, c, grid.target, emotions, order, titles) for c in columns),
        by_speaker=tuple(_breakdown(grid, c, grid.speaker, sorted(set(grid.speaker)), order, titles) for c in columns),
        duels=tuple(found[c] for c in columns),
        flows=tuple(flow(grid, c, references, emotions) for c in columns) if len(references) > 1 else (),
        confusions=tuple(confusions(grid, c) for c in columns),
        sensitivity=sensitivity(grid, contestants, found),
        losses=_losses(grid, titles),
        methods=grid.methods,
        bands=bands.about if any(column.signature in bands.by_signature for column in grid.columns) else "",
    )


def _titles(methods: Sequence[MethodId], about: Mapping[MethodId, FileRecord]) -> dict[MethodId, str]:
    several = Counter(name for name, _ in methods)
    out = {}
    for method in methods:
        name = (about[method].method.title if method in about else "") or method[0]
        out[method] = f"{name} @ {method[1]}" if several[method[0]] > 1 else name
    return out


def _column_cells(
    grid: Grid, c: int, contestants: Sequence[int], found: Sequence[Duel], titles: Mapping[MethodId, str]
) -> list[Cell | None]:
    """Cells of one column by method, with rank and ties, the best mean marked; a ceiling takes no part."""
    every = np.ones(len(grid.pair_ids), bool)
    cells = [_cell(grid, m, c, every) for m in range(len(grid.methods))]
    places = standing(found)
    losses = {
        m: cell.loss for m in contestants if (cell := cells[m]) is not None and cell.loss is not None and cell.compared
    }
    best = min(losses.values()) if len(losses) > 1 else None
    for m, loss in losses.items():
        rank, ties = places.get(m, (None, {}))
        cell = cells[m]
        assert cell is not None
        named = {titles[grid.methods[other]]: why for other, why in sorted(ties.items())}
        cells[m] = replace(cell, best=loss == best, rank=rank, ties=named)
    return cells


def _cell(grid: Grid, m: int, c: int, where: np.ndarray) -> Cell | None:
    """One method and metric over the pairs `where`; None where the metric was not asked for at all."""
    state = grid.state[m, c]
    if (state == ABSENT).all():
        return None
    made = grid.estimate(m, c, grid.use(m, c) & where)
    scored, infinite = int((state[where] >= INFINITE).sum()), int((state[where] == INFINITE).sum())
    return Cell(
        made.mean, made.interval, made.n, scored, int(where.sum()), infinite, bool(grid.compared[m, c]), loss=made.loss
    )


def _breakdown(
    grid: Grid,
    c: int,
    labels: np.ndarray,
    groups: Sequence[str],
    order: Sequence[int],
    titles: Mapping[MethodId, str],
) -> Breakdown:
    masks = [labels == group for group in groups]
    rows = []
    for m in order:
        if (grid.state[m, c] != ABSENT).any():
            rows.append((titles[grid.methods[m]], tuple(_cell(grid, m, c, mask) for mask in masks)))
    return Breakdown(grid.columns[c], tuple(groups), tuple(int(mask.sum()) for mask in masks), tuple(rows))


def _row(
    grid: Grid,
    m: int,
    titles: Mapping[MethodId, str],
    records: Mapping[MethodId, FileRecord],
    cells: tuple[Cell | None, ...],
) -> Row:
    method = grid.methods[m]
    record = records.get(method)
    about = record.method if record else MethodFacts()
    there = grid.row[m] >= 0
    first = grid.row[m][there.argmax(axis=0), np.arange(there.shape[1])]
    mine = grid.table.select(["notes", "codec"]).take(pa.array(first[first >= 0]))
    notes = Counter(_note_kind(text) for text in mine["notes"].to_pylist() if text)
    return Row(
        method=method[0],
        revision=method[1],
        title=titles[method],
        role=about.role,
        summary=about.summary,
        sees=about.sees,
        command=record.command if record else "",
        codec=", ".join(sorted({str(c) for c in mine["codec"].to_pylist() if c})),
        notes=tuple(sorted(notes.items())),
        cells=cells,
    )


def _note_kind(text: str) -> str:
    """Notes with their frame counts out, so that they can be counted: `cut from 54 to 50 frames` has `n to n`."""
    return re.sub(r"(?<![\d.])\d+(?= (?:to \d+ )?frames\b(?!/))|(?<=held to )\d+", "n", text)


def _losses(grid: Grid, titles: Mapping[MethodId, str]) -> tuple[Loss, ...]:
    lost = np.sort(grid.row[grid.state == LOST])
    names = ["method", "revision", "metric", "reason", "pair_id", "detail"]
    rows = grid.table.select(names).take(pa.array(lost))
    found: dict[tuple[MethodId, str, str], list[tuple[str, str]]] = {}
    for method, revision, metric, reason, pair, detail in zip(*(rows[name].to_pylist() for name in names), strict=True):
        found.setdefault(((method, revision), metric, str(reason)), []).append((pair, detail or ""))
    merged: dict[tuple[str, str, int, str], set[str]] = {}
    for (method, metric, reason), cases in found.items():
        pair, detail = min(cases)
        text = f"{pair}: {detail}" if detail else pair
        merged.setdefault((titles[method], reason, len(cases), text), set()).add(metric)
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
        out.append(replace(table, apart=apart))
    return out


def _in_order(names: np.ndarray) -> list[str]:
    known = {str(name) for name in names} - {""}
    return sorted(known, key=lambda name: (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name))
