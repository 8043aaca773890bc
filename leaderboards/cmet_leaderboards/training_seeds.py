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
from cmet_leaderboards.grid import Grid, MethodId


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

    def seeds(self, m: int) -> tuple[Grid, list[int]]:
        return self.single, list(self.members[m])


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
