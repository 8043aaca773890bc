"""Finds which methods a table's paired tests show to be better, and which methods no metric separates.

The tests are those of the ranks: two methods are compared on their common pairs, with Holm's correction over all
comparisons by the same metric. A second correction is over all comparisons of the table, by every metric. A ceiling has
no rank, so its comparisons with the methods have corrections of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cmet_leaderboards.bands import Bands
from cmet_leaderboards.grid import Column, Grid, MethodId
from cmet_leaderboards.pairwise import PairwiseComparison, compare_pairs
from cmet_leaderboards.statistics import ALPHA, Interval, holm


@dataclass(frozen=True)
class Finding:
    """One method is better than another by one metric: the test shows it, and the difference exceeds the noise band."""

    column: Column
    better: MethodId
    worse: MethodId
    by: float  # how much lower the loss of the better method is; above 0
    interval: Interval | None  # 95% interval of `by`, without correction
    p: float  # after Holm's correction over the comparisons by this metric
    p_table: float  # after Holm's correction over all comparisons of the table

    @property
    def holds_in_table(self) -> bool:
        """Whether the difference also holds after the correction over the comparisons by all metrics."""
        return self.p_table < ALPHA


@dataclass(frozen=True)
class Family:
    """Comparisons of two methods by every metric of a table."""

    findings: tuple[Finding, ...]  # in the order of the columns, then the smallest p first
    together: tuple[tuple[MethodId, MethodId], ...]  # compared by at least one metric, and separated by none
    compared: tuple[tuple[Column, int], ...]  # each metric with comparisons, and their number

    @property
    def comparisons(self) -> int:
        return sum(count for _, count in self.compared)


@dataclass(frozen=True)
class Answer:
    """What the tests of a table show."""

    ranked: Family  # the methods with a rank: methods and floors
    ceiling: Family  # each ceiling with each method


def answer(
    grid: Grid, comparisons: Mapping[int, Sequence[PairwiseComparison]], roles: Sequence[str], bands: Bands
) -> Answer:
    """The answer of one table.

    Args:
        grid: the result rows of the table.
        comparisons: {index of the column: the comparisons of its ranked methods}.
        roles: the role of each of the grid's methods.
        bands: noise bands; a difference inside its band shows nothing.
    """
    pairs = [
        (a, b) for a, one in enumerate(roles) if one == "ceiling" for b, two in enumerate(roles) if two == "method"
    ]
    ceiling = {c: compare_pairs(grid, c, pairs, bands) for c in comparisons}
    return Answer(_family(grid, comparisons), _family(grid, ceiling))


def _family(grid: Grid, comparisons: Mapping[int, Sequence[PairwiseComparison]]) -> Family:
    every = [(c, one) for c, found in sorted(comparisons.items()) for one in found]
    p_table = holm([one.p for _, one in every])
    findings: list[tuple[int, Finding]] = []
    pairs: dict[tuple[MethodId, MethodId], bool] = {}  # whether a metric separates them
    for (c, one), p in zip(every, p_table, strict=True):
        names = grid.methods[one.first], grid.methods[one.second]
        separated = one.verdict in ("first", "second")
        pairs[names] = pairs.get(names, False) or separated
        if separated:
            findings.append((c, _finding(grid.columns[c], one, names, float(p))))
    findings.sort(key=lambda item: (item[0], item[1].p, item[1].better, item[1].worse))
    return Family(
        tuple(finding for _, finding in findings),
        tuple(names for names, separated in pairs.items() if not separated),
        tuple((grid.columns[c], len(found)) for c, found in sorted(comparisons.items()) if found),
    )


def _finding(column: Column, one: PairwiseComparison, names: tuple[MethodId, MethodId], p_table: float) -> Finding:
    better, worse = names if one.verdict == "first" else names[::-1]
    ends = one.interval
    if ends is not None and one.verdict == "first":
        ends = replace(ends, low=-ends.high, high=-ends.low)
    return Finding(column, better, worse, abs(one.difference), ends, one.p_holm, p_table)
