"""Tests intervals against scipy and by simulation of their coverage, paired tests, and the rule of common pairs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from cmet_leaderboards.statistics import (
    Interval,
    Jackknife,
    Share,
    common_pairs,
    holm,
    jackknife_interval,
    kendall_tau,
    mean_differences,
    mean_interval,
    mean_intervals,
    paired_estimates,
    paired_means,
    ranks,
    share_of_estimates,
    share_of_way,
)


def test_balanced_speakers_give_scipys_t_interval_on_speaker_means() -> None:
    rng = np.random.default_rng(1)
    values = rng.normal(3, 1, (5, 8)) + rng.normal(0, 2, (5, 1))
    mean, interval = mean_interval(values.ravel(), np.repeat(list("abcde"), 8))
    by_speaker = values.mean(1)
    low, high = stats.t.interval(0.95, 4, loc=by_speaker.mean(), scale=stats.sem(by_speaker))
    assert interval is not None and interval.over == "speakers" and interval.units == 5
    assert (mean, interval.low, interval.high) == pytest.approx((values.mean(), low, high), rel=1e-12)


def test_one_or_two_speakers_give_an_interval_over_clips() -> None:
    values = np.random.default_rng(2).normal(size=12)
    _, interval = mean_interval(values, ["a", "b"] * 6)
    low, high = stats.t.interval(0.95, 11, loc=values.mean(), scale=stats.sem(values))
    assert interval is not None and interval.over == "clips"
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-12)
    assert mean_interval(np.array([1.0]), ["a"]) == (1.0, None)


@pytest.mark.parametrize("sizes", [(6, 6, 6, 6), (9, 7, 5, 3)])
def test_the_interval_has_its_nominal_coverage(sizes: tuple[int, ...]) -> None:
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


def test_paired_means_is_the_paired_t_test_on_speaker_means() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.8, 1, (6, 4)), rng.normal(0, 1, (6, 4))
    found = paired_means(a.ravel(), b.ravel(), np.repeat(np.arange(6), 4))
    expected = stats.ttest_rel(a.mean(1), b.mean(1))
    low, high = expected.confidence_interval(0.95)
    assert found.interval is not None
    assert (found.p, found.interval.low, found.interval.high) == pytest.approx((expected.pvalue, low, high), rel=1e-10)
    again = paired_estimates(lambda keep: float((a - b).ravel()[keep].mean()), np.repeat(np.arange(6), 4))
    assert (again.mean, again.p) == pytest.approx((found.mean, found.p), rel=1e-10)


def test_four_speakers_can_decide_at_holms_threshold_and_do_so_rarely_by_chance() -> None:
    rng = np.random.default_rng(6)
    speakers = np.repeat(np.arange(4), 8)
    sure = paired_means(rng.normal(3, 0.1, 32), np.zeros(32), speakers)
    assert sure.p < 0.05 / 66  # 12 methods make 66 pairs; a sign-flip test over 4 speakers cannot go below 2/16
    hits = 0
    for _ in range(1500):
        values = rng.normal(0, 1, 4)[speakers] + rng.normal(0, 1, 32)
        hits += paired_means(values, np.zeros(32), speakers).p < 0.05
    assert 0.035 <= hits / 1500 <= 0.068  # 0.05 +- 3 standard errors of a simulation of 1,500


def test_differences_without_spread() -> None:
    same = np.full(8, 1.1)
    assert paired_means(same, same, list("aabbccdd")).p == 1.0
    assert paired_means(same, same - 0.3, list("aabbccdd")).p == 0.0
    assert paired_means(np.array([2.0]), np.array([1.0]), ["a"]).p == 1.0


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.6, 0.7]) == pytest.approx([1.0, 1.0]) and len(holm([])) == 0


def test_ranks_count_who_is_better() -> None:
    """a beats c only, b ties with both: rank 1, 1, 2."""
    assert ranks("abc", {"a": frozenset("c"), "b": frozenset(), "c": frozenset()}) == {"a": 1, "b": 1, "c": 2}


def test_kendall_is_scipys() -> None:
    rng = np.random.default_rng(7)
    for _ in range(20):
        a, b = rng.integers(0, 5, 9), rng.integers(0, 5, 9)
        assert kendall_tau(a, b) == pytest.approx(stats.kendalltau(a, b).statistic)
    assert kendall_tau([1, 1, 1], [1, 2, 3]) is None


def share_by_loops(losses: np.ndarray, speakers: np.ndarray) -> tuple[float, float, float]:
    """The share and its interval from the definition: every mean is computed again without each speaker."""

    def share(keep: np.ndarray) -> float:
        method, floor, truth = (row[keep].mean() for row in losses)
        return 1 - (method - truth) / (floor - truth)

    names = sorted(set(speakers))
    left_out = [share(speakers != name) for name in names]
    error = np.sqrt(np.var(left_out) * (len(names) - 1))
    whole, t = share(speakers == speakers), stats.t.ppf(0.975, len(names) - 1)
    return whole, whole - t * error, whole + t * error


@pytest.mark.parametrize("sizes", [(4, 4, 4, 4, 4, 4), (7, 2, 5, 3, 4, 9)])
def test_the_share_of_the_way_is_the_jackknife_of_a_ratio(sizes: tuple[int, ...]) -> None:
    rng = np.random.default_rng(6)
    speakers = np.repeat(np.array(list("abcdef")), sizes)
    of_speaker = rng.normal(0, 0.3, 6)[np.repeat(np.arange(6), sizes)]
    losses = np.array([[0.6], [1.0], [0.2]]) + of_speaker + rng.normal(0, 0.1, (3, len(speakers)))
    found = share_of_way(*losses, speakers)
    assert found is not None and found.interval is not None and found.interval.over == "speakers"
    expected = share_by_loops(losses, speakers)
    assert (found.value, found.interval.low, found.interval.high) == pytest.approx(expected, rel=1e-9)
    means = [[lambda keep, row=row: float(row[keep].mean())] for row in losses]
    pooled = share_of_estimates(*(Jackknife.of(some, speakers) for some in means))
    assert pooled is not None and pooled.interval is not None
    assert (pooled.value, pooled.interval.low) == pytest.approx(expected[:2], rel=1e-9)


def test_the_share_of_a_mean_over_training_seeds_is_uncertain_about_the_seeds_too() -> None:
    rng, hits, short = np.random.default_rng(8), 0, 0
    for _ in range(300):
        of_speaker, of_seed = rng.normal(0, 0.1, 12), rng.normal(0, 0.2, 3)
        floor, truth = (level + of_speaker + rng.normal(0, 0.05, 12) for level in (1.0, 0.0))
        seeds = [0.5 + seed + of_speaker + rng.normal(0, 0.05, 12) for seed in of_seed]
        ends = [[lambda keep, row=row: float(row[keep].mean()) for row in some] for some in (seeds, [floor], [truth])]
        found = share_of_estimates(*(Jackknife.of(some, np.arange(12)) for some in ends))
        without = share_of_way(np.mean(seeds, axis=0), floor, truth, np.arange(12))
        assert found and found.interval and found.interval.seeds == 3 and without and without.interval
        assert found.value == pytest.approx(without.value)
        hits += found.interval.low <= 0.5 <= found.interval.high
        short += without.interval.low <= 0.5 <= without.interval.high
    assert hits / 300 >= 0.92 and short / 300 < 0.8


def fieller(method: np.ndarray, floor: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """Fieller's (1954) interval for the ratio of the means of floor - method and floor - truth, one value a speaker."""
    up, down = floor - method, floor - truth
    n, t = len(up), stats.t.ppf(0.975, len(up) - 1)
    (vu, vud), (_, vd) = np.cov(up, down) / n
    a, b, c = down.mean() ** 2 - t**2 * vd, up.mean() * down.mean() - t**2 * vud, up.mean() ** 2 - t**2 * vu
    root = np.sqrt(b**2 - a * c)
    return (b - root) / a, (b + root) / a


