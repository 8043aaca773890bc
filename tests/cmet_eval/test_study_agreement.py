"""Metrics and ratings: the correlation is SciPy's, its interval is a jackknife, and only shown videos count."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from cmet_eval.study.agreement import Agreement, agreements, spearman, to_markdown
from cmet_eval.study.answers import Answer
from cmet_eval.study.key import Kind, StudyKey
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.statistics import jackknife_interval
from talking_face.reasons import UserError
from tests.leaderboards.test_page_in_browser import EMOTIONS, make_rows

METHODS = ("first", "second", "third")
PAIRS = [f"{speaker}/{r}>{t}" for speaker in "ABC" for r, t in EMOTIONS]
RATINGS = np.random.default_rng(0).integers(1, 6, (4, len(PAIRS), len(METHODS)))  # raters, pairs, methods


def study_key(kind: Kind = "rating", sha: str = "0") -> StudyKey:
    videos = {f"media/{p}-{m}.mp4": (pair, m) for p, pair in enumerate(PAIRS) for m in METHODS}
    originals = dict.fromkeys(videos, sha)
    questions, scale = ["lip_sync"], (1, 5) if kind == "rating" else (0, 1)
    shape = (3, kind, "neutral-base", "p", list(METHODS), PAIRS, 4, 27, 0, "salt", "id")
    return StudyKey(*shape, questions, scale, videos, originals)


def rated(raters: Sequence[int] = range(4)) -> list[Answer]:
    cells = itertools.product(raters, enumerate(PAIRS), enumerate(METHODS))
    return [Answer(r, "lip_sync", pair, (m,), int(RATINGS[r, p, k])) for r, (p, pair), (k, m) in cells]


@pytest.fixture
def found(tmp_path: Path) -> list[Agreement]:
    for name, level in zip(METHODS, (3.0, 1.0, 2.0), strict=True):
        write_results(make_rows(name, level), tmp_path, {"method": {"title": name}})
    return agreements(study_key(), rated(), read_results(tmp_path))


def test_the_correlation_is_scipys_and_the_interval_is_over_speakers(found: list[Agreement], tmp_path: Path) -> None:
    frame = read_results(tmp_path).frame()
    for one in found:
        mine = frame[frame["metric"] == one.metric].set_index(["pair_id", "method"])["value"]
        values = np.array([[mine[pair, method] for method in METHODS] for pair in PAIRS])
        good = (values if one.metric.startswith("psnr") else -values).ravel()
        ratings = RATINGS.mean(axis=0).ravel()
        assert one.value == pytest.approx(stats.spearmanr(ratings, good).statistic)
        speakers = [pair[0] for pair in PAIRS for _ in METHODS]
        known = jackknife_interval(lambda keep, a=ratings, b=good: spearman(a[keep], b[keep]), speakers)
        assert known and one.interval and (one.interval.over, one.interval.units) == ("speakers", 3)
        assert one.interval.low == pytest.approx(max(-1.0, known.low)) and one.interval.high <= 1
        means = RATINGS.mean(axis=(0, 1)), np.array([3.0, 1.0, 2.0]) * (1 if one.metric.startswith("psnr") else -1)
        assert one.methods == pytest.approx(stats.kendalltau(*means).statistic) and one.count == 27
    assert found[0].value == pytest.approx(-found[1].value), "M-LMD has the same values as PSNR: lower is better"
    assert "| lip_sync | " in to_markdown(found, "rating") and "jackknife over 3 speakers" in to_markdown(
        found, "rating"
    )


def test_choices_that_follow_a_metric_agree_with_it(tmp_path: Path) -> None:
    """The raters always choose the method with the higher PSNR, on either side; M-LMD then always disagrees."""
    level = {"first": 3.0, "second": 1.0, "third": 2.0}
    for name, value in level.items():
        write_results(make_rows(name, value), tmp_path, {"method": {"title": name}})
    shown = [(pair, two) for pair in PAIRS for two in itertools.permutations(METHODS, 2)]
    choices = [Answer(0, "lip_sync", pair, two, int(level[two[1]] > level[two[0]])) for pair, two in shown]
    best, worst = agreements(study_key("pairwise"), choices, read_results(tmp_path))
    assert (best.metric, best.value, worst.metric, worst.value) == ("psnr:frame-mean", 1.0, "m_lmd:eat", 0.0)
    assert best.count == len(shown) and math.isnan(best.within) and best.interval and best.interval.high == 1.0


def test_rows_of_other_videos_are_not_used(tmp_path: Path) -> None:
    write_results(make_rows("first", 1.0), tmp_path, {"method": {"title": "first"}})
    results = read_results(tmp_path)
    with pytest.raises(UserError, match=r"no score of a video of this study .*other videos than .*--run"):
        agreements(study_key(sha="1"), rated(), results)
    assert len(agreements(study_key(), rated(), results)) == 2


def test_equal_ratings_have_no_correlation(tmp_path: Path) -> None:
    write_results(make_rows("first", 1.0), tmp_path, {"method": {"title": "first"}})
    same = [Answer(0, "lip_sync", pair, ("first",), 3) for pair in PAIRS]
    (one, _) = agreements(study_key(), same, read_results(tmp_path))
    assert math.isnan(one.value) and one.interval is None and "| - | - | 9 |" in to_markdown([one], "rating")
