"""Builds the site of the standing leaderboard from its rows: an index, and pages for boards, methods and metrics.

The same rows give the same bytes, on every machine and with other versions of the packages: pages contain no time, name
of a machine or folder, and all numbers are rounded before they are printed. A static web server can host the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_leaderboards import formatting, metric_facts
from cmet_leaderboards.answer_text import answer_text
from cmet_leaderboards.bands import Bands
from cmet_leaderboards.export import SCHEMA_FILE, LongTable, to_json
from cmet_leaderboards.file_record import split_summary
from cmet_leaderboards.html import environment, to_html
from cmet_leaderboards.markdown import to_markdown
from cmet_leaderboards.pair_values import pairs_files
from cmet_leaderboards.results import Results
from cmet_leaderboards.rounding import rounded
from cmet_leaderboards.section_views import case_title, video_path
from cmet_leaderboards.site_views import (
    BoardPages,
    MethodAbout,
    Runnable,
    Slugs,
    Video,
    band_texts,
    method_scores,
    metric_scores,
)
from cmet_leaderboards.standing import read_boards, results_of
from cmet_leaderboards.standing_files import Board, folder_of
from cmet_leaderboards.standing_videos import read_videos
from cmet_leaderboards.tables import MethodRow, Table, build_tables
from cmet_leaderboards.views import GalleryCase, SiteLinks
from talking_face.files import write_bytes
from talking_face.names import file_name_of, inside
from talking_face.origin import origin_note

_FOLDERS = ("boards", "methods", "metrics")  # of the site; old files in them are removed
Files = dict[str, bytes]


@dataclass(frozen=True)
class _Site:
    """What the index and the pages of methods and metrics share."""

    boards: Sequence[BoardPages]
    methods: Slugs
    metrics: Slugs
    versions: Sequence[str]

    def render(self, template: str, **values: object) -> bytes:
        return environment().get_template(template).render(versions=self.versions, **values).encode()

    def rows(self) -> dict[str, MethodRow]:
        """The first row of each method, in the order of the boards: ceilings and floors first."""
        return {row.method: row for board in reversed(self.boards) for row in reversed(board.table.rows)}


def build_site(
    standing: Path,
    out: Path,
    bands: Bands | None = None,
    published: Sequence[Mapping[str, object]] = (),
    about: Callable[[Results], Mapping[str, MethodAbout]] = lambda results: {},
    cite: str = "",
    runnable: Sequence[Runnable] = (),
) -> Path:
    """Write all pages again.

    Args:
        standing: the folder of the standing leaderboard; see `standing.add_results`.
        out: the folder of the site. Files of an older site in it are removed.
        bands: noise bands; see `tables.build_tables`.
        published: numbers that papers print; see `tables.build_tables`.
        about: a function that returns facts about the methods of the rows, by name.
        cite: BibTeX of the suite.
        runnable: methods that can be run. The index lists those without rows.

    Returns:
        the path of index.html.

    Raises:
        Damaged: a stored file is not what was written.
        UserError: the folder has no board, or files contradict each other.
    """
    bands = bands or Bands()
    stored = read_boards(standing)
    results = results_of(stored, standing)
    tables = rounded(build_tables(results, bands, published))
    seeds = {_key(table): table for table in rounded(build_tables(results, bands, each_seed=True))}
    files: Files = {SCHEMA_FILE.name: SCHEMA_FILE.read_bytes()}
    names = sorted({row.method for table in tables for row in table.rows})
    slugs, metrics = Slugs(names), Slugs(sorted({column.metric for table in tables for column in table.columns}))
    links = SiteLinks("../../index.html", {name: f"../../methods/{slugs[name]}.html" for name in names})
    boards = []
    for table in tables:
        slug = folder_of(table.key)
        methods = [row.method for row in table.rows]
        cases = read_videos(standing / slug, methods)
        files |= _board_files(slug, table, cases, links)
        boards.append(_pages(slug, table, seeds[_key(table)], cases, stored[slug]))
    site = _Site(boards, slugs, metrics, sorted({table.key["suite_version"] for table in tables}))
    files |= _method_pages(site, about(results))
    files |= _metric_pages(site, bands)
    files["index.html"] = _index(site, cite, [method for method in runnable if method.name not in names])
    _write(files, out)
    return out / "index.html"


def _key(table: Table) -> tuple[str, ...]:
    return tuple(table.key.values())


def _board_files(slug: str, table: Table, cases: Sequence[GalleryCase], links: SiteLinks) -> Files:
    """The page of a board, its tables in other forms, and its videos."""
    gallery = {table.key["setting"]: cases}
    texts = {
        "index.html": to_html([table], "board", gallery, links),
        "board.csv": LongTable.of([table]).to_csv(),
        "board.json": to_json([table]),
        "board.md": to_markdown([table]),
    }
    videos = {video_path(video["data"]): video["data"] for case in cases for video in case["videos"]}
    files = {name: text.encode() for name, text in texts.items()} | videos | pairs_files([table], gallery, {})
    return {f"boards/{slug}/{name}": content for name, content in files.items()}


def _pages(slug: str, table: Table, seeds: Table, cases: Sequence[GalleryCase], stored: Board) -> BoardPages:
    names = {file_name_of(row.method): row.method for row in table.rows}
    videos = tuple(
        Video(
            title=case_title(case),
            method=names[video["method"]],
            file=video_path(video["data"]),
        )
        for case in cases
        for video in case["videos"]
    )
    environments = {
        (method.record.key["method"], method.record.key["revision"]): ", ".join(
            f"{name} {value}" for name, value in method.environment.items()
        )
        for method in stored.methods
    }
    return BoardPages(slug, table, seeds, videos, environments, tuple(stored.evaluators))


def _about(row: MethodRow) -> dict[str, str]:
    """What the index and the method's page state about a method, whose page has all of its revisions."""
    title, summary = row.title.removesuffix(f" @ {row.revision}"), split_summary(row.summary)[0]
    return {"title": title, "summary": summary, "role": row.role}


