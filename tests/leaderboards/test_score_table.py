"""Tests the score table of a page: its groups, cells and size, and, in Chromium, keys, taps, pop-ups and addresses."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.row import ResultRow
from cmet_leaderboards.score_table import score_table
from cmet_leaderboards.tables import build_tables
from tests.browser import Driven, driven, needs_chromium

METRICS = {  # key: (higher is better, value at the ground truth, value at the floor)
    "psnr:frame-mean": (True, 40.0, 20.0),
    "m_lmd:eat": (False, 0.5, 3.0),
    "ssim:wang2004": (True, 0.9, 0.9),
    "ea:fer": (True, 0.9, 0.2),
    "emotion_leak:fer": (False, 0.1, 0.7),
    "csim:dlib": (True, 0.99, 0.8),
}
LEVELS = {
    "truth": (1.0, "ceiling"),
    "half": (0.5, "method"),
    "weak": (0.1, "method"),
    "still": (0.0, "floor"),
    "other": (0.6, "control"),
}
SPEAKERS, PAIRS = "ABCDEF", (("neutral", "happy"), ("sad", "neutral"))


def made_rows(method: str, share: float) -> list[ResultRow]:
    rows = []
    for metric, (higher, top, floor) in METRICS.items():
        rng = np.random.default_rng(len(method + metric))
        for speaker in SPEAKERS:
            for k, (reference, target) in enumerate(PAIRS):
                value = floor + share * (top - floor) + float(rng.normal(0, 0.02 * abs(top - floor) + 1e-3))
                rows.append(
                    ResultRow.of(
                        {
                            **{
                                "setting": "cross-emotion",
                                "method": method,
                                "revision": "1",
                                "seed": 0,
                                "intensity": 1,
                            },
                            **{"pair_id": f"{speaker}/{k}", "speaker": speaker, "target_emotion": target},
                            **{"reference_emotion": reference, "ground_truth_clip": "c", "metric": metric, "n": 5},
                            **{"signature": f"{metric}|v:1", "higher_is_better": higher, "unit": "", "value": value},
                            **{"reason": None, "detail": "", "stats": {}, "notes": "", "codec": "x"},
                            **{"video_sha256": method, "dataset": "mead", "data_digest": "d", "data_signature": "s"},
                            **{"pairs_digest": "p", "rules": "r", "profile": "embedded", "suite_version": "0.1.0"},
                            **{"origin": "recorded"},
                        }
                    )
                )
    return rows


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("results")
    for method, (share, role) in LEVELS.items():
        made = made_rows(method, share)
        if method == "weak":
            made[2] = replace(made[2], value=None, reason="no-face")
        write_results(made, folder, {"method": {"title": method.title(), "role": role, "summary": f"About {method}."}})
    return folder


@pytest.fixture(scope="module")
def page(results: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(results, tmp_path_factory.mktemp("board"))


def test_methods_floors_and_ground_truth_are_apart_and_emotion_is_first(results: Path) -> None:
    (table,) = build_tables(read_results(results))
    scores = score_table(table)
    assert [column.name for column in scores.columns][:2] == ["EA", "Emotion leak"]
    assert [(group.title, [row.title for row in group.rows]) for group in scores.groups] == [
        ("Methods", ["Half", "Weak"]),
        ("Floors: trivial methods", ["Still"]),
        ("Ground truth and controls", ["Truth", "Other"]),
    ]
    assert [scores.columns[c].name for c in scores.phone] == ["EA", "Emotion leak", "M-LMD"]


def test_a_column_that_separates_nothing_says_so_once_and_has_no_ranks(results: Path) -> None:
    (table,) = build_tables(read_results(results))
    scores = score_table(table)
    names = [column.name for column in scores.columns]
    assert [name for name, column in zip(names, scores.columns, strict=True) if column.tied] == ["SSIM"]
    rows = {row.title: row.cells for group in scores.groups for row in group.rows}
    assert {row.cells[names.index("SSIM")].rank for group in scores.groups for row in group.rows} == {""}
    assert [rows[name][0].rank for name in ("Half", "Weak", "Still", "Truth")] == ["#1", "#2", "#3", ""]


def test_the_headline_is_the_share_of_the_best_method(results: Path) -> None:
    (table,) = build_tables(read_results(results))
    scores = score_table(table)
    headline = dict(zip([column.name for column in scores.columns], scores.headline, strict=True))
    assert headline["EA"].method == "Half" and 45 <= int(headline["EA"].value.rstrip("%")) <= 55
    assert headline["EA"].half.endswith("%") and not headline["SSIM"].value and "not shown" in headline["SSIM"].why


def test_strips_and_intervals_end_at_what_is_possible(tmp_path: Path) -> None:
    for method, values in (("a", (1.0, 1.0, 1.0, 0.0)), ("b", (0.0, 1.0, 0.0, 0.0))):
        rows = [
            replace(row, speaker=speaker, pair_id=speaker, value=value)
            for row, speaker, value in zip(made_rows(method, 1), "ABCD", values, strict=False)
        ]
        rows = [replace(row, metric="ea:fer", signature="ea:fer|v:1") for row in rows]
        write_results(rows, tmp_path, {"method": {"title": method}})
    (table,) = build_tables(read_results(tmp_path))
    assert max(row.cells[0].interval.high for row in table.rows if row.cells[0] and row.cells[0].interval) > 1.5
    scores = score_table(table)
    data = json.loads(scores.data)
    assert [method["cells"][0][1:3] for method in data["methods"]] == [["0.000", "1.000"]] * 2
    (one, _) = scores.groups[0].rows
    assert one.cells[0].strip and (one.cells[0].strip.start, one.cells[0].strip.width, one.cells[0].strip.mean) == (
        0,
        100,
        75,
    )


def test_the_table_reads_without_a_script_and_is_small(page: Path) -> None:
    text = page.read_text()
    body = re.sub(r"<script.*?</script>", "", text, flags=re.S)
    assert "not separated" in body and "Floors: trivial methods" in body and "About half." in body
    (table,) = re.findall(r'<table class="scores.*?</table>', text, re.S)
    (cells,) = re.findall(r'id="[^"]*-cells">(.*?)</script>', text, re.S)
    numbers = len(METRICS) * len(LEVELS)
    assert len(re.findall("<td[ >]", table)) == numbers + len(METRICS)
    # 40 methods by 20 metrics by 6 settings are 4,800 numbers, for which a page of 2 MB has at most 1 MB
    assert (len(re.findall(r"<td.*?</td>", table, re.S)[-1].encode()) + len(cells.encode()) / numbers) < 420


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    with driven(tmp_path_factory.mktemp("browser")) as found:
        yield found


FOCUS = "document.querySelector('table.scores tr[data-row] th button').focus()"
DIALOG = "document.querySelector('dialog')"
HASH = "decodeURIComponent(location.hash.replace(/^#[^?]*/, ''))"
HEADS = """[...document.querySelectorAll("table.scores thead th")]
.filter((e) => e.offsetParent).map((e) => e.innerText.split(/\\s/)[0])"""
CHANGE = """(selector, value) => {
  const e = document.querySelector(selector);
  e.value = value;
  e.dispatchEvent(new Event(e.tagName === "INPUT" ? "input" : "change"));
}"""
SEEN = """[
  [...document.querySelectorAll("tr[data-row]")].map((e) => e.dataset.method),
  document.querySelector("tr[data-row] td").innerText,
  document.querySelectorAll("table.scores thead th:not([hidden])").length,
]"""
FITS = "document.querySelector('table.scores').scrollWidth <= document.querySelector('.score-card .scroll').clientWidth"
SCROLLED = """(() => {
  const table = document.querySelector("table.scores"), box = table.parentElement;
  table.style.minWidth = "3000px";
  box.classList.remove("fits");
  box.scrollLeft = 900;
  const left = (e) => e.getBoundingClientRect().left;
  return [box.scrollLeft, left(table.querySelector("tr[data-row] th")) - left(box)];
})()"""


@needs_chromium
def test_a_pop_up_opens_and_closes_by_keyboard_and_focus_returns(page: Path, browser: Driven) -> None:
    browser.open(f"file://{page}", 1280, 900)
    browser.value(FOCUS)
    browser.press("ArrowRight", "ArrowRight", "ArrowRight", "ArrowDown", "Enter")
    browser.wait(f"{DIALOG}.open && {DIALOG}.querySelector('tbody tr')")
    text = browser.value(f"{DIALOG}.innerText")
    assert text.startswith("Weak: PSNR") and "psnr:frame-mean|v:1" in text and "11/12" in text
    assert "Shown to be worse than" in text and "Half" in text and "from Still (0%) to Truth (100%)" in text
    assert "no-face" in text, "the values of the pairs"
    assert browser.value(HASH) == "?open=weak@1,psnr:frame-mean"
    browser.press("Tab", "Tab", "Enter")  # close button, the first pair
    browser.wait(f"!{DIALOG}.querySelector('.back').hidden")
    assert browser.value(f"{DIALOG}.querySelectorAll('figure').length") == len(LEVELS)
    browser.press("Escape")
    browser.wait(f"!{DIALOG}.open")
    assert browser.value("document.activeElement.closest('tr').dataset.method") == "Weak"
    browser.wait(f"{HASH} === ''")
    assert browser.console == []


@needs_chromium
def test_a_phone_shows_three_columns_that_the_reader_chooses(page: Path, browser: Driven) -> None:
    browser.open(f"file://{page}", 360, 740)
    assert browser.value(HEADS) == ["Method", "EA", "Emotion", "M-LMD"]
    assert browser.value("document.documentElement.scrollWidth") <= 360
    browser.tap(".chooser summary")
    browser.wait("document.querySelector('.chooser').open")
    browser.tap(".chooser input[value='2']")
    browser.wait("location.hash.includes('columns=')")
    assert browser.value(HEADS) == ["Method", "Emotion", "PSNR", "M-LMD"]
    browser.tap(".chooser summary")
    browser.tap("table.scores tr[data-row] td:not([hidden]) button")
    browser.wait(f"{DIALOG}.open")
    assert browser.value(f"{DIALOG}.innerText").startswith("Half: Emotion leak")
    browser.tap("dialog .close")
    browser.wait(f"!{DIALOG}.open")
    assert browser.console == []


@needs_chromium
def test_an_address_restores_view_sort_filter_and_columns(page: Path, browser: Driven) -> None:
    browser.open(f"file://{page}", 1280, 900)
    browser.value("document.querySelectorAll('table.scores thead button')[1].click()")
    browser.value("document.querySelectorAll('table.scores thead button')[1].click()")
    browser.value(f"({CHANGE})('.show', 'share')")
    browser.value(f"({CHANGE})('[type=search]', 'w')")
    browser.value(f"({CHANGE})('[type=search]', '')")
    browser.value("document.querySelector('.chooser input[value=\"5\"]').click()")
    address = browser.value("location.href")
    assert "sort=ea:fer,worst" in address and "show=share" in address
    before = browser.value(SEEN)
    assert before[0][:2] == ["Weak", "Half"] and "%" in before[1] and before[2] == len(METRICS)
    browser.open(address, 1280, 900)
    assert browser.value(SEEN) == before
    browser.value(f"({CHANGE})('[type=search]', 'zebra')")
    assert "zebra" in browser.value("document.querySelector('.nothing').innerText") and browser.console == []


@needs_chromium
def test_the_method_column_stays_where_a_table_is_wider_than_the_window(page: Path, browser: Driven) -> None:
    browser.open(f"file://{page}", 1280, 900)
    assert browser.value(FITS)
    scrolled, left = browser.value(SCROLLED)
    assert scrolled == 900 and abs(left) < 2


@needs_chromium
def test_a_page_without_its_file_of_pairs_says_so(page: Path, tmp_path: Path, browser: Driven) -> None:
    (tmp_path / "alone.html").write_text(page.read_text())
    browser.open(f"file://{tmp_path}/alone.html", 1280, 900)
    browser.value("document.querySelector('tr[data-row] td button').click()")
    browser.wait(f"{DIALOG}.innerText.includes('not next to this page')")
    browser.console.clear()
