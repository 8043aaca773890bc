"""Computes means, 95% intervals, paired tests, ranks and coverage. Pure functions on arrays.

Clips of one speaker resemble each other, so the unit of the interval is the speaker. A bootstrap over few speakers
covers too rarely: a 95% interval covers about 57% of the time with 2 speakers, and 78% with 4. The interval here is
Student's t over a delete-one-speaker jackknife. With equally many clips for each speaker it equals the textbook
t-interval on speaker means. It also applies to ratios and pooled statistics. The paired test is the same t on the
difference of two methods. Its p-value can be arbitrarily small; a sign-flip test over 4 speakers cannot go below 2/16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

MIN_SPEAKERS = 3  # with fewer speakers the interval is over clips, and does not extend to other speakers
MIN_COVERAGE = 0.5  # a method with less coverage is shown but not compared: it would leave few common pairs
ALPHA = 0.05  # two methods tie unless the p-value of their difference, with Holm's correction, is below this

Estimator = Callable[[np.ndarray], float]  # indices of rows -> the statistic of these rows


@dataclass(frozen=True)
class Interval:
    """A 95% interval. `over` is the unit that is left out in turn: "speakers", or "clips" of these speakers only."""

    low: float
    high: float
    over: str
    units: int


@dataclass(frozen=True)
class Difference:
    """A paired difference: its estimate, its interval, and the two-sided p-value of no difference by the same t."""

    mean: float
    interval: Interval | None  # None for fewer than two units
    p: float  # 1.0 where there is no interval


def mean_interval(
    values: np.ndarray, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> tuple[float, Interval | None]:
    """The mean over clips with its interval.

    Args:
        values: (n,) finite, one for each clip.
        speakers: (n,) the speaker of each clip: names, or integers of at least 0, which are faster.
        level: the wanted coverage of the interval.

    Returns:
        the mean over clips, each with equal weight, and its interval; None for fewer than two clips.

    Raises:
        ValueError: `values` is empty or not finite.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all() or values.size == 0:
        raise ValueError("mean_interval needs at least one value, all finite")
    centre = float(values.mean())
    return centre, _interval(centre, *_leave_out_means(values, speakers), level)


def jackknife_interval(
    estimate: Estimator, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> Interval | None:
    """The delete-one-unit jackknife interval around `estimate` of all rows.

    SE^2 = (g - 1)/g * sum_k (estimate without unit k - their mean)^2, and the interval is estimate +- t(g - 1) * SE for
    g units (Efron 1982, chapter 3; Student's t because g is small). The units are speakers if there are at least
    MIN_SPEAKERS of them, else clips.
    """
    left_out, over = _leave_out(estimate, speakers)
    return _interval(estimate(np.arange(len(speakers))), left_out, over, level)


def paired_means(a: np.ndarray, b: np.ndarray, speakers: Sequence[str] | np.ndarray) -> Difference:
    """The mean of a - b over clips, with the paired t-test on speaker means.

    The jackknife weights speakers by their number of clips. The test agrees with the interval: p < 0.05 where the
    interval excludes 0.

    Args:
        a: (n,) finite, one for each clip.
        b: as `a`.
        speakers: (n,) the speaker of each clip.

    Raises:
        ValueError: the arrays are empty or not finite.
    """
    d = np.asarray(a, float) - np.asarray(b, float)
    if not np.isfinite(d).all() or d.size == 0:
        raise ValueError("paired_means needs at least one pair, all finite")
    return _difference(float(d.mean()), *_leave_out_means(d, speakers))


def paired_estimates(estimate: Estimator, speakers: Sequence[str] | np.ndarray) -> Difference:
    """As `paired_means`, for the difference of any two statistics of the same rows."""
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
    """The rank of each name: 1 + the number of names that are shown to be better.

    Args:
        names: all names.
        beats: name -> the names that it is better than; all others are ties.
    """
    return {name: 1 + sum(name in beaten for beaten in beats.values()) for name in names}


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orderings of the same items; None where all values of one ordering are equal."""
    x, y = (np.asarray(v, float) for v in (a, b))
    one, two = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    weight = math.sqrt(float((one**2).sum()) * float((two**2).sum()))
    return float((one * two).sum()) / weight if weight else None


def common_pairs(scored: dict[str, frozenset[str]], expected: int) -> tuple[frozenset[str], frozenset[str]]:
    """Which methods are compared, and on which pairs.

    Args:
        scored: method -> ids of the pairs that it has a value for; an infinite value counts as scored.
        expected: number of expected pairs.

    Returns:
        the methods with at least MIN_COVERAGE of the pairs, and the pairs that all of these methods have.
    """
    compared = frozenset(name for name, ids in scored.items() if ids and len(ids) >= MIN_COVERAGE * expected)
    shared = frozenset.intersection(*(scored[name] for name in compared)) if compared else frozenset()
    return compared, shared


def _units(speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, int, str]:
    """The unit of each row, (n,) int; the number of units; and their kind, "speakers" or "clips"."""
    codes = np.asarray(speakers)
    if codes.dtype.kind != "i":
        codes = np.unique(codes, return_inverse=True)[1]
    there = np.bincount(codes) > 0
    names = int(there.sum())
    if names >= MIN_SPEAKERS:
        return (there.cumsum() - 1)[codes], names, "speakers"
    return np.arange(len(codes)), len(codes), "clips"


def _leave_out_means(values: np.ndarray, speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, str]:
    """The means without each unit in turn, (units,), computed from sums in one pass; and the kind of the units."""
    codes, units, over = _units(speakers)
    # Sums of differences from the mean: sums of equal values would differ by rounding, and so have a spread.
    centre = values.mean()
    sums, counts = np.bincount(codes, values - centre, units), np.bincount(codes, minlength=units)
    if units < 2:
        return np.empty(0), over
    return centre + (sums.sum() - sums) / (len(values) - counts), over


def _leave_out(estimate: Estimator, speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, str]:
    """As `_leave_out_means`, for any statistic."""
    codes, units, over = _units(speakers)
    if units < 2:
        return np.empty(0), over
    return np.array([estimate(np.flatnonzero(codes != k)) for k in range(units)]), over


def _error(left_out: np.ndarray) -> float:
    """The standard error of the jackknife."""
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
    # Without variation, any difference other than 0 is certain.
    t = abs(centre) / error if error > 0 else (math.inf if centre else 0.0)
    return Difference(centre, interval, 2 * float(special.stdtr(len(left_out) - 1, -t)))
