"""Stores the result rows of one table in arrays over methods, metrics and pairs, and computes means and differences.

All numbers of a board are computed from these arrays. A million result rows take about fifty megabytes. A mean over
some of the pairs needs only a slice of an array.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from cmet_leaderboards import metric_facts
from cmet_leaderboards.results import Results, codes, grouped
from cmet_leaderboards.row import TABLE_KEYS
from cmet_leaderboards.statistics import (
    Difference,
    Interval,
    Jackknife,
    compared_and_common,
    mean_differences,
    mean_interval,
    mean_intervals,
    paired_means,
    seeded_difference,
    seeded_interval,
)
from talking_face.reasons import Reason

# States of one method, metric and pair, in this order: no row, a row with a reason, an infinite or a finite value.
ABSENT, FAILED, INFINITE, SCORED = range(4)
MethodId = tuple[str, str]  # name, revision
Values = TypeVar("Values", float, np.ndarray)


@dataclass(frozen=True)
class Column:
    """One metric with one signature."""

    metric: str  # name:variant
    signature: str
    higher_is_better: bool
    unit: str
    short_signature: str = ""  # the fields that differ between the signatures of the same metric; or empty
    ideal: float | None = None  # the best value, if it is neither the highest nor the lowest

    @property
    def family(self) -> str:
        return self.metric.split(":")[0]

    @property
    def name(self) -> str:
        """The metric's title, such as `M-LMD` for `m_lmd:eat` and `Emotion leak` for `emotion_leak:fer`."""
        return metric_facts.title(self.metric)

    @property
    def variant(self) -> str:
        return self.metric.partition(":")[2]

    @property
    def details(self) -> tuple[str, ...]:
        """What distinguishes the column from others with its name: variant, unit, and fields of the signature."""
        return tuple(part for part in (self.variant, self.unit, self.short_signature) if part)

    @property
    def limits(self) -> tuple[float, float]:
        """The lowest and the highest possible value; infinite if the metric has no limit."""
        return metric_facts.limits(self.metric)

    @property
    def arrow(self) -> str:
        return f"→{self.ideal:g}" if self.ideal is not None else "↑" if self.higher_is_better else "↓"

    @property
    def direction(self) -> str:
        if self.ideal is not None:
            return f"nearer to {self.ideal:g} is better"
        return "higher is better" if self.higher_is_better else "lower is better"

    def loss(self, values: Values) -> Values:
        """The values as losses, for which lower is better.

        If the metric has an ideal value, the loss is the distance from it. If higher is better, the loss is the
        negative value.
        """
        if self.ideal is not None:
            return abs(values - self.ideal)
        return -values if self.higher_is_better else values


@dataclass(frozen=True)
class Estimate:
    """A statistic over pairs: the mean, or, for a pooled metric, the value that is computed from sums."""

    mean: float | None
    interval: Interval | None
    n: int  # number of pairs from which the statistic is computed
    loss: float | None = None  # lower is better; for a metric with an ideal value, the mean distance from it


