"""Builds boards from result rows: Markdown, CSV, Parquet, JSON and HTML pages, and the videos that the pages play.

The same rows and noise bands give the same bytes: a board contains no time, machine name or folder.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from cmet_leaderboards.bands import Bands
from cmet_leaderboards.export import SCHEMA_FILE, JsonTable, LongTable, json_file
from cmet_leaderboards.html import numbers_of_each, page_file, table_view
from cmet_leaderboards.markdown import markdown_file, markdown_table
from cmet_leaderboards.pair_values import PairVideos, pairs_files, remove_old
from cmet_leaderboards.results import Results, read_results
from cmet_leaderboards.section_views import VIDEOS, video_path
from cmet_leaderboards.tables import Table, build_tables
from cmet_leaderboards.views import Gallery, GalleryCase, TableView
from talking_face.files import write_bytes
from talking_face.names import file_name_of, inside


def build(
    results: Path | Results,
    out: Path,
    bands: Bands | None = None,
    gallery: Gallery | None = None,
    published: Sequence[Mapping[str, object]] = (),
    videos: PairVideos | None = None,
) -> Path:
    """Write all boards again from the result rows under `results`.

    The folder `out` gets index.html, board.md, board.csv, board.parquet and board.json with all settings. For each
    setting, it gets five more such files, named after the setting. It also gets the schema of the JSON files, a folder
    with the videos of the gallery, and for each table a script with the values of its pairs. The pages work without
    the folder and the scripts, but then play nothing and have no values of pairs.

    Args:
        results: the folder of result rows, or its rows; rows in subfolders are read too.
        out: the folder of the boards.
        bands: noise bands; two methods tie if their difference is inside the band. None: no bands.
        gallery: the videos that the pages play, see `cmet_leaderboards.html.Gallery`. None: no videos.
        published: numbers that papers print, see `cmet_leaderboards.published.published_tables`.
        videos: addresses of scored videos, see `cmet_leaderboards.pair_values`. None: pop-ups play only the gallery's.

    Returns:
        the path of index.html.

    Raises:
        UserError: the folder has no rows, or some rows contradict each other.
    """
    read = results if isinstance(results, Results) else read_results(results)
    tables = build_tables(read, bands or Bands(), published)
    shown = gallery or {}
    rows, written = LongTable.of(tables), [_Written(table, shown.get(table.key["setting"], ())) for table in tables]
    files = _files("index", "board", written, rows)
    for name in dict.fromkeys(table.key["setting"] for table in tables):
        some = [one for one in written if one.table.key["setting"] == name]
        stem = file_name_of(name)
        files |= _files(stem, stem, some, rows.of_setting(name))
    files |= pairs_files(tables, shown, videos or {})
    files[SCHEMA_FILE.name] = SCHEMA_FILE.read_bytes()
    for name, content in files.items():
        write_bytes(inside(out, name), content)
    _write_videos(out / VIDEOS, shown)
    remove_old(out, files)
    return out / "index.html"


def _write_videos(folder: Path, gallery: Gallery) -> None:
    """Write the videos of the gallery, and remove the videos of an older board."""
    videos = [video["data"] for cases in gallery.values() for case in cases for video in case["videos"]]
    files = {Path(video_path(data)).name: data for data in videos}
    for old in folder.glob("*.mp4"):
        if re.fullmatch(r"[0-9a-f]{16}\.mp4", old.name) and old.name not in files:
            old.unlink()
    for name, data in files.items():
        write_bytes(folder / name, data)


class _Written:
    """One table in the forms that the files of all settings and of one setting share."""

    def __init__(self, table: Table, cases: Sequence[GalleryCase]) -> None:
        self.table = table
        self._cases = cases
        self._views: dict[int, TableView] = {}
        self.markdown = markdown_table(table)
        self.json = JsonTable.of(table)

    def view(self, budget: int) -> TableView:
        """What a page shows of the table, with at most this many numbers in its heat maps."""
        if budget not in self._views:
            self._views[budget] = table_view(self.table, self._cases, budget)
        return self._views[budget]


def _files(page: str, stem: str, written: Sequence[_Written], rows: LongTable) -> dict[str, bytes]:
    """{file name: content} of the five files. `page` names the HTML page, `stem` the other four files."""
    budget = numbers_of_each(len(written))
    return {
        f"{stem}.md": markdown_file([one.markdown for one in written]).encode(),
        f"{stem}.csv": rows.to_csv().encode(),
        f"{stem}.parquet": rows.to_parquet(),
        f"{stem}.json": json_file([one.json for one in written]).encode(),
        f"{page}.html": page_file([one.view(budget) for one in written], stem).encode(),
    }
