"""Means, 95% intervals and coverage over result rows. Pure functions on arrays.

Clips of one speaker resemble one another, so the unit of the interval is the speaker: with few of them a bootstrap over
speakers covers far too rarely (about 57% of the time with 2, 78% with 4, where it says 95%). The interval here is
Student's t over a delete-one-speaker jackknife; where every speaker has as many clips it is the textbook t-interval on
speaker means, and it serves ratios and pooled statistics too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

MIN_SPEAKERS = 3  # with fewer the interval is over clips, and says nothing about other speakers
MIN_COVERAGE = 0.5  # a method that scored fewer of the pairs would shrink everybody's common pairs: shown, not compared

Estimator = Callable[[np.ndarray], float]  # indices of the rows that count -> the statistic


@dataclass(frozen=True)
class Interval:
    """A 95% interval. `over` is the unit left out in turn: "speakers", or "clips" of these speakers only."""

    low: float
    high: float
    over: str
    units: int


def mean_interval(
    values: np.ndarray, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> tuple[float, Interval | None]:
    """Mean over clips with its interval.

    Args:
        values: (n,) finite, one a clip.
        speakers: (n,) the clip's speaker.
        level: coverage wanted.

    Returns:
        the mean over clips (each clip with equal weight) and its interval; None for fewer than two clips.
    """
    values = np.asarray(values, float)
    if not np.isfinite(values).all() or values.size == 0:
        raise ValueError("mean_interval needs at least one value, all finite")
    return float(values.mean()), jackknife_interval(lambda keep: float(values[keep].mean()), speakers, level)


def jackknife_interval(
    estimate: Estimator, speakers: Sequence[str] | np.ndarray, level: float = 0.95
) -> Interval | None:
    """Delete-one-unit jackknife interval around `estimate` of all rows.

    SE^2 = (g - 1)/g * sum_k (estimate without unit k - their mean)^2, and the interval is estimate +- t(g - 1) * SE for
    g units (Efron 1982, chapter 3; Student's t for the small g). Units are speakers where there are MIN_SPEAKERS of
    them, else clips.
    """
    speakers = np.asarray(speakers)
    names, codes = np.unique(speakers, return_inverse=True)
    if len(names) >= MIN_SPEAKERS:
        over = "speakers"
    else:
        over, codes = "clips", np.arange(len(speakers))
    units = int(codes.max()) + 1 if len(codes) else 0
    if units < 2:
        return None
    left_out = np.array([estimate(np.flatnonzero(codes != k)) for k in range(units)])
    error = math.sqrt((units - 1) / units * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(stats.t.ppf(0.5 + level / 2, units - 1)) * error
    centre = estimate(np.arange(len(speakers)))
    return Interval(centre - half, centre + half, over, units)


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
