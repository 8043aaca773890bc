"""Builds the tables of a board from result rows: which rows are in the same table, and what each cell contains.

This module, `pairwise` and `sections` compute everything on a board, as plain records. Other modules only write these
records in a file format.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import pyarrow as pa

from cmet_leaderboards.answer import Answer, answer
from cmet_leaderboards.bands import Bands
from cmet_leaderboards.file_record import FileRecord, MethodFacts, SettingFacts
from cmet_leaderboards.grid import FAILED, INFINITE, Column, Grid, MethodId, grids
from cmet_leaderboards.pairwise import PairwiseComparison, pairwise_comparisons, ranks_and_ties
from cmet_leaderboards.published import PublishedTable, published_tables
from cmet_leaderboards.results import Results
from cmet_leaderboards.row import TABLE_KEYS
from cmet_leaderboards.sections import (
    DROP,
    Confusion,
    Drop,
    EmotionTransfer,
    Sensitivity,
    confusions,
    drops,
    emotion_transfer,
    in_order,
    sensitivities,
)
from cmet_leaderboards.statistics import Difference, Interval, Share
from cmet_leaderboards.training_seeds import mean_over_seeds
from cmet_leaderboards.way import Way, ways

# Roles of methods that receive the ground truth. These methods have no rank and are never marked as the best.
UNRANKED_ROLES = ("ceiling", "control")


@dataclass(frozen=True)
class Cell:
    """The value of one metric for one method.

    If the method is compared, `mean` is over the common pairs of all compared methods. Else `mean` is over all pairs
    for which the method has a value. `mean` is None if no pair has a finite value.
    """

    mean: float | None
    interval: Interval | None
    n: int  # number of pairs in the mean
    scored: int  # number of pairs with a finite or infinite value
    expected: int  # number of all pairs
    infinite: int  # number of pairs identical to the target; only the mean of a pooled metric includes them
    compared: bool = True
    best: bool = False  # the best mean of the column
    rank: int | None = None  # 1 + the number of significantly better methods; None: no rank
    ties: Mapping[str, str] = field(default_factory=dict)  # {title of a tied method: "tie", or "noise" (in the band)}
    loss: float | None = None  # lower is better; for a metric with an ideal value, the mean distance from it
    share: Share | None = None  # of the way from the best floor to the ground truth; None: see `Table.ways`

    @property
    def complete(self) -> bool:
        return self.scored == self.expected


@dataclass(frozen=True)
class MethodRow:
    """One method's row of a table, with its facts from the catalogue."""

    method: str
    revision: str
    title: str
    role: str
    summary: str
    sees: tuple[str, ...]
    training_seeds: tuple[int, ...]  # several: the row is the mean over them; empty: not known
    command: str
    codec: str
    notes: tuple[tuple[str, int], ...]  # (a change to videos, the number of videos with this change)
    cells: tuple[Cell | None, ...]  # by column; None if the metric was not requested


@dataclass(frozen=True)
class Breakdown:
    """One metric by target emotion, or by speaker."""

    column: Column
    groups: tuple[str, ...]
    pairs: tuple[int, ...]  # expected number of pairs, by group
    rows: tuple[tuple[str, tuple[Cell | None, ...]], ...]  # (method title, cells by group)


@dataclass(frozen=True)
class MissingValues:
    """The pairs of one method that have no value for the same reason."""

    method: str
    metrics: tuple[str, ...]
    reason: str
    count: int
    detail: str  # one of the pairs and its message, as an example