@dataclass(frozen=True)
class GridValues:
    """Arrays over methods (M), columns (C) and pairs (P). Methods and pairs are sorted by name, columns by metric."""

    key: Mapping[str, str]
    methods: tuple[MethodId, ...]
    columns: tuple[Column, ...]
    pair_ids: tuple[str, ...]
    speaker: np.ndarray  # (P,) text
    target: np.ndarray  # (P,) target emotion, "" if unknown
    reference: np.ndarray  # (P,) reference emotion, "" if unknown
    seed: np.ndarray  # (P,) int
    truth: tuple[str | None, ...]  # (P,) the ground-truth clip's id
    value: np.ndarray  # (M, C, P) float64; NaN unless SCORED
    state: np.ndarray  # (M, C, P) uint8: ABSENT, FAILED, INFINITE or SCORED
    row: np.ndarray  # (M, C, P) int64, the index of the row in `table`; -1 if ABSENT
    table: pa.Table = field(repr=False)

    def texts(self, name: str) -> np.ndarray:
        """The texts of a column of `table`, (rows,) objects; None for null."""
        if name not in self._texts:
            number, values = codes(self.table[name])
            self._texts[name] = np.array([*values, None], object)[number]
        return self._texts[name]

    @cached_property
    def _texts(self) -> dict[str, np.ndarray]:
        return {}

    @cached_property
    def is_there(self) -> np.ndarray:
        """(M, C) bool: True if a row of the method has the metric."""
        there: np.ndarray = (self.state != ABSENT).any(axis=2)
        return there

    @cached_property
    def compared(self) -> np.ndarray:
        """(M, C) bool: True for the methods that are compared in a column; see `statistics.common_pairs`."""
        return self._common[0]

    @cached_property
    def common(self) -> np.ndarray:
        """(C, P) bool: True for the pairs for which all compared methods of a column have a value."""
        return self._common[1]

    @cached_property
    def _common(self) -> tuple[np.ndarray, np.ndarray]:
        return compared_and_common(self.state >= INFINITE, len(self.pair_ids))

    def use(self, m: int, c: int) -> np.ndarray:
        """(P,) bool: True for the pairs that a method's mean includes.

        If the method is compared, these pairs are the common pairs of the column. If the method is not
        compared, these pairs are all pairs for which the method has a value.
        """
        return self.common[c] if self.compared[m, c] else self.state[m, c] >= INFINITE

    def pooled(self, c: int) -> metric_facts.Pooled | None:
        """The function that computes a pooled metric's value from sums; None if the metric is a mean over pairs."""
        return metric_facts.pooled(self.columns[c].metric)

    def sums(self, c: int) -> dict[str, np.ndarray]:
        """{name: array} of a column's statistics, (M, P) float64 each; 0 if a pair does not have the statistic."""
        if c not in self._sums:
            there = self.row[:, c] >= 0
            rows = pc.take(self.table["stats"], pa.array(self.row[:, c][there])).combine_chunks()
            owner = np.repeat(np.flatnonzero(there.ravel()), np.diff(rows.offsets.to_numpy()))
            number, names = codes(pa.chunked_array([rows.keys]))
            amount = rows.items.to_numpy(zero_copy_only=False)
            totals = np.zeros((len(names), there.size))
            totals[number, owner] = amount
            self._sums[c] = {str(name): total.reshape(there.shape) for name, total in zip(names, totals, strict=True)}
        return self._sums[c]

    @cached_property
    def _sums(self) -> dict[int, dict[str, np.ndarray]]:
        return {}

    def _needed(self, c: int) -> int:
        """The lowest state of a pair that is in a statistic."""
        return SCORED if self.pooled(c) is None else INFINITE

    @property
    def is_single(self) -> np.ndarray:
        """(M,) bool: False for methods that are means over several training seeds."""
        return np.ones(len(self.methods), bool)

    @cached_property
    def codes(self) -> np.ndarray:
        """(P,) int: the number of each pair's speaker."""
        return np.unique(self.speaker, return_inverse=True)[1]

    def pooled_of_sums(self, c: int) -> Callable[[np.ndarray], float]:
        """The pooled statistic as a function of the sums, in the order of `sums`; NaN if it has no value."""
        pooled, names = self.pooled(c), tuple(self.sums(c))
        assert pooled is not None

        def statistic(sums: np.ndarray) -> float:
            value = pooled(dict(zip(names, sums.tolist(), strict=True)))
            return float("nan") if value is None else float(value)

        return statistic


