"""Computes means, 95% intervals, paired tests, ranks and common pairs, with pure functions on arrays.

Clips of the same speaker are similar to each other, so the intervals are over speakers and not over clips. A bootstrap
over few speakers gives intervals that are too short: its 95% interval contains the true value in about 57% of cases
with 2 speakers and in 78% with 4. Therefore the interval uses Student's t with a jackknife that leaves out one speaker
at a time. If all speakers have equally many clips, this interval equals the usual t-interval on speaker means. The
jackknife can also be used for ratios and pooled statistics.

The paired test applies the same t and jackknife to the difference between two methods. Its p-value can be arbitrarily
small. The p-value of a sign-flip test over 4 speakers cannot be smaller than 2/16.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import numpy as np
from scipy import special

MIN_SPEAKERS = 3  # with fewer speakers, the interval is over clips and is not valid for other speakers
MIN_COVERAGE = 0.5  # a method with less coverage is not compared, because it would leave few common pairs
ALPHA = 0.05  # two methods tie if the p-value of their difference, after Holm's correction, is not below it

Estimator = Callable[[np.ndarray], float]  # indices of rows -> the statistic of these rows


@dataclass(frozen=True)
class Interval:
    """A 95% interval.

    `over` is the unit that the jackknife leaves out: "speakers" or "clips". An interval over clips is valid only for
    the speakers of these clips. If `seeds` is above 1, the interval also is over the training seeds of a method.
    """

    low: float
    high: float
    over: str
    units: int  # number of speakers or clips
    seeds: int = 1  # number of training seeds over which the interval is, too

    @property
    def half(self) -> float:
        """Half of the length."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference:
    """A paired difference: its estimate, its interval, and the two-sided p-value of a t-test against no difference."""

    mean: float
    interval: Interval | None  # None if there are fewer than two units
    p: float  # 1.0 if there is no interval


@dataclass(frozen=True)
class Jackknife:
    """The estimates of a statistic for S training seeds: of all rows, and without each of K units."""

    whole: np.ndarray  # (S,)
    left_out: np.ndarray  # (S, K); K is 0 if there are fewer than two units
    over: str  # the kind of the units: "speakers" or "clips"

    @classmethod
    def of(cls, estimates: Sequence[Estimator], speakers: Sequence[str] | np.ndarray) -> Jackknife:
        """From one function per seed, over rows with these speakers."""
        codes, units, over = _units(speakers)
        keeps = [np.flatnonzero(codes != k) for k in range(units)] if units > 1 else []
        left_out = np.array([[one(keep) for keep in keeps] for one in estimates], float)
        return cls(np.array([one(np.arange(len(codes))) for one in estimates]), left_out, over)

    @classmethod
    def of_means(cls, values: np.ndarray, speakers: Sequence[str] | np.ndarray) -> Jackknife:
        """Of the means over the rows of `values`, (S, n): one line per seed."""
        left_out, over = _reduced_without(values, speakers, lambda some: some.mean(axis=-1))
        return cls(np.ascontiguousarray(values, float).mean(axis=1), left_out, over)

    @classmethod
    def of_sums(
        cls, values: Sequence[np.ndarray], statistic: Callable[[np.ndarray], float], speakers: np.ndarray
    ) -> Jackknife:
        """Of a statistic of sums over rows. `values`: for each seed (R, n), of which the statistic takes the R sums."""
        whole = np.array([statistic(np.ascontiguousarray(some).sum(axis=1)) for some in values])
        found = [_reduced_without(some, speakers, lambda part: part.sum(axis=-1)) for some in values]
        left_out = [[statistic(sums) for sums in without.T] for without, _ in found]
        return cls(whole, np.array(left_out, float), found[0][1])

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(self.whole.mean())

    @cached_property
    def mean_left_out(self) -> np.ndarray:
        """(K,) means over the seeds, without each unit."""
        means: np.ndarray = np.ascontiguousarray(self.left_out.T).mean(axis=1)
        return means

    def map(self, change: Callable[[np.ndarray], np.ndarray]) -> Jackknife:
        """The estimates after a function of arrays."""
        return replace(self, whole=change(self.whole), left_out=change(self.left_out))