@dataclass(frozen=True)
class Table:
    """A table of comparable rows, which have the same setting, data set, pair list, profile and suite version."""

    key: Mapping[str, str]
    setting: SettingFacts
    pairs: int
    drawn: int  # number of pairs before a subset was selected
    speakers: int  # 0: the speakers are not named
    seeds: int  # 0: no pair was drawn with a seed
    missing_cells: tuple[str, ...]  # combinations of speaker and emotions that have no clip
    pair_notes: tuple[str, ...]  # other facts about how the pairs were drawn
    columns: tuple[Column, ...]
    rows: tuple[MethodRow, ...]
    by_emotion: tuple[Breakdown, ...]  # one per column; without groups if the pairs have no emotion
    by_speaker: tuple[Breakdown, ...]  # one per column
    comparisons: tuple[tuple[PairwiseComparison, ...], ...]  # by column; `first` and `second` are indices of `methods`
    transfers: tuple[EmotionTransfer, ...]  # one per column; empty if there is only one reference emotion
    confusions: tuple[tuple[Confusion, ...], ...]  # by column
    sensitivity: tuple[Sensitivity, ...]
    missing: tuple[MissingValues, ...]
    methods: tuple[MethodId, ...]
    ways: tuple[Way, ...]  # by column; its indices are those of `methods`
    grid: Grid = field(repr=False, compare=False)  # the values of every pair
    answer: Answer  # which methods the tests show to be better
    bands: str = ""  # the name of the file with the noise bands
    drops: tuple[Drop, ...] = ()
    differing_keys: Mapping[str, str] = field(default_factory=dict)  # keys in which the setting's tables differ
    published: tuple[PublishedTable, ...] = ()  # numbers from papers; only in the setting's first table

    @property
    def title(self) -> str:
        return self.setting.title or self.key["setting"]

    def name(self, method: MethodId) -> str:
        """The title of a method on this board."""
        return self._names[method]

    @cached_property
    def _names(self) -> dict[MethodId, str]:
        return {(row.method, row.revision): row.title for row in self.rows}

    def drop(self, row: MethodRow, column: Column) -> Difference | None:
        """The drop of a method by a metric; None if the other setting does not have this method or metric."""
        return self._changes.get(((row.method, row.revision), column.signature))

    @cached_property
    def _changes(self) -> dict[tuple[MethodId, str], Difference]:
        return {(drop.method, drop.column.signature): drop.change for drop in reversed(self.drops)}


def build_tables(
    results: Results,
    bands: Bands = Bands(),  # noqa: B008 (frozen)
    published: Sequence[Mapping[str, object]] = (),
    *,
    each_seed: bool = False,
) -> tuple[Table, ...]:
    """All tables, sorted by setting.

    Rows with different data, pairs, rules, profiles or suite versions are in different tables. Metrics with different
    signatures are in different columns. Published numbers are in separate tables.

    Args:
        results: the result rows.
        bands: noise bands; a difference inside its band is a tie.
        published: records of published numbers, see `cmet_leaderboards.published.published_tables`.
        each_seed: whether each training seed of a method has a row; else the method's row is the mean over its seeds.
    """
    known = [(grid, _records_of(grid, results.records)) for grid in grids(results)]
    known = known if each_seed else [mean_over_seeds(*item) for item in known]
    every = [grid for grid, _ in known]
    tables = [_build_table(*item, bands) for item in known]
    for i, after in enumerate(every):
        for before in every:
            if (before.key["setting"], after.key["setting"]) == DROP and _same_but_setting(before, after):
                tables[i] = replace(tables[i], drops=drops(before, after))
    tables.sort(key=lambda t: (t.key["setting"] != "neutral-base", tuple(t.key.values())))
    for name in dict.fromkeys(table.key["setting"] for table in tables):
        first = next(i for i, table in enumerate(tables) if table.key["setting"] == name)
        tables[first] = replace(tables[first], published=published_tables(published, name))
    return tuple(replace(table, differing_keys=_differing_keys(table, tables)) for table in tables)


def _same_but_setting(one: Grid, two: Grid) -> bool:
    return all(one.key[k] == two.key[k] for k in TABLE_KEYS if k not in ("setting", "rules", "pairs_digest"))


def _records_of(grid: Grid, records: Sequence[FileRecord]) -> list[FileRecord]:
    """The records of the grid's files."""
    return [r for r in records if all(r.key.get(k) == v for k, v in grid.key.items())]


