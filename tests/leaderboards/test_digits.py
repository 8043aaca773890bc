"""The same number has the same digits on pages, in Markdown, LaTeX and `measure`, and in pop-ups and plots."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmet_eval.measuring.result import Mean
from cmet_leaderboards.board import build
from cmet_leaderboards.digits import fixed
from cmet_leaderboards.latex import to_latex
from cmet_leaderboards.pair_values import rounded_values
from cmet_leaderboards.paper import PaperOptions, paper_tables
from cmet_leaderboards.readme import to_readme
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.tables import build_tables
from cmet_metrics.base import Score
from cmet_metrics.registry import get_metric
from tests.leaderboards.test_board import rows

BELOW = np.nextafter(0.4625, 0)  # what 0.4625 becomes if its sum is added in another order


def test_a_number_has_the_same_digits_everywhere(tmp_path: Path) -> None:
    for name, value in (("one", float(BELOW)), ("two", 0.5)):
        made = [replace(row, value=value, unit="") for row in rows(name, 1.0)]
        write_results(made, tmp_path / "r", {"method": {"title": name}})
    page = build(tmp_path / "r", tmp_path / "out").read_text()
    tables = build_tables(read_results(tmp_path / "r"))
    papers = paper_tables(tables, PaperOptions())
    texts = {
        "page": page,
        "Markdown": (tmp_path / "out" / "board.md").read_text(),
        "LaTeX": to_latex(papers),
        "README": to_readme(papers),
    }
    for name, text in texts.items():
        assert "0.463" in text and "0.462" not in text.replace("0.4625", ""), name
    (values,) = (tmp_path / "out").glob("pairs-*.js")
    assert "0.463" in values.read_text() and "0.462" not in values.read_text()
    (plot,) = re.findall(r'-plot">(.*?)</script>', page)
    assert {cell[3] for point in json.loads(plot)["points"] for cell in point["cells"]} == {"0.463", "0.500"}
    metric = get_metric("ssim:wang2004")
    mean = Mean(metric, "s", metric.aggregate([Score(float(BELOW), 5)]))
    assert mean.text == "0.463"


@pytest.mark.parametrize("decimals", [2, 3])
def test_the_values_of_pairs_are_rounded_as_the_means(decimals: int) -> None:
    rng = np.random.default_rng(0)
    scale = 10.0 ** rng.integers(-4, 7, 4000)
    exact = rng.integers(-2000, 2000, 4000) / 2000 * scale
    values = np.concatenate(
        [exact, np.nextafter(exact, 0), np.nextafter(exact, np.inf), rng.normal(0, 1, 4000) * scale]
    )
    assert rounded_values(values, decimals) == [float(fixed(value, decimals)) for value in values.tolist()]
