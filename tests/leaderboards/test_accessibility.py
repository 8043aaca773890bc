"""Pages pass axe-core's rules, in both colour schemes, wide and narrow. Skipped without Chromium or axe-core."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from cmet_baselines.published import published_rows
from cmet_leaderboards.board import build
from tests.browser import needs_chromium, visit
from tests.cmet_eval.test_gallery import gallery_of, make_run

_SPEC = importlib.util.find_spec("axe_core_python")
AXE = Path(_SPEC.origin).parent / "axe.min.js" if _SPEC and _SPEC.origin else None

PROBE = """
for (const d of document.querySelectorAll("details")) d.open = true;
axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]}).then((r) => {
  const found = r.violations.map((v) => [v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160))]);
  report({passes: r.passes.length, found});
});
"""


def violations(page: str, folder: Path, *options: str) -> tuple[int, list[list[str]]]:
    """The number of passed rules, and the failed rules: id, description, place."""
    assert AXE is not None
    script = AXE.read_text(encoding="utf-8").replace("</script", "<\\/script")
    found, _ = visit(page, script + PROBE, folder / "axe.html", *options)
    return found["passes"], found["found"]


@needs_chromium
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed: no accessibility rules to check")
@pytest.mark.parametrize("options", [("--window-size=1280,900",), ("--window-size=390,800", "--force-dark-mode")])
def test_the_board_is_accessible(tmp_path: Path, options: tuple[str, ...]) -> None:
    run = make_run(tmp_path / "run")
    page = build(run / "results", tmp_path / "board", gallery=gallery_of(run), published=published_rows())
    passes, found = violations(page.read_text(encoding="utf-8"), tmp_path, *options)
    assert found == [] and passes > 20 and "Table II" in page.read_text(encoding="utf-8")


@needs_chromium
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed: no accessibility rules to check")
def test_a_page_with_errors_fails(tmp_path: Path) -> None:
    page = "<!doctype html><html><head><title>x</title></head><body><main><h1>x</h1><img src='data:,'></main></body>"
    assert {name for name, *_ in violations(page, tmp_path)[1]} == {"html-has-lang", "image-alt"}