def _build_table(grid: Grid, records: Sequence[FileRecord], bands: Bands) -> Table:
    by_method = {(r.key["method"], r.key["revision"]): r for r in records}
    titles = _titles(grid.methods, by_method)
    roles = [by_method[method].method.role if method in by_method else "method" for method in grid.methods]
    order = sorted(
        range(len(grid.methods)),
        key=lambda m: (roles[m] not in UNRANKED_ROLES, roles[m] == "floor", titles[grid.methods[m]]),
    )
    contestants = [m for m, role in enumerate(roles) if role not in UNRANKED_ROLES]
    bands = bands.for_origin(grid.key["origin"])
    columns = range(len(grid.columns))
    comparisons = {c: pairwise_comparisons(grid, c, contestants, bands) for c in columns}
    found_ways = ways(grid, roles)
    cells = [_column_cells(grid, c, contestants, comparisons[c], titles, found_ways[c].shares) for c in columns]
    speakers = sorted({*grid.speaker} - {""})
    emotions, references = in_order({*grid.target} - {""}), in_order({*grid.reference} - {""})
    return Table(
        key=grid.key,
        setting=next((r.setting for r in records if r.setting is not None), SettingFacts()),
        pairs=len(grid.pair_ids),
        drawn=max((r.pairs.drawn for r in records), default=0),
        speakers=len(speakers),
        seeds=len({seed for seed in grid.seed if np.isfinite(seed)}),
        missing_cells=tuple(sorted({cell for r in records for cell in r.pairs.missing})),
        pair_notes=tuple(sorted({note for r in records for note in r.pairs.notes})),
        columns=grid.columns,
        rows=tuple(
            _method_row(grid, m, titles, by_method.get(grid.methods[m]), tuple(cells[c][m] for c in columns))
            for m in order
        ),
        by_emotion=_breakdowns(grid, grid.target, emotions, order, titles),
        by_speaker=_breakdowns(grid, grid.speaker, speakers, order, titles),
        comparisons=tuple(comparisons[c] for c in columns),
        transfers=tuple(emotion_transfer(grid, c, references, emotions) for c in columns)
        if len(references) > 1
        else (),
        confusions=tuple(confusions(grid, c) for c in columns),
        sensitivity=sensitivities(grid, contestants, comparisons),
        missing=_missing_values(grid, titles),
        methods=grid.methods,
        ways=found_ways,
        grid=grid,
        answer=answer(grid, comparisons, roles, bands),
        bands=bands.about if any(bands.of(column.signature) for column in grid.columns) else "",
    )


def _titles(methods: Sequence[MethodId], records: Mapping[MethodId, FileRecord]) -> dict[MethodId, str]:
    """The methods' titles. If the table has several revisions of a method, the revision is added to the title."""
    several = Counter(name for name, _ in methods)
    out = {}
    for method in methods:
        name = (records[method].method.title if method in records else "") or method[0]
        out[method] = f"{name} @ {method[1]}" if several[method[0]] > 1 else name
    return out


def _column_cells(
    grid: Grid,
    c: int,
    contestants: Sequence[int],
    comparisons: Sequence[PairwiseComparison],
    titles: Mapping[MethodId, str],
    shares: Mapping[int, Share],
) -> list[Cell | None]:
    """The cells of one column, one per method. Contestants get their rank and ties, and the best mean is marked."""
    every = np.ones(len(grid.pair_ids), bool)
    made = _cells(grid, c, every)
    cells = [cell and replace(cell, share=shares.get(m)) for m, cell in enumerate(made)]
    places = ranks_and_ties(comparisons)
    compared = {m: cell for m in contestants if (cell := cells[m]) is not None and cell.compared}
    losses = {m: cell.loss for m, cell in compared.items() if cell.loss is not None}
    best = min(losses.values()) if len(losses) > 1 else None
    for m, loss in losses.items():
        rank, ties = places.get(m, (None, {}))
        named = {titles[grid.methods[other]]: why for other, why in sorted(ties.items())}
        cells[m] = replace(compared[m], best=loss == best, rank=rank, ties=named)
    return cells


def _cells(grid: Grid, c: int, where: np.ndarray) -> list[Cell | None]:
    """The cells of all methods over the pairs `where`, (P,) bool; None for methods for which the metric is absent."""
    there, state, expected = grid.is_there[:, c].tolist(), grid.state[:, c, where], int(where.sum())
    scored, infinite = (state >= INFINITE).sum(axis=1).tolist(), (state == INFINITE).sum(axis=1).tolist()
    compared = grid.compared[:, c].tolist()
    return [
        Cell(made.mean, made.interval, made.n, scored[m], expected, infinite[m], compared[m], loss=made.loss)
        if there[m]
        else None
        for m, made in enumerate(grid.estimates(c, where))
    ]


