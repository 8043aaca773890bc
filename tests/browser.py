"""Opens pages in headless Chromium: with a script that reports results, or driven with real keys and taps."""

from __future__ import annotations

import json
import os
import re
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
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
_MIDDLE = """(selector) => {
  const element = document.querySelector(selector);
  element.scrollIntoView({block: "center", behavior: "instant"});
  const box = element.getBoundingClientRect();
  return [box.left + box.width / 2, box.top + box.height / 2];
}"""
# Chromium reads commands from file descriptor 3 and writes answers to 4. Copies with high numbers avoid a collision.
_AS_3_AND_4 = """import os, sys
read, write = (os.dup2(int(fd), 60 + k) for k, fd in enumerate(sys.argv[1:3]))
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])"""


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


class Driven:
    """A page that a test drives with real keys and taps, by Chromium's DevTools protocol over two pipes."""

    def __init__(self, commands: int, answers: int, limit: float = _LIMIT) -> None:
        self._commands, self._answers, self._limit = commands, answers, limit
        self._rest, self._count, self._session = b"", 0, ""
        self.console: list[str] = []  # messages and errors of the page

    def call(self, method: str, **arguments: Any) -> dict[str, Any]:
        """The result of one command of the protocol."""
        self._count += 1
        message = {"id": self._count, "method": method, "params": arguments}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while (answer := self._read()).get("id") != self._count:
            if answer.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded"):
                self.console.append(json.dumps(answer["params"])[:500])
        assert "error" not in answer, (method, answer["error"])
        return dict(answer["result"])

    def open(self, address: str, width: int, height: int) -> None:
        """Open an address in a new page of this size in px. Below 760 px it is a phone with a touch screen."""
        self._session = ""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        phone = width < 760
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone)
        self.call("Emulation.setTouchEmulationEnabled", enabled=phone)
        for domain in ("Page", "Runtime", "Log"):
            self.call(f"{domain}.enable")
        self.call("Page.navigate", url=address)
        self.wait("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until the expression is true."""
        end = time.monotonic() + self._limit
        while not self.value(f"Boolean({expression})"):
            assert time.monotonic() < end, f"{expression} is not true after {self._limit:g} s"
            time.sleep(0.02)

    def press(self, *keys: str) -> None:
        """Press keys such as `Enter`, `Escape`, `Tab` and `ArrowDown`."""
        codes = {"Enter": 13, "Escape": 27, "Tab": 9, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}
        for key in keys:
            both = {"key": key, "code": key, "windowsVirtualKeyCode": codes[key]}
            text = {"text": "\r"} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **both, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **both)

    def tap(self, selector: str) -> None:
        """Tap on the middle of the first element that matches the selector."""
        x, y = self.value(f"({_MIDDLE})({json.dumps(selector)})")
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": x, "y": y}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + self._limit
        while b"\0" not in self._rest:
            ready = select.select([self._answers], [], [], max(0.0, end - time.monotonic()))[0]
            assert ready, f"Chromium did not answer within {self._limit:g} s"
            read = os.read(self._answers, 1 << 16)
            assert read, "Chromium ended"
            self._rest += read
        message, _, self._rest = self._rest.partition(b"\0")
        return dict(json.loads(message))


@contextmanager
def driven(folder: Path, limit: float = _LIMIT) -> Iterator[Driven]:
    """A headless Chromium to drive. Its profile is stored in `folder`. `limit`: the most seconds for one answer."""
    to_browser, from_test = os.pipe()
    to_test, from_browser = os.pipe()
    options = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--remote-debugging-pipe",
        f"--user-data-dir={folder}/profile",
    ]
    command = [sys.executable, "-c", _AS_3_AND_4, str(to_browser), str(from_browser), str(CHROMIUM), *options]
    browser = subprocess.Popen(
        command, pass_fds=(to_browser, from_browser), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    os.close(to_browser)
    os.close(from_browser)
    try:
        yield Driven(from_test, to_test, limit)
    finally:
        browser.kill()
        browser.wait()
        os.close(from_test)
        os.close(to_test)
        shutil.rmtree(folder / "profile", ignore_errors=True)
