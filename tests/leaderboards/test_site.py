"""Tests the site of the standing leaderboard: the same bytes everywhere, working links, and what each page states."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import pytest

from cmet_eval.reports.standing import method_facts, runnable_methods
from cmet_leaderboards.markdown import to_markdown
from cmet_leaderboards.pair_values import pairs_file
from cmet_leaderboards.paper import PaperOptions, paper_tables
from cmet_leaderboards.readme import to_readme
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.rounding import rounded
from cmet_leaderboards.site import build_site
from cmet_leaderboards.site_views import MethodAbout, Runnable, Slugs
from cmet_leaderboards.standing import Provenance, add_results, read_standing
from cmet_leaderboards.standing_videos import add_videos, read_videos
from cmet_leaderboards.statistics import Interval
from cmet_leaderboards.tables import build_tables
from cmet_leaderboards.views import GalleryCase
from embedded_corpus.identity import speaker_names
from talking_face.reasons import UserError
from talking_face.sealed import Damaged
from tests.browser import needs_chromium
from tests.leaderboards.test_accessibility import AXE, violations
from tests.leaderboards.test_board import record, rows

ABOUT = {"good": MethodAbout("A paper. Venue, 2026", "https://example.org", "MIT", "@article{a}", (("t", "x", "y"),))}
BUILD = """
import sys
from pathlib import Path
from cmet_leaderboards.site import build_site
build_site(Path(sys.argv[1]), Path("site"))
"""


def drawn(row: dict[str, Any]) -> None:
    row.update(speaker=speaker_names(4)["ABCD".index(row["speaker"])])


def lose(row: dict[str, Any]) -> None:
    drawn(row)
    if row["pair_id"].endswith("A/happy"):
        row.update(value=None, reason="no-face", detail="<b>none</b>")


def titled(about: dict[str, Any], setting: str) -> dict[str, Any]:
    """The record with another title of the setting."""
    return {**about, "setting": {**about["setting"], "title": f"The {setting}"}}


@pytest.fixture
def standing(tmp_path: Path) -> Path:
    run = tmp_path / "run"
    for setting in ("neutral-base", "cross-emotion"):
        more = {"setting": setting, "origin": "drawn"}
        write_results(rows("truth", 9, drawn, **more), run, titled(record("truth", "ceiling"), setting))
        write_results(
            rows("a:b/ö".replace("/", "-"), 1, lose, **more), run, titled(record("<i>odd</i>", "floor"), setting)
        )
        for seed, level in enumerate((3.0, 5.0)):
            about = titled(record("good", training_seeds=[seed]), setting)
            write_results(rows("good", level, drawn, revision=f"r{seed}", **more), run, about)
    add_results(read_results(run), tmp_path / "standing", Provenance({"numpy": "2.0"}))
    case = GalleryCase(
        pair="neutral-base/A/sad",
        speaker="M901",
        reference_emotion="neutral",
        target_emotion="sad",
        videos=[{"method": "good", "data": b"film 1"}, {"method": "truth", "data": b"film 2"}],
    )
    (folder,) = (tmp_path / "standing").glob("neutral-base*")
    assert add_videos([case], folder, "drawn") == 2
    return tmp_path / "standing"


def files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_bytes_depend_on_the_rows_alone(standing: Path, tmp_path: Path) -> None:
    for name, seed, zone, locale in (("one", "1", "UTC", "C"), ("two", "2", "Asia/Tokyo", "C.UTF-8")):
        (tmp_path / name).mkdir()
        environment = {**os.environ, "PYTHONHASHSEED": seed, "TZ": zone, "LC_ALL": locale}
        subprocess.run([sys.executable, "-c", BUILD, str(standing)], cwd=tmp_path / name, env=environment, check=True)
    one, two = (files(tmp_path / name / "site") for name in ("one", "two"))
    assert one == two and len([name for name in one if name.endswith(".html")]) == 1 + 2 + 3 + 2
    stray = tmp_path / "one" / "site" / "methods" / "old.html"
    stray.write_text("old")
    build_site(standing, tmp_path / "one" / "site")
    assert files(tmp_path / "one" / "site") == one


def test_every_link_leads_to_a_file_and_nothing_is_loaded_from_elsewhere(standing: Path, tmp_path: Path) -> None:
    build_site(standing, tmp_path / "site", about=lambda results: ABOUT)
    pages = sorted((tmp_path / "site").rglob("*.html"))
    links = 0
    for page in pages:
        text = page.read_text()
        assert str(tmp_path) not in text and "<i>odd" not in text and "<b>none" not in text
        for link in re.findall(r'(?:href|src)="([^"]*)"', text):
            target = unquote(unescape(link)).partition("#")[0]
            if target.startswith(("http", "data:")) or not target:
                continue
            links += 1
            assert (page.parent / target).is_file(), f"{page.name}: {link}"
    assert links > 40


def test_the_index_lists_runnable_methods_without_rows(standing: Path, tmp_path: Path) -> None:
    with_rows = "good"
    methods = [Runnable(name, f"<{name}>", "A summary.", f"setup {name}") for name in ("new", with_rows)]
    text = build_site(standing, tmp_path / "site", runnable=methods).read_text()
    assert "without rows yet (1)" in text and "&lt;new&gt;" in text and "setup new" in text
    assert f"setup {with_rows}" not in text
    assert "released code" not in build_site(standing, tmp_path / "site").read_text()
    known = {method.name for method in runnable_methods()}
    assert {"wav2lip", "eat"} <= known and "wav2lip-upper-half" not in known


def test_a_page_of_a_method_and_of_a_metric_has_all_scores(standing: Path, tmp_path: Path) -> None:
    build_site(standing, tmp_path / "site", about=lambda results: ABOUT)
    method = unescape((tmp_path / "site" / "methods" / "good.html").read_text())
    metric = unescape((tmp_path / "site" / "metrics" / "psnr-frame-mean.html").read_text())
    index = unescape((tmp_path / "site" / "index.html").read_text())
    rows_of = read_standing(standing).frame()
    chosen = rows_of[(rows_of.method == "good") & (rows_of.metric == "psnr:frame-mean")]
    chosen = chosen[~chosen.pair_id.str.endswith("A/happy")]  # the pairs that all methods have
    for setting, part in chosen.groupby("setting"):
        seeds = part.groupby("revision")["value"].mean()
        for value in (*seeds, seeds.mean()):
            assert f">{value:.2f}<" in method.replace(" ", ""), (setting, value)
        assert f">{seeds.mean():.2f}<" in metric.replace(" ", "")
    for text in ("mean over 2 training seeds (0, 1)", "training seed 1", "A paper. Venue", "@article{a}", "numpy 2.0"):
        assert text in method
    assert "film 1" not in method and method.count("<video") == 1 and metric.count("Odd") == 2
    for page in (method, metric, index):
        assert "not on real people" in page and "embedded corpus (drawn)" in page
    assert "psnr|variant:frame-mean|version:1.0.0" in metric


@needs_chromium
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed: no accessibility rules to check")
def test_the_pages_are_accessible(standing: Path, tmp_path: Path) -> None:
    build_site(standing, tmp_path / "site", about=lambda results: ABOUT)
    for page in ("index.html", "methods/good.html", "metrics/psnr-frame-mean.html"):
        text = (tmp_path / "site" / page).read_text(encoding="utf-8")
        assert "script-src" not in text  # so that no script runs, and axe needs a page without the policy
        text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text)
        for options in (("--window-size=1280,900",), ("--window-size=390,800", "--force-dark-mode")):
            passes, found = violations(text, tmp_path, *options)
            assert found == [] and passes > 15, (page, options)


def test_only_videos_of_drawn_data_are_stored_and_a_changed_one_is_found(standing: Path) -> None:
    (folder,) = standing.glob("neutral-base*")
    (case,) = read_videos(folder, ["truth", "good"])
    assert [video["data"] for video in case["videos"]] == [b"film 2", b"film 1"]
    other: GalleryCase = {**case, "videos": [{"method": "good", "data": b"of another seed"}]}
    assert add_videos([other], folder, "drawn") == 0  # the first stays
    with pytest.raises(UserError, match="are recorded, so its videos are not stored"):
        add_videos([other], folder, "recorded")
    next(folder.glob("videos/*.mp4")).write_bytes(b"film 3")
    with pytest.raises(Damaged, match=r"mp4 is damaged"):
        read_videos(folder, ["truth", "good"])


def test_numbers_are_rounded_everywhere_but_in_grids() -> None:
    value = {"a": (1 / 3, [np.array([2 / 3, np.nan])], Interval(0.1234567, 1e-9 / 3, "speakers", 4)), "b": 7}
    found: Any = rounded(value)
    assert found["a"][0] == 0.333333 and found["b"] == 7
    assert found["a"][1][0][0] == 0.666667 and np.isnan(found["a"][1][0][1])
    assert found["a"][2] == Interval(0.123457, 3.33333e-10, "speakers", 4)


def test_a_number_has_the_same_digits_on_every_board_and_in_every_pop_up(tmp_path: Path) -> None:
    def near_a_half(row: dict[str, Any]) -> None:
        row.update(value=0.4625 - (1e-10 if row["metric"].startswith("psnr") else 0), unit="", stats={})

    write_results(rows("good", 5, near_a_half), tmp_path, record("good"))
    (table,) = build_tables(read_results(tmp_path))
    for found in (table, rounded(table)):
        for text in (to_markdown([found]), to_readme(paper_tables([found], PaperOptions()))):
            assert text.count("0.463") >= 2 and "0.462" not in text
    psnr, m_lmd = re.findall(r"\[(0\.[\d.,]*)\]", pairs_file(table, {}).decode())
    assert set(m_lmd.split(",")) == {"0.463"} and len(psnr.split(",")) == 12


def test_names_of_pages_differ_where_names_differ() -> None:
    names = ["a:b", "a-b", "A/b", "..", "ö"]
    slugs = Slugs(names)
    assert len({slugs[name].lower() for name in names}) == len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9.-]*", slugs[name]) for name in names)


def test_facts_of_a_reference_model_come_from_its_paper_and_its_departures(tmp_path: Path) -> None:
    about = record("cmet")
    about["method"]["summary"] = "C-MET. Differs from the paper in: crop; range of the pictures."
    write_results(rows("cmet", 1), tmp_path, about)
    facts = method_facts(read_results(tmp_path), lambda name: f"@{name}")["cmet"]
    assert "CVPR" in facts.paper and facts.bibtex == "@cmet" and facts.code.endswith("ChanHyeok-Choi/C-MET")
    assert [topic for topic, *_ in facts.departures] == ["crop", "range of the pictures"]
