"""Boards from result rows: Markdown, CSV and one self-contained HTML page. The same rows give the same bytes: nothing
here knows the time, the machine or the folder.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from leaderboards.html import to_html
from leaderboards.results import read_results
from leaderboards.tables import Table, build_tables
from leaderboards.text import to_csv, to_markdown


def build(results: Path, out: Path) -> Path:
    """Rebuild every board from the result rows under `results`.

    Writes index.html, board.md and board.csv with all settings into `out`, and the same three for each setting.

    Returns:
        the path of index.html.

    Raises:
        UserError: no rows, or rows that contradict one another.
    """
    tables = build_tables(read_results(results))
    out.mkdir(parents=True, exist_ok=True)
    _write(out, "index", "board", tables)
    for name in dict.fromkeys(table.key["setting"] for table in tables):
        _write(out, name, name, [table for table in tables if table.key["setting"] == name])
    return out / "index.html"


def _write(out: Path, page: str, stem: str, tables: Sequence[Table]) -> None:
    for name, text in (
        (f"{stem}.md", to_markdown(tables)),
        (f"{stem}.csv", to_csv(tables)),
        (f"{page}.html", to_html(tables, stem)),
    ):
        part = out / f"{name}.part"
        part.write_text(text, encoding="utf-8", newline="")
        part.replace(out / name)
