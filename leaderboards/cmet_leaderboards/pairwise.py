"""Compares every two methods by one metric: paired differences, corrected p-values, ranks and ties."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from cmet_leaderboards.bands import Bands
from cmet_leaderboards.grid import Grid
from cmet_leaderboards.statistics import ALPHA, Interval, holm, ranks


@dataclass(frozen=True)
class PairwiseComparison:
    """The comparison of two methods by one metric, on their common pairs.

    The difference is the loss of the first method minus the loss of the second. If it is below 0, the first method is
    better.
    """

    first: int  # index in the grid's methods
    second: int  # index in the grid's methods
    difference: float
    interval: Interval | None
    n: int  # number of common pairs
    p: float
    p_holm: float  # p after Holm's correction
    band: float  # the metric's noise band; 0 if it is unknown

    @property
    def verdict(self) -> str:
        """Which method is better: "first" or "second". "noise": the difference is inside the noise band. Else "tie"."""
        if self.band and abs(self.difference) <= self.band:
            return "noise"
        if self.p_holm >= ALPHA:
            return "tie"
        return "first" if self.difference < 0 else "second"


def pairwise_comparisons(
    grid: Grid, c: int, contestants: Sequence[int], bands: Bands
) -> tuple[PairwiseComparison, ...]:
    """The comparisons of every two contestants (methods with a rank) in column `c`.

    Contestants with too low coverage are left out. Holm's correction is over all these comparisons.
    """
    return compare_pairs(grid, c, list(itertools.combinations(contestants, 2)), bands)


def compare_pairs(grid: Grid, c: int, pairs: Sequence[tuple[int, int]], bands: Bands) -> tuple[PairwiseComparison, ...]:
    """The comparisons of these pairs of methods in column `c`. Holm's correction is over these comparisons.

    A pair with a method of too low coverage, or without common finite values, is left out.
    """
    compared = grid.compared[:, c].tolist()
    both = [(a, b) for a, b in pairs if compared[a] and compared[b]]
    made = zip(both, grid.differences(both, c), strict=True)
    found = [(a, b, result) for (a, b), result in made if result is not None]
    corrected = holm([result[0].p for *_, result in found])
    band = bands.of(grid.columns[c].signature)
    return tuple(
        PairwiseComparison(a, b, d.mean, d.interval, n, d.p, float(p), band)
        for (a, b, (d, n)), p in zip(found, corrected, strict=True)
    )


def ranks_and_ties(comparisons: Sequence[PairwiseComparison]) -> dict[int, tuple[int, dict[int, str]]]:
    """The rank and the ties of each method in the comparisons of one column.

    Returns:
        {method: (rank, {tied method: "tie" or "noise"})}. The rank is 1 + the number of methods that are significantly
        better.
    """
    names = sorted({m for comparison in comparisons for m in (comparison.first, comparison.second)})
    beats: dict[str, set[str]] = {str(name): set() for name in names}
    ties: dict[int, dict[int, str]] = {name: {} for name in names}
    for comparison in comparisons:
        first, second = comparison.first, comparison.second
        if comparison.verdict in ("tie", "noise"):
            ties[first][second] = ties[second][first] = comparison.verdict
        else:
            better, worse = (first, second) if comparison.verdict == "first" else (second, first)
            beats[str(better)].add(str(worse))
    rank = ranks([str(name) for name in names], {name: frozenset(beaten) for name, beaten in beats.items()})
    return {name: (rank[str(name)], ties[name]) for name in names}
