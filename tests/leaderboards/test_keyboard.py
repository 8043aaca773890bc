"""Every control of a board is reached with the keyboard alone and shows the focus. Skipped without Chromium."""

from __future__ import annotations

from pathlib import Path

from cmet_leaderboards.board import build
from tests.browser import driven, needs_chromium
from tests.cmet_eval.test_gallery import gallery_of, make_run
from tests.page_check import check_page

BAD = """<!doctype html><html lang=en><head><title>x</title><style>a:focus { outline: none }</style></head><body><main>
<h1>x</h1><a href="#a">a</a> <button style="position:fixed;left:0;top:-500px">b</button></main></body></html>"""


@needs_chromium
def test_the_keyboard_reaches_all_controls_of_a_board(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    page = build(run / "results", tmp_path / "board", gallery=gallery_of(run))
    with driven(tmp_path, 600) as browser:
        assert list(check_page(browser, page, 390, False, None)) == []


@needs_chromium
def test_a_page_without_visible_focus_fails(tmp_path: Path) -> None:
    (tmp_path / "bad.html").write_text(BAD, encoding="utf-8")
    with driven(tmp_path, 600) as browser:
        found = list(check_page(browser, tmp_path / "bad.html", 1280, False, None))
    assert any(text.startswith("no visible focus: <a") for text in found)
    assert any(text.startswith("focused outside of the window: <button") for text in found)
