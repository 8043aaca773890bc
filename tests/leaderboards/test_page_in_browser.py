"""Tests the board in a browser: sorting, tabs, and an empty console. Skipped without Chromium."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.results import write_results
from cmet_leaderboards.row import ResultRow
from tests.browser import needs_chromium, visit

PROBE = """
const seen = {};
const names = () => [...document.querySelectorAll("table.scores tbody tr[data-row]")].map((e) => e.dataset.method);
const head = document.querySelectorAll("table.scores thead th")[2];
seen.own = names();
head.querySelector("button").click();
seen.best = names(); seen.sort = head.getAttribute("aria-sort");
head.querySelector("button").click(); seen.worst = names();
head.querySelector("button").click(); seen.again = names();
const shown = () => [...document.querySelectorAll("table.scores tr[data-row]")].filter((e) => e.offsetParent !== null);
const filter = document.querySelector("[data-section]");
const type = (text) => { filter.value = text; filter.dispatchEvent(new Event("input")); };
type("SEC"); seen.filtered = shown().map((e) => e.dataset.method);
type("nobody"); seen.nothing = document.querySelector(".nothing").textContent; type("");
seen.something = document.querySelector(".nothing").textContent;
seen.opened = [...document.querySelectorAll("[data-axis]")].map((e) => e.selectedOptions[0].textContent);
seen.collapsed = [...document.querySelectorAll("details.card")].map((e) => e.open);
const across = document.querySelector("[data-axis=x]");
across.value = "1"; across.dispatchEvent(new Event("change"));
seen.points = [...document.querySelectorAll(".point text")].map((e) => e.textContent);
seen.axis = [...document.querySelectorAll(".axis")].map((e) => e.textContent);
const table = (name) => [...document.querySelectorAll(`${name} tr`)].map((e) => [...e.cells].map((c) => c.textContent));
const pick = (name, k, value) => {
  const select = document.querySelectorAll(`${name} [data-pick]`)[k];
  select.value = value; select.dispatchEvent(new Event("change"));
};
seen.static = table(".emotions"); pick(".emotions", 0, "1"); pick(".emotions", 0, "0"); seen.drawn = table(".emotions");
pick(".flow", 0, "1"); pick(".flow", 1, "1"); seen.flow = table(".flow");
seen.words = document.querySelector(".flow .shown").textContent;
seen.wide = document.documentElement.scrollWidth - document.documentElement.clientWidth;
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
    assert seen["filtered"] == ["second"]
    assert seen["nothing"] == "No method has “nobody” in its name." and seen["something"] == ""
    assert seen["opened"] == ["M-LMD (eat, px) ↓", "PSNR (frame-mean, px) ↑"], "no EA: the first two metrics"
    assert seen["collapsed"] == [False] * len(seen["collapsed"]) and len(seen["collapsed"]) == 2
    assert seen["static"] == seen["drawn"] and len(seen["static"]) == 4, "the script draws what the page contains"
    assert seen["points"] == ["first", "second", "third"] and seen["axis"] == ["M-LMD (eat, px) ↓"] * 2
    assert seen["flow"] == [["from, to", "happy", "sad"], ["neutral", "8.33", "8.33"], ["angry", "", "8.33"]]
    assert seen["words"] == "M-LMD (eat, px) ↓: second"
    assert seen["wide"] <= 0


CROWD = """
const boxes = [...document.querySelectorAll(".point text")].map((e) => [e.textContent, e.getBBox()]);
const apart = (a, b) => a.x >= b.x + b.width || a.y + 2 >= b.y + b.height;
const over = (a, b) => !apart(a, b) && !apart(b, a);
const found = boxes.flatMap(([n, a], i) => boxes.slice(i + 1).filter(([, b]) => over(a, b)).map(([m]) => [n, m]));
report({
  found, names: boxes.map(([name]) => name), points: document.querySelectorAll(".point circle").length,
  list: document.querySelector(".scatter .canvas p")?.textContent || "",
  axis: [...document.querySelectorAll(".scatter .axis")].map((e) => e.textContent),
  heat: [...document.querySelectorAll(".heatmap .shown")].map((e) => e.textContent),
});
"""


def emotion_board(folder: Path, methods: int) -> None:
    """Methods with nearly the same values; EA, leak and M-LMD; the first is the ceiling."""
    for k in range(methods):
        made = [
            replace(row, metric=metric, signature=f"{metric}|v:1", unit=unit, higher_is_better=higher, stats=stats)
            for row in make_rows(f"m{k:02}", 1.0 + 0.001 * k)[::2]
            for metric, unit, higher in (
                ("ea:fer", "", True),
                ("emotion_leak:fer", "", False),
                ("m_lmd:eat", "px", False),
            )
            for stats in [{f"{row.target_emotion}>sad": 1.0} if metric == "ea:fer" else {}]
        ]
        facts = {"title": f"Method {k:02} by its name", "role": "ceiling" if not k else "method"}
        write_results(made, folder, {"method": facts})


@needs_chromium
@pytest.mark.parametrize(("width", "methods"), [(1280, 12), (500, 40)])
def test_the_plots_open_on_emotion_and_no_name_covers_another(tmp_path: Path, width: int, methods: int) -> None:
    emotion_board(tmp_path / "r", methods)
    text = build(tmp_path / "r", tmp_path / "out").read_text()
    seen, console = visit(text, CROWD, tmp_path / "probe.html", f"--window-size={width},900")
    assert seen["errors"] == [] and console == ""
    assert seen["axis"] == ["M-LMD (eat, px) ↓", "EA (fer) ↑"]
    assert seen["heat"][:3] == [
        "Emotion leak (fer) ↓: Method 01 by its name", "Emotion leak (fer) ↓", "EA (fer): Method 00 by its name"
    ]  # fmt: skip
    assert seen["found"] == [] and seen["points"] == methods
    # A name without a free place is a number, and the list below explains it.
    numbers = [name for name in seen["names"] if name.isdigit()]
    assert all(f"{n}: Method" in seen["list"] for n in numbers)
    assert all(
        f"Method {k:02}" in seen["list"] or f"Method {k:02} by its name" in seen["names"] for k in range(methods)
    )