@dataclass(frozen=True)
class Grid(GridValues):
    """The statistics of methods and of differences between them, computed from the values of a table."""

    def with_methods(self, methods: Sequence[int]) -> Grid:
        """A grid with the same pairs and columns, but only the methods with these indices."""
        some = list(methods)
        return replace(
            self,
            methods=tuple(self.methods[m] for m in some),
            value=self.value[some],
            state=self.state[some],
            row=self.row[some],
        )

    def estimate(self, m: int, c: int, keep: np.ndarray, interval: bool = True) -> Estimate:
        """A method's statistic over the pairs that `keep`, (P,) bool, selects and for which the method has a value."""
        index = np.flatnonzero(keep & (self.state[m, c] >= self._needed(c)))
        if not len(index):
            return Estimate(None, None, 0)
        if self.pooled(c) is None and self.is_single[m]:
            values = self.value[m, c, index]
            loss = float(self.columns[c].loss(values).mean())
            if not interval:
                return Estimate(float(values.mean()), None, len(index), loss)
            mean, found = mean_interval(values, self.codes[index])
            return Estimate(mean, found, len(index), loss)
        mean = float(self.whole(m, c, index).mean())
        if not np.isfinite(mean):
            return Estimate(None, None, 0)
        found = seeded_interval(self.jackknife(m, c, index)) if interval else None
        good = found is not None and np.isfinite([found.low, found.high]).all()
        return Estimate(mean, found if good else None, len(index), self.mean_loss(m, c, index))

    def estimates(self, c: int, where: np.ndarray, interval: bool = True) -> list[Estimate]:
        """The `estimate` of every method over its pairs (see `use`) that `where`, (P,) bool, selects."""
        if not where.any():
            return [Estimate(None, None, 0)] * len(self.methods)
        found: dict[int, Estimate] = {}
        index = np.flatnonzero(self.common[c] & where)
        together = np.flatnonzero(self._together[:, c])
        if len(index) and len(together):
            values = self._values(together, c, index)
            losses = self.columns[c].loss(values).mean(axis=1).tolist()
            if interval:
                means = mean_intervals(values, self.codes[index])
            else:
                means = [(mean, None) for mean in values.mean(axis=1).tolist()]
            for m, (mean, between), loss in zip(together.tolist(), means, losses, strict=True):
                found[m] = Estimate(mean, between, len(index), loss)
        every = range(len(self.methods))
        return [found.get(m) or self.estimate(m, c, self.use(m, c) & where, interval) for m in every]

    def _values(self, methods: np.ndarray, c: int, index: np.ndarray) -> np.ndarray:
        """(methods, pairs) values, in the order that makes sums over pairs equal to those of one method alone."""
        return np.take(self.value[methods, c], index, axis=1)

    @cached_property
    def _together(self) -> np.ndarray:
        """(M, C) bool: True for methods whose statistics are means over exactly the common pairs of the column."""
        there = (self.state == SCORED) | ~self.common
        plain = np.array([self.pooled(c) is None for c in range(len(self.columns))], bool)
        return self.compared & there.all(axis=2) & plain & self.is_single[:, None]

    def mean_loss(self, m: int, c: int, index: np.ndarray) -> float:
        """The loss of a method over the pairs with these indices. The method must have a value for all these pairs."""
        if self.pooled(c) is None and self.is_single[m]:
            # math.fsum is exact, so the order of the pairs does not matter. Therefore the ground truth has the same
            # loss in two settings with the same clips.
            return math.fsum(self.columns[c].loss(self.value[m, c, index]).tolist()) / len(index)
        return float(self.whole(m, c, index, losses=True).mean())

    def differences(self, pairs: Sequence[tuple[int, int]], c: int) -> list[tuple[Difference, int] | None]:
        """The `difference` of each of these pairs of methods, all of which are compared in column `c`."""
        found: dict[tuple[int, int], tuple[Difference, int]] = {}
        index = np.flatnonzero(self.common[c])
        together = np.flatnonzero(self._together[:, c])
        place = {m: i for i, m in enumerate(together.tolist())}
        seconds: dict[int, list[int]] = {}
        for a, b in pairs:
            if a in place and b in place and len(index):
                seconds.setdefault(a, []).append(b)
        losses = self.columns[c].loss(self._values(together, c, index))
        for a, others in seconds.items():  # one method at a time, because all pairs of 40 methods need 10 MB per array
            d = losses[place[a]] - losses[[place[b] for b in others]]
            made = mean_differences(d, self.codes[index])
            found |= {(a, b): (one, len(index)) for b, one in zip(others, made, strict=True)}
        return [found.get((a, b)) or self.difference(a, b, c) for a, b in pairs]

    def difference(self, a: int, b: int, c: int) -> tuple[Difference, int] | None:
        """The loss of method `a` minus the loss of method `b`, over their common pairs, and the number of common pairs.

        Returns:
            None if there is no pair for which both methods have a finite value.
        """
        both = self.use(a, c) & self.use(b, c)
        index = np.flatnonzero(both & (self.state[[a, b], c] >= self._needed(c)).all(axis=0))
        if not len(index):
            return None
        if self.pooled(c) is None and self.is_single[[a, b]].all():
            one, two = self.columns[c].loss(self.value[[a, b], c][:, index])
            return paired_means(one, two, self.codes[index]), len(index)
        found = seeded_difference(*(self.jackknife(m, c, index, losses=True) for m in (a, b)))
        return (found, len(index)) if np.isfinite([found.mean, found.p]).all() else None

    def seeds(self, m: int) -> tuple[Grid, list[int]]:
        """A grid in which each training seed of a method is a method of its own, and their indices."""
        return self, [m]

    def whole(self, m: int, c: int, index: np.ndarray, losses: bool = False) -> np.ndarray:
        """(S,) statistic, or its loss, of each training seed of a method over the pairs with these indices."""
        column, (grid, seeds) = self.columns[c], self.seeds(m)
        if self.pooled(c) is None:
            values = np.take(grid.value[seeds, c], index, axis=1)
            return (column.loss(values) if losses else values).mean(axis=1)
        sums, statistic = grid.sums(c).values(), grid.pooled_of_sums(c)
        values = np.array([statistic(np.array([some[seed, index].sum() for some in sums])) for seed in seeds])
        return column.loss(values) if losses else values

    def jackknife(self, m: int, c: int, index: np.ndarray, losses: bool = False) -> Jackknife:
        """`whole`, and the same without each speaker. It is computed once, because a method is compared with many."""
        column, (grid, seeds) = self.columns[c], self.seeds(m)
        if losses and (column.ideal is None or self.pooled(c) is not None):
            return self.jackknife(m, c, index).map(column.loss)
        key = (m, c, losses, index.tobytes())
        if key not in self._jackknives:
            if self.pooled(c) is None:
                values = np.take(grid.value[seeds, c], index, axis=1)
                made = Jackknife.of_means(column.loss(values) if losses else values, self.codes[index])
            else:
                sums = grid.sums(c).values()
                each = [np.array([some[seed, index] for some in sums]) for seed in seeds]
                made = Jackknife.of_sums(each, grid.pooled_of_sums(c), self.codes[index])
            self._jackknives[key] = made
        return self._jackknives[key]

    @cached_property
    def _jackknives(self) -> dict[tuple[int, int, bool, bytes], Jackknife]:
        return {}


