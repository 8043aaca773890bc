"""Opens a page in headless Chromium, with a script that reports results. In real time, so that videos can play."""

from __future__ import annotations

import json
import re
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest

CHROMIUM = next((p for name in ("chromium", "chromium-browser", "google-chrome") if (p := shutil.which(name))), None)
needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed: no page is opened")

# Errors are collected before the scripts of the page run. `report` ends the visit. Percent signs keep it on one line.
_HEAD = """<script>
window.__errors = []; addEventListener("error", (e) => __errors.push(e.message));
window.report = (seen) => console.log("report:" + encodeURIComponent(JSON.stringify({...seen, errors: __errors})));
</script>"""
_REPORT = re.compile(r'"report:([^"]*)"')
_LIMIT = 120.0


def visit(text: str, script: str, probe: Path, *options: str) -> tuple[dict[str, Any], str]:
    """The object that `script` reports, at the end of the page `text`, and the other lines of the browser's console.

    The page is written to `probe`, in the folder that its links start from. The browser's profile is stored next to it
    during the visit.
    """
    probe.write_text(
        text.replace("<head>", f"<head>{_HEAD}").replace("</body>", f"<script>{script}</script></body>"),
        encoding="utf-8",
    )
    profile = probe.with_suffix(".profile")
    command = [str(CHROMIUM), "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
    command += ["--enable-logging=stderr", "--remote-debugging-port=0", f"--user-data-dir={profile}", *options]
    browser = subprocess.Popen([*command, f"file://{probe}"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert browser.stderr is not None
    log, end = b"", time.monotonic() + _LIMIT
    try:
        while (left := end - time.monotonic()) > 0 and browser.poll() is None:
            if select.select([browser.stderr], [], [], left)[0]:
                log += browser.stderr.read1()
                if found := _REPORT.search(log.decode(errors="replace")):
                    rest = [line for line in log.decode(errors="replace").splitlines() if "report:" not in line]
                    return json.loads(unquote(found.group(1))), "\n".join(x for x in rest if "CONSOLE" in x)
    finally:
        browser.kill()
        browser.communicate()
        probe.unlink()
        shutil.rmtree(profile, ignore_errors=True)
    raise AssertionError(f"the page reported nothing within {_LIMIT:g} s: {log.decode(errors='replace')[-2000:]}")
