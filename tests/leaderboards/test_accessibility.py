"""Pages pass axe-core's rules, in both colour schemes, wide and narrow. Skipped without Chromium or axe-core."""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
from pathlib import Path

import pytest

from baselines.published import published_rows
from cmet_eval.gallery import gallery
from leaderboards.board import build
from tests.cmet_eval.test_gallery import make_run
from tests.leaderboards.test_page_in_browser import CHROMIUM

_SPEC = importlib.util.find_spec("axe_core_python")
AXE = Path(_SPEC.origin).parent / "axe.min.js" if _SPEC and _SPEC.origin else None

PROBE = """
<script>
for (const d of document.querySelectorAll("details")) d.open = true;
axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]}).then((r) => {
  const out = document.createElement("pre");
  const found = r.violations.map((v) => [v.id, v.help, v.nodes.slice(0, 3).map((n) => n.html.slice(0, 160))]);
  out.id = "probe"; out.textContent = JSON.stringify({passes: r.passes.length, found}); document.body.append(out);
});
</script>
"""


def violations(page: str, folder: Path, *options: str) -> tuple[int, list[list[str]]]:
    """How many rules pass, and those that fail: id, what it asks, where."""
    assert AXE is not None
    probe = folder / "axe.html"
    script = AXE.read_text(encoding="utf-8").replace("</script", "<\\/script")
    probe.write_text(page.replace("</body>", f"<script>{script}</script>{PROBE}</body>"), encoding="utf-8")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += [f"--user-data-dir={folder / 'profile'}", "--virtual-time-budget=30000", *options, "--dump-dom"]
    done = subprocess.run([*command, f"file://{probe}"], capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="probe">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, done.stderr[-2000:]
    told = json.loads(found.group(1).replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    return told["passes"], told["found"]


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: the page is not opened in a browser")
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed: no accessibility rules to check")
@pytest.mark.parametrize("options", [("--window-size=1280,900",), ("--window-size=390,800", "--force-dark-mode")])
def test_the_board_is_accessible(tmp_path: Path, options: tuple[str, ...]) -> None:
    run = make_run(tmp_path / "run")
    page = build(run / "results", tmp_path / "board", gallery=gallery(run), published=published_rows())
    passes, found = violations(page.read_text(encoding="utf-8"), tmp_path, *options)
    assert found == [] and passes > 20 and "Table II" in page.read_text(encoding="utf-8")


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: the page is not opened in a browser")
@pytest.mark.skipif(AXE is None, reason="axe-core-python is not installed: no accessibility rules to check")
def test_a_page_that_is_not_fails(tmp_path: Path) -> None:
    page = "<!doctype html><html><head><title>x</title></head><body><main><h1>x</h1><img src='data:,'></main></body>"
    assert {name for name, *_ in violations(page, tmp_path)[1]} == {"html-has-lang", "image-alt"}
