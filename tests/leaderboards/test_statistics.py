"""Intervals against scipy, statsmodels-free simulation of their coverage, and the common-pairs rule."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from leaderboards.statistics import common_pairs, jackknife_interval, mean_interval


def test_balanced_speakers_give_scipys_t_interval_on_speaker_means() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3, 1, (5, 8)) + rng.normal(0, 2, (5, 1))
    mean, interval = mean_interval(values.ravel(), np.repeat(list("abcde"), 8))
    by_speaker = values.mean(1)
    low, high = stats.t.interval(0.95, 4, loc=by_speaker.mean(), scale=stats.sem(by_speaker))
    assert interval is not None and interval.over == "speakers" and interval.units == 5
    assert (mean, interval.low, interval.high) == pytest.approx((values.mean(), low, high), rel=1e-12)


def test_one_or_two_speakers_fall_back_to_clips_and_say_so() -> None:
    values = np.random.default_rng(2).normal(size=12)
    _, interval = mean_interval(values, ["a", "b"] * 6)
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert interval is not None and interval.over == "clips"
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert mean_interval(np.array([1.0]), ["a"]) == (1.0, None)


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (9, 7, 5, 3)])
def test_the_interval_covers_as_often_as_it_says(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(3)
    speakers = np.repeat(np.arange(len(sizes)), sizes)
    hits = 0
    for _ in range(1500):
        values = rng.normal(0, 1, len(sizes))[speakers] + rng.normal(0, 1, len(speakers))
        _, interval = mean_interval(values, speakers)
        assert interval is not None
        hits += interval.low <= 0 <= interval.high
    assert 0.92 <= hits / 1500 <= 0.985


def test_pooled_statistics_use_the_same_interval() -> None:
    rng = np.random.default_rng(4)
    error, pixels = rng.uniform(1, 2, 12), rng.uniform(5, 6, 12)
    speakers = np.repeat(list("abcd"), 3)
    interval = jackknife_interval(lambda keep: float(error[keep].sum() / pixels[keep].sum()), speakers)
    # Independent: the linearised (delta method) ratio variance with speakers as clusters, close to the jackknife.
    ratio = error.sum() / pixels.sum()
    residual = (error - ratio * pixels).reshape(4, 3).sum(1)
    delta = np.sqrt(4 / 3 * (residual**2).sum()) / pixels.sum() * stats.t.ppf(0.975, 3)
    assert interval is not None and (interval.high - interval.low) / 2 == pytest.approx(delta, rel=0.02)


def test_common_pairs_leave_out_a_method_that_scored_too_few() -> None:
    scored = {"a": frozenset("1234"), "b": frozenset("234"), "c": frozenset("1"), "d": frozenset()}
    assert common_pairs(scored, 4) == (frozenset("ab"), frozenset("234"))
    assert common_pairs({}, 4) == (frozenset(), frozenset())


def test_values_must_be_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        mean_interval(np.array([1.0, np.inf]), ["a", "b"])