def _method_pages(site: _Site, about: Mapping[str, MethodAbout]) -> Files:
    files = {}
    for name, row in site.rows().items():
        found = (method_scores(board, name, site.metrics) for board in site.boards)
        files[f"methods/{site.methods[name]}.html"] = site.render(
            "site_method.html.j2",
            **_about(row),
            name=name,
            sees=formatting.inputs(row),
            about=about.get(name, MethodAbout()),
            boards=[scores for scores in found if scores],
        )
    return files


def _metric_pages(site: _Site, bands: Bands) -> Files:
    files = {}
    for metric in _metrics(site):
        found = (metric_scores(board, metric, site.methods) for board in site.boards)
        files[f"metrics/{site.metrics[metric]}.html"] = site.render(
            "site_metric.html.j2",
            metric=metric,
            title=metric_facts.full_title(metric),
            about=metric_facts.about(metric),
            trained=metric_facts.is_trained_on_data(metric),
            bands=band_texts(bands, site.boards, metric),
            boards=[scores for scores in found if scores],
        )
    return files


def _metrics(site: _Site) -> list[str]:
    """The metrics of all boards, in the order of columns."""
    every = {column.metric for board in site.boards for column in board.table.columns}
    return sorted(every, key=lambda metric: (metric_facts.place(metric), metric))


def _index(site: _Site, cite: str, without_rows: Sequence[Runnable]) -> bytes:
    return site.render(
        "site_index.html.j2",
        boards=[_index_board(board) for board in site.boards],
        methods=[
            {
                **_about(row),
                "slug": site.methods[name],
                "boards": sum(any(one.method == name for one in board.table.rows) for board in site.boards),
            }
            for name, row in sorted(site.rows().items(), key=lambda item: (item[1].role != "method", item[1].title))
        ],
        metrics=[
            {
                "slug": site.metrics[metric],
                "title": metric_facts.full_title(metric),
                "summary": metric_facts.about(metric).summary,
                "boards": sum(any(c.metric == metric for c in board.table.columns) for board in site.boards),
            }
            for metric in _metrics(site)
        ],
        cite=cite,
        without_rows=without_rows,
    )


def _index_board(board: BoardPages) -> dict[str, object]:
    table = board.table
    return {
        "slug": board.slug,
        "title": table.title,
        "data": formatting.data_of(table),
        "summary": table.setting.summary,
        "lead": answer_text(table).lead,
        "facts": f"{formatting.facts(table)} · {len(table.rows)} methods · {len(table.columns)} metrics",
        "note": origin_note(table.key["origin"]),
    }


def _write(files: Files, out: Path) -> None:
    """Write the files, and remove the files of an older site."""
    wanted = {inside(out, name) for name in files}
    for folder in _FOLDERS:
        for old in sorted((out / folder).rglob("*"), reverse=True):
            if old.is_file() and old not in wanted:
                old.unlink()
            elif old.is_dir() and not any(old.iterdir()):
                old.rmdir()
    for name, content in files.items():
        write_bytes(inside(out, name), content)
