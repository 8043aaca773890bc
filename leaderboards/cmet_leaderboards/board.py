"""Boards from result rows: Markdown, CSV, Parquet, JSON and one self-contained HTML page. The same rows and noise
bands give the same bytes: nothing here knows the time, the machine or the folder.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cmet_leaderboards.bands import Bands
from cmet_leaderboards.data import SCHEMA_FILE, records, to_csv, to_json, to_parquet
from cmet_leaderboards.html import Gallery, to_html
from cmet_leaderboards.results import read_results
from cmet_leaderboards.tables import Table, build_tables
from cmet_leaderboards.text import to_markdown


def build(
    results: Path,
    out: Path,
    bands: Bands | None = None,
    gallery: Gallery | None = None,
    published: Sequence[Mapping[str, Any]] = (),
) -> Path:
    """Rebuild every board from the result rows under `results`.

    Writes index.html and board.md, .csv, .parquet and .json with all settings into `out`, the same five for each
    setting, and the schema of the JSON.

    Args:
        results: folder of result rows, searched in depth.
        out: where the boards go.
        bands: noise bands inside which two methods tie; None: none.
        gallery: videos that the pages play, see `cmet_leaderboards.html.Gallery`; None: none.

        published: numbers that papers print, see `cmet_leaderboards.published.printed`.

    Returns:
        the path of index.html.

    Raises:
        UserError: no rows, or rows that contradict one another.
    """
    tables = build_tables(read_results(results), bands or Bands(), published)
    out.mkdir(parents=True, exist_ok=True)
    rows = list(records(tables))
    _write(out, "index", "board", tables, rows, gallery)
    for name in dict.fromkeys(table.key["setting"] for table in tables):
        some = [table for table in tables if table.key["setting"] == name]
        _write(out, name, name, some, [row for row in rows if row["setting"] == name], gallery)
    _save(out / SCHEMA_FILE.name, SCHEMA_FILE.read_bytes())
    return out / "index.html"


def _write(
    out: Path,
    page: str,
    stem: str,
    tables: Sequence[Table],
    rows: Sequence[Mapping[str, Any]],
    gallery: Gallery | None,
) -> None:
    for name, content in (
        (f"{stem}.md", to_markdown(tables).encode()),
        (f"{stem}.csv", to_csv(rows).encode()),
        (f"{stem}.parquet", to_parquet(rows)),
        (f"{stem}.json", to_json(tables).encode()),
        (f"{page}.html", to_html(tables, stem, gallery).encode()),
    ):
        _save(out / name, content)


def _save(path: Path, content: bytes) -> None:
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(content)
    part.replace(path)