def test_the_interval_of_the_share_is_near_fiellers_and_has_its_coverage() -> None:
    rng = np.random.default_rng(7)
    hits = 0
    for k in range(800):
        of_speaker = rng.normal(0, 0.2, 8)
        method, floor, truth = (level + of_speaker + rng.normal(0, 0.1, 8) for level in (0.7, 1.0, 0.2))
        found = share_of_way(method, floor, truth, np.arange(8))
        assert found is not None and found.interval is not None
        hits += found.interval.low <= (1.0 - 0.7) / (1.0 - 0.2) <= found.interval.high
        if k < 20:
            assert (found.interval.low, found.interval.high) == pytest.approx(fieller(method, floor, truth), abs=0.05)
    assert 0.93 <= hits / 800 <= 0.97


def test_there_is_no_share_if_the_floor_is_not_worse() -> None:
    truth = np.array([0.1, 0.2, 0.3, 0.2])
    assert share_of_way(truth, truth, truth, list("abcd")) is None
    assert share_of_way(truth, truth - 1, truth, list("abcd")) is None
    assert share_of_way(truth + 0.5, truth + 0.5, truth, list("abcd")) == Share(0.0, Interval(0.0, 0.0, "speakers", 4))
    with pytest.raises(ValueError, match="finite"):
        share_of_way(truth, truth + np.inf, truth, list("abcd"))


@pytest.mark.parametrize("speakers", [12, 2])
def test_many_rows_at_once_give_the_bits_of_one_row_alone(speakers: int) -> None:
    rng = np.random.default_rng(9)
    values, who = rng.normal(0.3, 1, (40, 333)), rng.integers(0, speakers, 333)
    several = np.asfortranarray(values)  # another order in memory must not change the order of additions
    assert mean_intervals(several, who) == [mean_interval(row, who) for row in values]
    assert mean_differences(several - several[0], who)[1:] == [paired_means(row, values[0], who) for row in values[1:]]
    direct = Jackknife.of([lambda keep, row=row: float(row[keep].mean()) for row in values], who)
    of_means = Jackknife.of_means(several, who)
    assert np.array_equal(direct.left_out, of_means.left_out) and np.array_equal(direct.whole, of_means.whole)
    sums = Jackknife.of_sums([several[:2], several[2:4]], lambda two: float(two[0] / two[1]), who)
    ratio = Jackknife.of(
        [lambda keep, k=k: float(values[k][keep].sum() / values[k + 1][keep].sum()) for k in (0, 2)], who
    )
    assert np.array_equal(sums.left_out, ratio.left_out) and np.array_equal(sums.whole, ratio.whole)
