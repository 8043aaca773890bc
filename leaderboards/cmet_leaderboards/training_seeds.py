"""Averages the revisions of a method that differ only in their training seed.

A training with another seed gives other weights, and so other scores. A board therefore shows the mean over the
training seeds of a method, where several are known, and its interval holds for other speakers and other seeds; see
`statistics.seeded_interval`. All seeds have the same weight. A pair has a value if every seed has a value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from cmet_leaderboards.file_record import FileRecord
from cmet_leaderboards.grid import INFINITE, SCORED, Estimate, Grid, MethodId
from cmet_leaderboards.statistics import Difference, Estimator, seeded_difference, seeded_interval


@dataclass(frozen=True)
class SeededGrid(Grid):
    """A grid in which some methods are means over training seeds."""

    single: Grid  # the grid with one method per training seed
    members: tuple[tuple[int, ...], ...]  # for each method, the indices of its seeds in `single`

    def with_methods(self, methods: Sequence[int]) -> SeededGrid:
        made = super().with_methods(methods)
        assert isinstance(made, SeededGrid)
        return replace(made, members=tuple(self.members[m] for m in methods))

    @property
    def is_single(self) -> np.ndarray:
        return np.array([len(some) == 1 for some in self.members], bool)

    def sums(self, c: int) -> dict[str, np.ndarray]:
        """The same as of `Grid`. The sums of a mean over seeds are the means of the seeds' sums."""
        if c not in self._means:
            groups = [list(some) for some in self.members]
            self._means[c] = {
                name: np.stack([sums[some].mean(axis=0) for some in groups])
                for name, sums in self.single.sums(c).items()
            }
        return self._means[c]

    @cached_property
    def _means(self) -> dict[int, dict[str, np.ndarray]]:
        return {}

    def estimate(self, m: int, c: int, keep: np.ndarray, interval: bool = True) -> Estimate:
        if len(self.members[m]) == 1:
            return super().estimate(m, c, keep, interval)
        index = np.flatnonzero(keep & (self.state[m, c] >= self._needed(c)))
        if not len(index):
            return Estimate(None, None, 0)
        whole, values = np.arange(len(index)), self._estimators(m, c, index)
        mean = float(np.mean([value(whole) for value in values]))
        if not np.isfinite(mean):
            return Estimate(None, None, 0)
        found = seeded_interval(values, self.codes[index]) if interval else None
        good = found is not None and np.isfinite([found.low, found.high]).all()
        return Estimate(mean, found if good else None, len(index), self.mean_loss(m, c, index))

    def mean_loss(self, m: int, c: int, index: np.ndarray) -> float:
        if len(self.members[m]) == 1:
            return super().mean_loss(m, c, index)
        whole = np.arange(len(index))
        return float(np.mean([loss(whole) for loss in self._estimators(m, c, index, losses=True)]))

    def difference(self, a: int, b: int, c: int) -> tuple[Difference, int] | None:
        if len(self.members[a]) == len(self.members[b]) == 1:
            return super().difference(a, b, c)
        both = self.use(a, c) & self.use(b, c)
        index = np.flatnonzero(both & (self.state[[a, b], c] >= self._needed(c)).all(axis=0))
        if not len(index):
            return None
        one, two = (self._estimators(m, c, index, losses=True) for m in (a, b))
        found = seeded_difference(one, two, self.codes[index])
        return (found, len(index)) if np.isfinite([found.mean, found.p]).all() else None

    def losses(self, m: int, c: int, index: np.ndarray) -> list[Estimator]:
        return self._estimators(m, c, index, losses=True)

    def _needed(self, c: int) -> int:
        """The lowest state of a pair that is in a statistic."""
        return SCORED if self.pooled(c) is None else INFINITE

    def _estimators(self, m: int, c: int, index: np.ndarray, losses: bool = False) -> list[Estimator]:
        """One function per seed that computes the statistic, or its loss, over some of the pairs `index`."""
        return [self._estimator(seed, c, index, losses) for seed in self.members[m]]

    def _estimator(self, seed: int, c: int, index: np.ndarray, losses: bool) -> Estimator:
        column = self.columns[c]
        if self.pooled(c) is None:
            values = self.single.value[seed, c, index]
            values = column.loss(values) if losses else values
            return lambda keep: float(values[keep].mean())
        pooled = self.single.pooled_estimator(seed, c, index)
        return (lambda keep: float(column.loss(pooled(keep)))) if losses else pooled


def mean_over_seeds(grid: Grid, records: Sequence[FileRecord]) -> tuple[Grid, list[FileRecord]]:
    """The grid and the records in which each method with several training seeds is one method.

    Args:
        grid: a grid with one method per training seed.
        records: the records of the grid's files. A method without a record, or without a training seed, stays as it is.

    Returns:
        the grid and its records. The revision of a mean lists the seeds, such as `seeds 0, 1, 2`.
    """
    groups = _groups(grid, records)
    if len(groups) == len(grid.methods):
        return grid, list(records)
    members = tuple(tuple(grid.methods.index(method) for method in some) for some in groups.values())
    lists = [list(some) for some in members]
    arrays = {
        "value": np.stack([grid.value[some].mean(axis=0) for some in lists]),
        "state": np.stack([grid.state[some].min(axis=0) for some in lists]),
        "row": np.stack([_rows(grid.row[some], grid.state[some]) for some in lists]),
    }
    kept = {name: getattr(grid, name) for name in Grid.__dataclass_fields__}
    merged = SeededGrid(**{**kept, "methods": tuple(groups), **arrays}, single=grid, members=members)
    return merged, _records(groups, records)


def _rows(row: np.ndarray, state: np.ndarray) -> np.ndarray:
    """(S, C, P) rows and states to (C, P) rows: the row of the seed with the lowest state, which states its reason."""
    return np.take_along_axis(row, state.argmin(axis=0)[None], 0)[0]


def _groups(grid: Grid, records: Sequence[FileRecord]) -> dict[MethodId, list[MethodId]]:
    """The methods of the merged grid, sorted, each with its revisions in the order of their seeds."""
    seeds = {(r.key["method"], r.key["revision"]): r.method.training_seeds for r in records}
    by_name: dict[str, list[MethodId]] = {}
    for method in grid.methods:
        if seeds.get(method):
            by_name.setdefault(method[0], []).append(method)
    groups = {method: [method] for method in grid.methods}
    for name, some in by_name.items():
        if len(some) > 1:
            some.sort(key=lambda method: seeds[method])
            groups = {method: group for method, group in groups.items() if method not in some}
            groups[name, f"seeds {', '.join(str(seed) for method in some for seed in seeds[method])}"] = some
    return dict(sorted(groups.items()))


def _records(groups: Mapping[MethodId, Sequence[MethodId]], records: Sequence[FileRecord]) -> list[FileRecord]:
    by_method = {(record.key["method"], record.key["revision"]): record for record in records}
    found = []
    for (name, revision), some in groups.items():
        known = [by_method[method] for method in some if method in by_method]
        if not known:
            continue
        seeds = tuple(seed for record in known for seed in record.method.training_seeds)
        facts = replace(known[0].method, training_seeds=seeds)
        found.append(replace(known[0], key={**known[0].key, "method": name, "revision": revision}, method=facts))
    return found
