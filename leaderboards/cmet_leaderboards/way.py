"""Computes how far each method is on the way from the best floor to the ground truth, for each metric of a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from cmet_leaderboards.grid import INFINITE, SCORED, Grid
from cmet_leaderboards.statistics import ALPHA, Share, share_of_estimates, share_of_way


@dataclass(frozen=True)
class Way:
    """The way of one metric. `floor` and `truth` are indices of the grid's methods; None: the grid does not have it."""

    floor: int | None  # the floor with the lowest loss
    truth: int | None  # the ceiling: the ground truth
    p: float | None = None  # of the paired test of the floor against the ground truth
    missing: str = ""  # why no method has a share; else empty
    shares: Mapping[int, Share] = field(default_factory=dict)  # by method, without floor and ground truth


def ways(grid: Grid, roles: Sequence[str]) -> tuple[Way, ...]:
    """The way of each column.

    A share is only given if the paired test finds the best floor worse than the ground truth. Otherwise the metric does
    not separate the two ends of the way, and a share would be a number divided by noise.

    Args:
        roles: the role of each of the grid's methods.
    """
    return tuple(_way(grid, c, roles) for c in range(len(grid.columns)))


def _way(grid: Grid, c: int, roles: Sequence[str]) -> Way:
    compared = [m for m in range(len(roles)) if grid.compared[m, c]]
    losses = {m: grid.estimate(m, c, grid.common[c], interval=False).loss for m in compared}
    floors = {m: loss for m, loss in losses.items() if roles[m] == "floor" and loss is not None}
    truth = next((m for m in compared if roles[m] == "ceiling" and losses[m] is not None), None)
    floor = min(floors, key=lambda m: floors[m]) if floors else None
    if truth is None or floor is None:
        absent = "ground truth" if truth is None else "floor"
        return Way(floor, truth, missing=f"no {absent} has a finite mean here")
    found = grid.difference(floor, truth, c)
    difference = found[0] if found else None
    if difference is None or difference.mean <= 0 or difference.p >= ALPHA:
        p = difference.p if difference else None
        return Way(floor, truth, p, "the best floor is not shown to be worse than the ground truth")
    shares = {m: _share(grid, c, (m, floor, truth)) for m in compared if m not in (floor, truth)}
    return Way(floor, truth, difference.p, shares={m: share for m, share in shares.items() if share is not None})


def _share(grid: Grid, c: int, ends: tuple[int, int, int]) -> Share | None:
    """The share of a method; `ends` are the method, the floor and the ground truth."""
    pooled = grid.pooled(c) is not None
    there = (grid.state[list(ends), c] >= (INFINITE if pooled else SCORED)).all(axis=0)
    index = np.flatnonzero(grid.common[c] & there)
    if not len(index):
        return None
    if pooled or not grid.is_single[list(ends)].all():
        return share_of_estimates(*(grid.jackknife(m, c, index, losses=True) for m in ends))
    method, floor, truth = grid.columns[c].loss(grid.value[list(ends), c][:, index])
    return share_of_way(method, floor, truth, grid.codes[index])
