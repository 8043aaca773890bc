"""Tests the board in a browser: sorting, tabs, and an empty console. Skipped without Chromium."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.results import write_results
from cmet_leaderboards.row import ResultRow
from tests.browser import needs_chromium, visit

PROBE = """
const seen = {};
const names = () => [...document.querySelectorAll("table.scores tbody tr .name")].map((e) => e.textContent);
const head = document.querySelectorAll("table.scores thead th")[2];
seen.own = names();
head.querySelector("button").click();
seen.best = names(); seen.sort = head.getAttribute("aria-sort");
head.querySelector("button").click(); seen.worst = names();
head.querySelector("button").click(); seen.again = names();
const tabs = [...document.querySelectorAll("[role=tab]")];
tabs[1].click();
seen.panels = [...document.querySelectorAll("[role=tabpanel]")].map((e) => !e.hidden);
const shown = () => [...document.querySelectorAll("table.scores tbody tr")].filter((e) => e.offsetParent !== null);
const filter = document.querySelector("[data-section]");
const type = (text) => { filter.value = text; filter.dispatchEvent(new Event("input")); };
type("SEC"); seen.filtered = shown().map((e) => e.querySelector(".name").textContent); type("");
const across = document.querySelector("[data-axis=x]");
across.value = "1"; across.dispatchEvent(new Event("change"));
seen.points = [...document.querySelectorAll(".point text")].map((e) => e.textContent);
seen.axis = [...document.querySelectorAll(".axis")].map((e) => e.textContent);
seen.flow = [...document.querySelectorAll(".flow tr")].map((e) => [...e.cells].map((c) => c.textContent));
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
seen.images = [...document.querySelectorAll("svg.strip")].every((e) => e.getAttribute("aria-label"));
report(seen);
"""


EMOTIONS = (("neutral", "happy"), ("neutral", "sad"), ("angry", "sad"))


def make_rows(method: str, level: float) -> list[ResultRow]:
    metrics = (("psnr:frame-mean", True), ("m_lmd:eat", False))
    rows = []
    for speaker, (reference, target), (metric, higher) in itertools.product("ABC", EMOTIONS, metrics):
        rows.append(
            ResultRow.of(
                {
                    **{"setting": "neutral-base", "method": method, "revision": "1", "seed": 0, "intensity": 1},
                    **{
                        "pair_id": f"{speaker}/{reference}>{target}",
                        "speaker": speaker,
                        "target_emotion": target,
                        "n": 5,
                    },
                    **{"reference_emotion": reference, "ground_truth_clip": speaker, "signature": f"{metric}|v:1"},
                    **{"higher_is_better": higher, "unit": "px", "value": level + ord(speaker) / 9, "reason": None},
                    **{"detail": "", "stats": {}, "notes": "", "codec": "x", "video_sha256": "0", "dataset": "mead"},
                    **{
                        "data_digest": "d",
                        "data_signature": "s|v:1",
                        "pairs_digest": "p",
                        "rules": "r",
                        "metric": metric,
                    },
                    **{"profile": "embedded", "suite_version": "0.1.0"},
                }
            )
        )
    return rows


@needs_chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_works_in_a_browser(tmp_path: Path, width: int) -> None:
    for name, level in (("first", 3.0), ("second", 1.0), ("third", 2.0)):
        write_results(make_rows(name, level), tmp_path / "r", {"method": {"title": name}})
    text = build(tmp_path / "r", tmp_path / "out").read_text()
    seen, console = visit(text, PROBE, tmp_path / "probe.html", f"--window-size={width},900")
    assert seen["errors"] == [] and console == ""
    assert seen["own"] == ["first", "second", "third"] == seen["again"]
    # The second column is M-LMD: lower is better.
    assert seen["best"] == ["second", "third", "first"] and seen["worst"] == seen["best"][::-1]
    assert seen["sort"] == "ascending"
    assert seen["panels"] == [False, True, True, False], "the second metric by emotion, the first by speaker"
    assert seen["filtered"] == ["second"]
    assert seen["points"] == ["first", "second", "third"] and seen["axis"] == ["M-LMD (eat, px) ↓"] * 2
    assert seen["flow"] == [["from, to", "happy", "sad"], ["neutral", "8.33", "8.33"], ["angry", "", "8.33"]]
    assert seen["wide"] <= 0 and seen["images"]