def grids(results: Results) -> list[Grid]:
    """One grid for each combination of values of the TABLE_KEYS, sorted by these keys."""
    number, keys = grouped(results.table, TABLE_KEYS)
    table = results.table.drop_columns([*TABLE_KEYS, "n", "intensity"])
    order = np.argsort(number, kind="stable")
    ends = np.cumsum(np.bincount(number, minlength=len(keys)))
    parts = np.split(order, ends[:-1])
    return [
        _grid(dict(zip(TABLE_KEYS, map(str, key), strict=True)), _rows(table, rows))
        for key, rows in zip(keys, parts, strict=True)
    ]


def _rows(table: pa.Table, rows: np.ndarray) -> pa.Table:
    """The rows with these numbers, which increase. Neighbours are not copied."""
    if rows[-1] - rows[0] + 1 == len(rows):
        return table.slice(rows[0], len(rows))
    return table.take(pa.array(rows))


def _grid(key: dict[str, str], table: pa.Table) -> Grid:
    method, methods = grouped(table, ["method", "revision"])
    column, found = grouped(table, ["metric", "signature", "higher_is_better", "unit", "ideal"])
    pair, pair_ids = codes(table["pair_id"])
    columns = _columns(found)
    targets = {emotion for emotion in codes(table["target_emotion"])[1] if emotion}
    emotion_first = bool(targets - {"neutral"})  # the pairs ask for emotions
    order = sorted(range(len(found)), key=lambda i: _column_order(columns[i], emotion_first))
    column = np.argsort(order)[column]
    shape = (len(methods), len(columns), len(pair_ids))
    at = (method, column, pair)
    value, state = np.full(shape, np.nan), np.zeros(shape, np.uint8)
    row = np.full(shape, -1, np.int64)
    row[at] = np.arange(table.num_rows)
    value[at] = table["value"].to_numpy()
    infinite = pc.fill_null(pc.equal(table["reason"].cast(pa.string()), Reason.INFINITE.value), False).to_numpy()
    state[at] = np.where(np.isfinite(value[at]), SCORED, np.where(infinite, INFINITE, FAILED))
    first = table.take(pa.array(np.unique(pair, return_index=True)[1]))

    def text(name: str) -> np.ndarray:
        return np.array([str(v) if v is not None else "" for v in first[name].to_pylist()])

    return Grid(
        key=key,
        methods=tuple((str(name), str(revision)) for name, revision in methods),
        columns=tuple(columns[i] for i in order),
        pair_ids=tuple(map(str, pair_ids)),
        speaker=text("speaker"),
        target=text("target_emotion"),
        reference=text("reference_emotion"),
        seed=first["seed"].to_numpy(),
        truth=tuple(first["ground_truth_clip"].to_pylist()),
        value=value,
        state=state,
        row=row,
        table=table,
    )


def _columns(found: Sequence[tuple[Hashable, ...]]) -> list[Column]:
    """The columns, from tuples of metric, signature, higher_is_better, unit and ideal."""
    several = Counter(metric for metric, *_ in found)
    out = []
    for metric, signature, higher, unit, ideal in found:
        others = [str(other) for name, other, *_ in found if name == metric]
        short = _distinct_fields(str(signature), others) if several[metric] > 1 else ""
        right = float(ideal) if isinstance(ideal, float) else None
        out.append(Column(str(metric), str(signature), bool(higher), str(unit or ""), short, right))
    return out


def _column_order(column: Column, emotion_first: bool) -> tuple[bool, int, str, str]:
    """Sorts columns. If `emotion_first`, metrics that judge the emotion are before all others."""
    later = emotion_first and not metric_facts.judges_emotion(column.metric)
    return later, metric_facts.place(column.metric), column.metric, column.signature


def _distinct_fields(signature: str, others: Sequence[str]) -> str:
    """The fields of a signature that are not in all of the signatures `others`, which include `signature`."""
    shared = set.intersection(*(set(text.split("|")) for text in others))
    return "|".join(part for part in signature.split("|") if part not in shared)