def _breakdowns(
    grid: Grid, labels: np.ndarray, groups: Sequence[str], order: Sequence[int], titles: Mapping[MethodId, str]
) -> tuple[Breakdown, ...]:
    """One breakdown per column: its cells for each group of pairs.

    Args:
        labels: (P,) text, the group of each pair.
        groups: the groups to show.
        order: the order of the methods.
    """
    masks = [labels == group for group in groups]
    pairs = tuple(int(mask.sum()) for mask in masks)
    found = []
    for c, column in enumerate(grid.columns):
        cells = [_cells(grid, c, mask) for mask in masks]
        rows = tuple(
            (titles[grid.methods[m]], tuple(of_group[m] for of_group in cells)) for m in order if grid.is_there[m, c]
        )
        found.append(Breakdown(column, tuple(groups), pairs, rows))
    return tuple(found)


def _method_row(
    grid: Grid,
    m: int,
    titles: Mapping[MethodId, str],
    record: FileRecord | None,
    cells: tuple[Cell | None, ...],
) -> MethodRow:
    method = grid.methods[m]
    facts = record.method if record else MethodFacts()
    there = grid.row[m] >= 0
    first = grid.row[m][there.argmax(axis=0), np.arange(there.shape[1])]  # one row per pair
    mine = {name: grid.texts(name)[first[first >= 0]] for name in ("notes", "codec")}
    notes = Counter(_note_kind(text) for text in mine["notes"] if text)
    return MethodRow(
        method=method[0],
        revision=method[1],
        title=titles[method],
        role=facts.role,
        summary=facts.summary,
        sees=facts.sees,
        training_seeds=facts.training_seeds,
        command=record.command if record else "",
        codec=", ".join(sorted({str(c) for c in mine["codec"] if c})),
        notes=tuple(sorted(notes.items())),
        cells=cells,
    )


def _note_kind(text: str) -> str:
    """A note with its frame counts replaced by `n`, so that notes of the same kind can be counted.

    For example, `cut from 54 to 50 frames` becomes `cut from n to n frames`.
    """
    return re.sub(r"(?<![\d.])\d+(?= (?:to \d+ )?frames\b(?!/))|(?<=held to )\d+", "n", text)


def _missing_values(grid: Grid, titles: Mapping[MethodId, str]) -> tuple[MissingValues, ...]:
    """The pairs without a value, by method and reason.

    Metrics with the same number of such pairs and the same example share one record.
    """
    failed = grid.state == FAILED
    owners = [grid.methods[m] for m in np.nonzero(failed)[0]]
    names = ["metric", "reason", "pair_id", "detail"]
    rows = grid.table.select(names).take(pa.array(grid.row[failed]))
    found: dict[tuple[MethodId, str, str], list[tuple[str, str]]] = {}
    columns = (rows[name].cast(pa.string()).to_pylist() for name in names)
    for method, metric, reason, pair, detail in zip(owners, *columns, strict=True):
        found.setdefault((method, metric, str(reason)), []).append((pair, detail or ""))
    merged: dict[tuple[str, str, int, str], set[str]] = {}
    for (method, metric, reason), cases in found.items():
        pair, detail = min(cases)
        text = f"{pair}: {detail}" if detail else pair
        merged.setdefault((titles[method], reason, len(cases), text), set()).add(metric)
    return tuple(
        MissingValues(method, tuple(sorted(metrics)), reason, count, detail)
        for (method, reason, count, detail), metrics in sorted(merged.items())
    )


def _differing_keys(table: Table, tables: Sequence[Table]) -> dict[str, str]:
    """The keys and values of `table` for the keys in which the tables of its setting differ."""
    same = [other.key for other in tables if other.key["setting"] == table.key["setting"]]
    return {k: table.key[k] for k in TABLE_KEYS if len({key[k] for key in same}) > 1}
