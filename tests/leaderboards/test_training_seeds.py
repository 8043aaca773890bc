"""Tests the means over training seeds: their intervals and tests against formulas, and the rows of boards."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cmet_leaderboards.markdown import to_markdown
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.statistics import Estimator, Jackknife, mean_interval, seeded_difference, seeded_interval
from cmet_leaderboards.tables import build_tables
from tests.leaderboards.test_board import record, rows


def estimators(values: np.ndarray) -> list[Estimator]:
    """One mean per seed; (S, n) values."""
    return [lambda keep, line=line: float(line[keep].mean()) for line in values]


def drawn(rng: np.random.Generator, seeds: int, speakers: int, clips: int, spread: tuple[float, float]) -> np.ndarray:
    """(seeds, speakers * clips): effects of speakers and seeds with these deviations, and noise of deviation 1."""
    of_speaker = np.repeat(rng.normal(0, spread[0], speakers), clips)
    return of_speaker + rng.normal(0, spread[1], (seeds, 1)) + rng.normal(0, 1, (seeds, speakers * clips))


def test_the_interval_is_welch_over_speaker_means_and_seed_means() -> None:
    speakers = np.repeat(np.arange(6), 5)
    values = drawn(np.random.default_rng(0), 3, 6, 5, (2, 1))
    found = seeded_interval(Jackknife.of(estimators(values), speakers))
    of_speakers, of_seeds = values.mean(0).reshape(6, 5).mean(1), values.mean(1)
    parts = np.array([of_speakers.var(ddof=1) / 6, of_seeds.var(ddof=1) / 3])
    freedom = parts.sum() ** 2 / (parts**2 / [5, 2]).sum()
    half = stats.t.ppf(0.975, freedom) * np.sqrt(parts.sum())
    assert found is not None and (found.over, found.units, found.seeds) == ("speakers", 6, 3)
    assert (found.low, found.high) == pytest.approx((values.mean() - half, values.mean() + half), rel=1e-12)
    alone = mean_interval(values.mean(0), speakers)[1]
    assert alone is not None and found.high - found.low > alone.high - alone.low  # seeds make it longer
    equal = seeded_interval(
        Jackknife.of_means(values[:1].repeat(3, axis=0), speakers)
    )  # equal seeds: the usual interval
    usual = mean_interval(values[0], speakers)[1]
    assert equal is not None and usual is not None and equal.low == pytest.approx(usual.low, rel=1e-12)


@pytest.mark.parametrize("spread", [(1.0, 1.0), (1.0, 0.1), (0.1, 1.0)])
def test_the_interval_contains_the_true_mean_and_no_difference_is_found_rarely(spread: tuple[float, float]) -> None:
    rng, speakers = np.random.default_rng(1), np.repeat(np.arange(8), 4)
    inside = found = 0
    for _ in range(400):
        one, two = (Jackknife.of_means(drawn(rng, 3, 8, 4, spread), speakers) for _ in range(2))
        interval = seeded_interval(one)
        assert interval is not None
        inside += interval.low < 0 < interval.high
        found += seeded_difference(one, two).p < 0.05
    assert inside / 400 > 0.93 and found / 400 < 0.07


def test_a_board_shows_the_mean_and_each_seed_on_request(tmp_path: Path) -> None:
    for seed, level in enumerate((3, 5, 10)):
        about = record("good", training_seeds=[seed])
        write_results(rows("good", level, revision=f"r{seed}"), tmp_path, about)
    write_results(rows("weak", 4, lose), tmp_path, record("weak"))
    write_results(rows("weak", 4, revision="2"), tmp_path, record("weak"))  # no seed: another version of the method
    (table,), (each,) = (build_tables(read_results(tmp_path), each_seed=one) for one in (False, True))
    assert [row.title for row in table.rows] == ["Good", "Weak @ 1", "Weak @ 2"]
    assert [row.title for row in each.rows[:3]] == ["Good @ r0", "Good @ r1", "Good @ r2"]
    mean, singles = table.rows[0].cells[0], [row.cells[0] for row in each.rows[:3]]
    assert mean and mean.interval and (table.rows[0].training_seeds, mean.interval.seeds) == ((0, 1, 2), 3)
    assert mean.mean == pytest.approx(np.mean([cell.mean for cell in singles if cell and cell.mean]), rel=1e-12)
    widths = [cell.interval.high - cell.interval.low for cell in singles if cell and cell.interval]
    assert mean.interval.high - mean.interval.low > 3 * max(widths)  # the seeds differ more than the speakers
    # One seed at 10 is far above the others, so the mean of 6 is not shown to be better than 4.
    (pair,) = [p for p in table.comparisons[0] if (p.first, p.second) == (0, 2)]
    (single,) = [p for p in each.comparisons[0] if (p.first, p.second) == (2, 4)]
    assert pair.verdict == "tie" and single.verdict == "first"
    assert "over training seeds" in to_markdown([table])


def lose(row: dict[str, Any]) -> None:
    if row["speaker"] == "A":
        row.update(value=None, reason="no-face", detail="none")


def test_a_pair_without_a_value_for_one_seed_has_no_value_and_its_reason(tmp_path: Path) -> None:
    write_results(rows("good", 5, revision="r0"), tmp_path, record("good", training_seeds=[0]))
    write_results(rows("good", 6, lose, revision="r1"), tmp_path, record("good", training_seeds=[1]))
    (table,) = build_tables(read_results(tmp_path))
    cell = table.rows[0].cells[0]
    assert cell and (cell.scored, cell.expected) == (9, 12)
    assert [(lost.method, lost.reason, lost.count) for lost in table.missing] == [("Good", "no-face", 3)]