@dataclass(frozen=True)
class Share:
    """How far a method is on the way from a floor to the ground truth: 0 at the floor, 1 at the ground truth.

    The value is below 0 if the method is worse than the floor.
    """

    value: float
    interval: Interval | None  # None if there are fewer than two units


def mean_interval(
    values: np.ndarray, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> tuple[float, Interval | None]:
    """The mean over clips and its interval.

    Args:
        values: (n,) finite, one value per clip.
        speakers: (n,) the speaker of each clip: names, or integers of at least 0. Integers are faster.
        level: the probability with which the interval should contain the true mean.

    Returns:
        the mean, in which all clips have equal weight, and its interval. The interval is None if there are fewer than
        two clips.

    Raises:
        ValueError: `values` is empty or not finite.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all() or values.size == 0:
        raise ValueError("mean_interval needs at least one value, all finite")
    return mean_intervals(values[None], speakers, level)[0]


def mean_intervals(
    values: np.ndarray, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> list[tuple[float, Interval | None]]:
    """`mean_interval` of each row of `values`, (R, n), finite, n of at least 1. All rows have the same speakers."""
    values = np.ascontiguousarray(values, float)
    centres = values.mean(axis=1)
    left_out, over = _leave_out_means(values, speakers)
    return list(zip(centres.tolist(), _intervals(centres, left_out, over, level), strict=True))


def jackknife_interval(
    estimate: Estimator, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> Interval | None:
    """The delete-one-unit jackknife interval around `estimate` of all rows.

    For g units, let e_k be the estimate without unit k. Then SE^2 = (g - 1)/g * sum_k (e_k - mean of all e_k)^2, and
    the interval is estimate +- t(g - 1) * SE (Efron 1982, chapter 3). Student's t is used because g is small. The units
    are speakers if there are at least MIN_SPEAKERS speakers, else clips.
    """
    return seeded_interval(Jackknife.of([estimate], speakers), level)


def paired_means(a: np.ndarray, b: np.ndarray, speakers: Sequence[str] | np.ndarray) -> Difference:
    """The mean of a - b over clips, with the paired t-test on speaker means.

    The jackknife weights each speaker by its number of clips. The test agrees with the interval: p < 0.05 if the
    interval excludes 0.

    Args:
        a: (n,) finite, one value per clip.
        b: (n,) finite, the values of the other method for the same clips.
        speakers: (n,) the speaker of each clip.

    Raises:
        ValueError: the arrays are empty or not finite.
    """
    d = np.asarray(a, float) - np.asarray(b, float)
    if not np.isfinite(d).all() or d.size == 0:
        raise ValueError("paired_means needs at least one pair, all finite")
    return mean_differences(d[None], speakers)[0]


def mean_differences(d: np.ndarray, speakers: Sequence[str] | np.ndarray) -> list[Difference]:
    """`paired_means` of each row of differences `d`, (R, n), finite, n of at least 1, with the same speakers."""
    d = np.ascontiguousarray(d, float)
    return _differences(d.mean(axis=1), *_leave_out_means(d, speakers))


def paired_estimates(estimate: Estimator, speakers: Sequence[str] | np.ndarray) -> Difference:
    """The same as `paired_means`, for any estimate of a difference between two statistics of the same rows."""
    found = Jackknife.of([estimate], speakers)
    return _differences(found.whole, found.left_out, found.over)[0]


def share_of_way(
    method: np.ndarray, floor: np.ndarray, truth: np.ndarray, speakers: Sequence[str] | np.ndarray
) -> Share | None:
    """The share (F - M)/(F - T) of the means F of a floor, M of a method and T of the ground truth.

    The interval is the jackknife of `jackknife_interval`: each step leaves one speaker out of all three means. It is
    valid only if F - T clearly differs from 0, so call this function only if a test finds the floor worse.

    Args:
        method, floor, truth: (n,) finite losses, where lower is better, one per clip, of the same clips.
        speakers: (n,) the speaker of each clip.

    Returns:
        None if the floor is not worse than the ground truth, with all speakers and without any one of them.

    Raises:
        ValueError: the arrays are empty or not finite.
    """
    losses = np.array([method, floor, truth], float)
    if not np.isfinite(losses).all() or losses.size == 0:
        raise ValueError("share_of_way needs at least one clip, all losses finite")
    return _share(losses.mean(axis=1), *_leave_out_means(losses, speakers))


def share_of_estimates(method: Jackknife, floor: Jackknife, truth: Jackknife) -> Share | None:
    """The same as `share_of_way`, for any three losses of the same rows, each with one estimate per training seed.

    A loss is the mean over its seeds. As in `seeded_interval`, the variance over the seeds of each loss is added.
    """
    sides = (method, floor, truth)
    centres, whole = [side.mean for side in sides], [side.whole for side in sides]
    (m, f, t), (ms, fs, ts) = centres, whole
    method_out, floor_out, truth_out = left_out = np.array([side.mean_left_out for side in sides])
    found = _share(np.array(centres), left_out, method.over)
    if found is None or max(map(len, whole)) == 1:
        return found
    seeds = [(f - ms) / (f - t), (fs - m) / (fs - t), (f - m) / (f - ts)]
    shares = (floor_out - method_out) / (floor_out - truth_out)
    return Share(found.value, _summed_interval(found.value, shares, method.over, seeds))


def seeded_interval(estimates: Jackknife, level: float = 0.95) -> Interval | None:
    """The interval of the mean over training seeds, for other speakers and other seeds.

    The variance is the sum of two parts: the jackknife variance over speakers of the mean over seeds, and the variance
    over seeds, s^2/S, of the estimates of all speakers. The degrees of freedom of the sum are Satterthwaite's (1946).
    Both parts contain the interaction of speakers and seeds, so the interval is rather too long than too short. With
    one seed, this is `jackknife_interval`.

    Args:
        estimates: the estimates of each seed.
        level: the probability with which the interval should contain the true mean.
    """
    if len(estimates.whole) == 1:
        return _intervals(estimates.whole, estimates.left_out, estimates.over, level)[0]
    return _summed_interval(estimates.mean, estimates.mean_left_out, estimates.over, [estimates.whole], level)


def seeded_difference(first: Jackknife, second: Jackknife) -> Difference:
    """The difference between two methods, of which each can be a mean over training seeds.

    The test is that of `paired_estimates` with the variance over the seeds of each method added, as in
    `seeded_interval`. Seeds of two methods are not paired.
    """
    if len(first.whole) == len(second.whole) == 1:
        return _differences(first.whole - second.whole, first.left_out - second.left_out, first.over)[0]
    left_out, centre = first.mean_left_out - second.mean_left_out, first.mean - second.mean
    seeds = [first.whole, second.whole]
    interval = _summed_interval(centre, left_out, first.over, seeds)
    if interval is None:
        return Difference(centre, None, 1.0)
    variance, freedom = _summed_variance(left_out, seeds)
    t = abs(centre) / math.sqrt(variance) if variance > 0 else (math.inf if centre else 0.0)
    return Difference(centre, interval, 2 * float(special.stdtr(freedom, -t)))


def holm(p: Sequence[float] | np.ndarray) -> np.ndarray:
    """Holm's (1979) step-down correction: (n,) p-values to (n,) corrected p-values, in the same order, at most 1."""
    p = np.asarray(p, float)
    order = np.argsort(p, kind="stable")
    steps = np.maximum.accumulate(p[order] * (len(p) - np.arange(len(p))))
    out = np.empty(len(p))
    out[order] = np.minimum(1.0, steps)
    return out


def ranks(names: Sequence[str], beats: Mapping[str, frozenset[str]]) -> dict[str, int]:
    """The rank of each name: 1 + the number of names that are significantly better.

    Args:
        names: all names.
        beats: {name: the names that it is significantly better than}.
    """
    return {name: 1 + sum(name in beaten for beaten in beats.values()) for name in names}


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Kendall's tau-b of two orderings of the same items; None if all values of one ordering are equal."""
    x, y = (np.asarray(v, float) for v in (a, b))
    one, two = (np.sign(v[:, None] - v[None, :]) for v in (x, y))
    weight = math.sqrt(float((one**2).sum()) * float((two**2).sum()))
    return float((one * two).sum()) / weight if weight else None


def common_pairs(scored: dict[str, frozenset[str]], expected: int) -> tuple[frozenset[str], frozenset[str]]:
    """Which methods are compared, and on which pairs.

    Args:
        scored: {method: ids of the pairs for which it has a finite or infinite value}.
        expected: number of expected pairs.

    Returns:
        the methods with values for at least MIN_COVERAGE of the pairs, and the pairs for which all of these methods
        have a value.
    """
    names, ids = list(scored), sorted(set[str]().union(*scored.values()))
    has = np.array([[one in scored[name] for one in ids] for name in names], bool).reshape(len(names), 1, len(ids))
    compared, shared = compared_and_common(has, expected)
    return frozenset(np.array(names, object)[compared[:, 0]]), frozenset(np.array(ids, object)[shared[0]])


def compared_and_common(has: np.ndarray, expected: int) -> tuple[np.ndarray, np.ndarray]:
    """The rule of `common_pairs` for several columns at once.

    Args:
        has: (M, C, P) bool: True if a method has a finite or infinite value of a column for a pair.
        expected: number of expected pairs.

    Returns:
        (M, C) bool, the methods that are compared; and (C, P) bool, their common pairs.
    """
    scored = has.sum(axis=2)
    compared = (scored > 0) & (scored >= MIN_COVERAGE * expected)
    common = (has | ~compared[:, :, None]).all(axis=0) & compared.any(axis=0)[:, None]
    return compared, common


def _units(speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, int, str]:
    """The unit of each row as (n,) int, the number of units, and the kind of the units ("speakers" or "clips")."""
    codes = np.asarray(speakers)
    if codes.dtype.kind != "i":
        codes = np.unique(codes, return_inverse=True)[1]
    there = np.bincount(codes) > 0
    names = int(there.sum())
    if names >= MIN_SPEAKERS:
        return (there.cumsum() - 1)[codes], names, "speakers"
    return np.arange(len(codes)), len(codes), "clips"


def _leave_out_means(values: np.ndarray, speakers: Sequence[str] | np.ndarray) -> tuple[np.ndarray, str]:
    """(R, units) means of the rows (R, n), each without one unit, computed from sums; and the kind of the units."""
    codes, units, over = _units(speakers)
    rows, n = values.shape
    if units < 2:
        return np.empty((rows, 0)), over
    # Add up differences from the mean, not the values: the rounding errors in sums of the values would make equal
    # values seem to vary.
    centre = values.mean(axis=1, keepdims=True)
    cells = (codes + units * np.arange(rows)[:, None]).ravel()
    sums = np.bincount(cells, (values - centre).ravel(), rows * units).reshape(rows, units)
    counts = np.bincount(codes, minlength=units)
    return centre + (sums.sum(axis=1, keepdims=True) - sums) / (n - counts), over


def _reduced_without(
    values: np.ndarray, speakers: Sequence[str] | np.ndarray, reduce: Callable[[np.ndarray], np.ndarray]
) -> tuple[np.ndarray, str]:
    """(S, K) results of `reduce`, which works along the last axis of (S, n), without each unit; the kind of units."""
    values = np.ascontiguousarray(values, float)
    codes, units, over = _units(speakers)
    n = len(codes)
    if units < 2:
        return np.empty((len(values), 0)), over
    if over == "clips":  # all units at once: (n, n - 1) indices
        keep = np.arange(n - 1) + (np.arange(n - 1) >= np.arange(n)[:, None])
        return reduce(np.take(values, keep, axis=1)), over
    keeps = (np.flatnonzero(codes != k) for k in range(units))
    return np.array([reduce(np.take(values, keep, axis=1)) for keep in keeps]).T, over


def _errors(left_out: np.ndarray) -> np.ndarray:
    """(R,) standard errors of the jackknife, from (R, units) estimates."""
    units = left_out.shape[1]
    return np.sqrt((units - 1) / units * ((left_out - left_out.mean(axis=1, keepdims=True)) ** 2).sum(axis=1))


def _error(left_out: np.ndarray) -> float:
    """The standard error of one jackknife."""
    return float(_errors(left_out[None])[0])


@lru_cache(maxsize=1024)
def _t_value(freedom: float, level: float) -> float:
    """The factor of the standard error in an interval."""
    return float(special.stdtrit(freedom, 0.5 + level / 2))


def _intervals(centres: np.ndarray, left_out: np.ndarray, over: str, level: float = 0.95) -> list[Interval | None]:
    """The intervals around (R,) estimates from (R, units) estimates without each unit."""
    units = left_out.shape[1]
    if units < 2:
        return [None] * len(centres)
    half = _t_value(units - 1, level) * _errors(left_out)
    ends = zip((centres - half).tolist(), (centres + half).tolist(), strict=True)
    return [Interval(low, high, over, units) for low, high in ends]


def _differences(centres: np.ndarray, left_out: np.ndarray, over: str) -> list[Difference]:
    units = left_out.shape[1]
    if units < 2:
        return [Difference(centre, None, 1.0) for centre in centres.tolist()]
    errors = _errors(left_out)
    # If the estimates do not vary, any difference other than 0 is certain.
    certain = np.where(centres != 0, np.inf, 0.0)
    t = np.divide(np.abs(centres), errors, out=certain, where=errors > 0)
    p = 2 * special.stdtr(units - 1, -t)
    found = zip(centres.tolist(), _intervals(centres, left_out, over), p.tolist(), strict=True)
    return [Difference(*one) for one in found]


def _share(centres: np.ndarray, left_out: np.ndarray, over: str) -> Share | None:
    """The share from the losses (3,) of method, floor and ground truth, and these losses without each unit, (3, g)."""
    method, floor, truth = np.column_stack([centres, left_out])
    if not np.isfinite(method).all() or not (floor > truth).all():
        return None
    shares = (floor - method) / (floor - truth)
    value = float(shares[0])
    return Share(value, _intervals(shares[:1], shares[None, 1:], over)[0])


def _summed_variance(left_out: np.ndarray, seeds: Sequence[np.ndarray]) -> tuple[float, float]:
    """The variance over units plus the variances over the seeds of each method, and Satterthwaite's freedom."""
    several = [one for one in seeds if len(one) > 1]
    variances = [_error(left_out) ** 2, *(float(one.var(ddof=1)) / len(one) for one in several)]
    freedoms = [len(left_out) - 1, *(len(one) - 1 for one in several)]
    total = sum(variances)
    rest = sum(variance**2 / freedom for variance, freedom in zip(variances, freedoms, strict=True))
    return total, total**2 / rest if rest > 0 else float(freedoms[0])


def _summed_interval(
    centre: float, left_out: np.ndarray, over: str, seeds: Sequence[np.ndarray], level: float = 0.95
) -> Interval | None:
    units = len(left_out)
    if units < 2:
        return None
    variance, freedom = _summed_variance(left_out, seeds)
    half = _t_value(freedom, level) * math.sqrt(variance)
    return Interval(centre - half, centre + half, over, units, max(map(len, seeds)))
