"""Means, 95% intervals, paired tests, ranks and coverage over result rows. Pure functions on arrays.

Clips of one speaker resemble one another, so the unit of the interval is the speaker: with few of them a bootstrap over
speakers covers far too rarely (about 57% of the time with 2, 78% with 4, where it says 95%). The interval here is
Student's t over a delete-one-speaker jackknife; where every speaker has as many clips it is the textbook t-interval on
speaker means, and it serves ratios and pooled statistics too. The paired test is the same t on the difference of two
methods: its p-value has no lower end, whereas flipping signs over 4 speakers cannot fall below 2/16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

MIN_SPEAKERS = 3  # with fewer the interval is over clips, and says nothing about other speakers
MIN_COVERAGE = 0.5  # a method that scored fewer of the pairs would shrink everybody's common pairs: shown, not compared
ALPHA = 0.05  # two methods tie unless Holm's corrected p-value of their difference is below

Estimator = Callable[[np.ndarray], float]  # indices of the rows that count -> the statistic


@dataclass(frozen=True)
class Interval:
    """A 95% interval. `over` is the unit left out in turn: "speakers", or "clips" of these speakers only."""

    low: float
    high: float
    over: str
    units: int


@dataclass(frozen=True)
class Difference:
    """A paired difference: its estimate, interval, and the two-sided p-value of "none" by the same t."""

    mean: float
    interval: Interval | None  # None for fewer than two units
    p: float  # 1.0 where there is no interval


def mean_interval(
    values: np.ndarray, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> tuple[float, Interval | None]:
    """Mean over clips with its interval.

    Args:
        values: (n,) finite, one a clip.
        speakers: (n,) the clip's speaker: names, or integers of at least 0 (faster).
        level: coverage wanted.

    Returns:
        the mean over clips (each clip with equal weight) and its interval; None for fewer than two clips.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all() or values.size == 0:
        raise ValueError("mean_interval needs at least one value, all finite")
    centre = float(values.mean())
    return centre, _interval(centre, *_leave_out_means(values, speakers), level)


def jackknife_interval(
    estimate: Estimator, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> Interval | None:
    """Delete-one-unit jackknife interval around `estimate` of all rows.

    SE^2 = (g - 1)/g * sum_k (estimate without unit k - their mean)^2, and the interval is estimate +- t(g - 1) * SE for
    g units (Efron 1982, chapter 3; Student's t for the small g). Units are speakers where there are MIN_SPEAKERS of
    them, else clips.
    """
    left_out, over = _leave_out(estimate, speakers)
    return _interval(estimate(np.arange(len(speakers))), left_out, over, level)


def paired_means(a: np.ndarray, b: np.ndarray, speakers: Sequence[str] | np.ndarray) -> Difference:
    """Mean of a - b over clips, (n,) each and finite: the paired t-test on speaker means (speakers of unequal size
    count by their clips, through the jackknife). Agrees with the interval: p < 0.05 where that excludes 0."""
    d = np.asarray(a, float) - np.asarray(b, float)
    if not np.isfinite(d).all() or d.size == 0:
        raise ValueError("paired_means needs at least one pair, all finite")
    return _difference(float(d.mean()), *_leave_out_means(d, speakers))


def paired_estimates(estimate: Estimator, speakers: Sequence[str] | np.ndarray) -> Difference:
    """As `paired_means` for a difference of any two statistics of the same rows."""
    return _difference(estimate(np.arange(len(speakers))), *_leave_out(estimate, speakers))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's (1979) step-down correction: (n,) p-values to (n,) corrected ones, monotone, at most 1."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, steps)
    return out


def ranks(names: Sequence[str], beats: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """1 + how many are shown to be better. `beats`: name -> the names it is better than; all others are ties."""
    return {name: 1 + sum(name in beaten for beaten in beats.values()) for name in names}


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orderings of the same things; None where one of them does not order at all."""
    x, y = (np.asarray(v, float) for v in (a, b))
    one, two = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    weight = math.sqrt(float((one**2).sum()) * float((two**2).sum()))
    return float((one * two).sum()) / weight if weight else None


def common_pairs(scored: dict[str, frozenset[str]], expected: int) -> tuple[frozenset[str], frozenset[str]]:
    """Which methods are compared, and on which pairs.

    Args:
        scored: method -> ids of the pairs it has a value for; an infinite value counts as scored.
        expected: pairs there should be.

    Returns:
        (methods with at least MIN_COVERAGE of the pairs, the pairs that all of them have).
    """
    compared = frozenset(name for name, ids in scored.items() if ids and len(ids) >= MIN_COVERAGE * expected)
    shared = frozenset.intersection(*(scored[name] for name in compared)) if compared else frozenset()
    return compared, shared


def _units(speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, int, str]:
    """(unit of each row, how many there are, what they are)."""
    codes = np.asarray(speakers)
    if codes.dtype.kind != "i":
        codes = np.unique(codes, return_inverse=True)[1]
    there = np.bincount(codes) > 0
    names = int(there.sum())
    if names >= MIN_SPEAKERS:
        return (there.cumsum() - 1)[codes], names, "speakers"
    return np.arange(len(codes)), len(codes), "clips"


def _leave_out_means(values: np.ndarray, speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, str]:
    """The mean without each unit in turn, from sums: one pass, whatever the number of units."""
    codes, units, over = _units(speakers)
    # About the mean: without it, the sums of equal values would differ by rounding, and so have a spread.
    centre = values.mean()
    sums, counts = np.bincount(codes, values - centre, units), np.bincount(codes, minlength=units)
    if units < 2:
        return np.empty(0), over
    return centre + (sums.sum() - sums) / (len(values) - counts), over


def _leave_out(estimate: Estimator, speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, str]:
    codes, units, over = _units(speakers)
    if units < 2:
        return np.empty(0), over
    return np.array([estimate(np.flatnonzero(codes != k)) for k in range(units)]), over


def _error(left_out: np.ndarray) -> float:
    """The jackknife's standard error."""
    units = len(left_out)
    return math.sqrt((units - 1) / units * float(((left_out - left_out.mean()) ** 2).sum()))


def _interval(centre: float, left_out: np.ndarray, over: str, level: float = 0.95) -> Interval | None:
    units = len(left_out)
    if units < 2:
        return None
    half = float(special.stdtrit(units - 1, 0.5 + level / 2)) * _error(left_out)
    return Interval(centre - half, centre + half, over, units)


def _difference(centre: float, left_out: np.ndarray, over: str) -> Difference:
    interval = _interval(centre, left_out, over)
    if interval is None:
        return Difference(centre, None, 1.0)
    error = _error(left_out)
    # Nothing varies: the same difference on every unit is no accident, unless it is none.
    t = abs(centre) / error if error > 0 else (math.inf if centre else 0.0)
    return Difference(centre, interval, 2 * float(special.stdtr(len(left_out) - 1, -t)))
