"""Checks pages in a browser: axe's rules, errors of scripts, the width, and every control with the keyboard alone.

    python -m tests.page_check PAGE.html... [--shots FOLDER] [--widths 360 768 1280 1920]

Each page is opened at each width, light and dark. The Tab key visits all controls: each must be reached, be
visible and show the focus. Enter opens the first pop-up of each table and the chooser of columns, and Escape closes
them, with the focus where it was. Then all collapsed parts are opened, axe runs, and the Tab key visits all again.
`--shots` stores pictures of the first screen. The program prints one line per finding, and ends with status 1 if there
is one.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.browser import Driven, driven

_LIMIT_S = 1800.0  # axe needs 10 s for a board on a quiet machine
WIDTHS = (360, 768, 1280, 1920)
_SPEC = importlib.util.find_spec("axe_core_python")
AXE = Path(_SPEC.origin).parent / "axe.min.js" if _SPEC and _SPEC.origin else None
_RUN_AXE = """axe.run(document, {runOnly: ["wcag2a", "wcag2aa", "wcag21aa", "best-practice"]}).then(
  (r) => r.violations.map((v) => `${v.id}: ${v.help}, such as ${v.nodes[0].html.slice(0, 160)}`))"""
_OPEN_ALL = "for (const part of document.querySelectorAll('details')) part.open = true; true"
# The Tab key continues from the last focus, also after blur(), so the body gets the focus. Scrolling takes no time, so
# that a focused control is in the window at once.
_TO_TOP = """document.documentElement.style.scrollBehavior = "auto";
document.body.tabIndex = -1; document.body.focus(); document.body.removeAttribute("tabindex"); scrollTo(0, 0); true"""
# Controls that a reader can see. A table's numbers share one stop of the Tab key; the arrow keys move between them.
_CONTROLS = """
window.controls = [...document.querySelectorAll(
  "a[href], button, select, input, summary, textarea, video[controls], [tabindex]")].filter((e) =>
  e.tabIndex >= 0 && !e.disabled && e.checkVisibility({visibilityProperty: true}) && !e.closest("dialog:not([open])"));
window.seen = new Set(); controls.length"""
_FOCUSED = """(() => {
  const e = document.activeElement;
  if (!e || e === document.body || e === document.documentElement) return null;
  const inside = e === window.last; // the controls of a video have stops of their own
  const again = seen.has(e) && !inside, style = getComputedStyle(e), box = e.getBoundingClientRect();
  seen.add(e);
  window.last = e;
  const marked = (style.outlineStyle !== "none" && parseFloat(style.outlineWidth) > 0) || style.boxShadow !== "none";
  const within = box.width > 0 && box.height > 0 && box.bottom > 0 && box.top < innerHeight;
  return {again, marked, within, name: e.outerHTML.slice(0, 120)};
})()"""
_LEFT = "controls.filter((e) => !seen.has(e) && e.checkVisibility()).map((e) => e.outerHTML.slice(0, 120))"
_POPUPS = "[...document.querySelectorAll('table.scores')].map((e) => e.id)"


def check_page(page: Driven, path: Path, width: int, dark: bool, shot: Path | None) -> Iterator[str]:
    """The findings on a page, as texts."""
    page.console.clear()
    page.open(path.resolve().as_uri(), width, 900)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    still = {"name": "prefers-reduced-motion", "value": "reduce"}
    page.call("Emulation.setEmulatedMedia", features=[scheme, still])
    page.call("Page.setBypassCSP", enabled=True)
    page.call("Page.reload")
    page.wait("document.readyState === 'complete'")
    if shot is not None:
        shot.write_bytes(base64.b64decode(page.call("Page.captureScreenshot", format="png")["data"]))
    wide = page.value("document.documentElement.scrollWidth - document.documentElement.clientWidth")
    if wide > 0:
        yield f"the page is {wide} px wider than the window"
    yield from _tab_through(page)
    yield from _popups(page)
    page.value(_OPEN_ALL)
    yield from _axe(page)
    yield from _tab_through(page)
    yield from (f"console: {line}" for line in page.console)


def _axe(page: Driven) -> Iterator[str]:
    if AXE is not None:
        page.value(f"{AXE.read_text(encoding='utf-8')}; true")
        yield from (f"axe: {text}" for text in page.value(_RUN_AXE))


def _tab_through(page: Driven) -> Iterator[str]:
    page.value(_TO_TOP)
    count = page.value(_CONTROLS)
    for _ in range(12 * count + 20):
        page.press("Tab")
        found = page.value(_FOCUSED)
        if found is None or found["again"]:
            break
        if not found["marked"]:
            yield f"no visible focus: {found['name']}"
        if not found["within"]:
            yield f"focused outside of the window: {found['name']}"
    yield from (f"not reached with Tab: {name}" for name in page.value(_LEFT))


def _popups(page: Driven) -> Iterator[str]:
    for table in page.value(_POPUPS):
        stop = f"document.getElementById('{table}').querySelector('tr[data-row] button[tabindex=\"0\"]')"
        page.value(f"{stop}.focus(); true")
        before = page.value("document.activeElement.outerHTML.slice(0, 120)")
        page.press("Enter")
        if not page.value("Boolean(document.querySelector('dialog[open]'))"):
            yield f"Enter opens no pop-up: {before}"
            continue
        page.press("Tab")
        if not page.value("document.querySelector('dialog[open]').contains(document.activeElement)"):
            yield f"Tab leaves the pop-up of {before}"
        page.press("Escape")
        if page.value("Boolean(document.querySelector('dialog[open]'))"):
            yield f"Escape does not close the pop-up of {before}"
        if page.value("document.activeElement.outerHTML.slice(0, 120)") != before:
            yield f"the focus does not return to {before}"
        page.press("ArrowRight")
        if page.value("document.activeElement.outerHTML.slice(0, 120)") == before:
            yield f"the arrow keys do not move in {table}"
    for chooser in range(page.value("document.querySelectorAll('details.chooser').length")):
        one = f"document.querySelectorAll('details.chooser')[{chooser}]"
        page.value(f"{one}.querySelector('summary').focus(); true")
        page.press("Enter", "Tab")
        if not page.value(f"{one}.open && {one}.contains(document.activeElement)"):
            yield "Enter does not open the chooser of columns, or Tab does not reach its boxes"
        page.press("Escape")
        if page.value(f"{one}.open || document.activeElement !== {one}.querySelector('summary')"):
            yield "Escape does not close the chooser of columns, or the focus is lost"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pages", type=Path, nargs="+")
    parser.add_argument("--shots", type=Path)
    parser.add_argument("--widths", type=int, nargs="+", default=WIDTHS)
    args = parser.parse_args()
    if args.shots:
        args.shots.mkdir(parents=True, exist_ok=True)
    findings = 0
    with tempfile.TemporaryDirectory() as folder, driven(Path(folder), _LIMIT_S) as page:
        for path in args.pages:
            for width in args.widths:
                for dark in (False, True):
                    name = f"{path.stem}-{width}-{'dark' if dark else 'light'}"
                    shot = args.shots / f"{path.parent.name}-{name}.png" if args.shots else None
                    found = list(check_page(page, path, width, dark, shot))
                    findings += len(found)
                    print(f"{path} {width} px {'dark' if dark else 'light'}: {len(found)} findings", flush=True)
                    for text in dict.fromkeys(found):
                        print(f"  {text}", flush=True)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
