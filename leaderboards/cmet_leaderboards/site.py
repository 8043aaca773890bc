"""Builds the site of the standing leaderboard from its rows: an index, and pages for boards, methods and metrics.

The same rows give the same bytes, on every machine and with other versions of the packages: pages contain no time, name
of a machine or folder, and all numbers are rounded before they are printed. A static web server can host the folder.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from cmet_leaderboards import formatting, metric_facts
from cmet_leaderboards.answer_text import answer_text
from cmet_leaderboards.bands import Bands
from cmet_leaderboards.export import SCHEMA_FILE, records, to_csv, to_json
from cmet_leaderboards.html import environment, to_html
from cmet_leaderboards.markdown import to_markdown
from cmet_leaderboards.pair_values import pairs_files
from cmet_leaderboards.results import Results
from cmet_leaderboards.rounding import rounded
from cmet_leaderboards.section_views import video_path
from cmet_leaderboards.site_views import (
    BoardPages,
    MethodAbout,
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

_FOLDERS = ("boards", "methods", "metrics")  # of the site; old files in them are removed
Files = dict[str, bytes]


def build_site(
    standing: Path,
    out: Path,
    bands: Bands | None = None,
    published: Sequence[Mapping[str, object]] = (),
    about: Callable[[Results], Mapping[str, MethodAbout]] = lambda results: {},
    cite: str = "",
) -> Path:
    """Write all pages again.

    Args:
        standing: the folder of the standing leaderboard; see `standing.add_results`.
        out: the folder of the site. Files of an older site in it are removed.
        bands: noise bands; see `tables.build_tables`.
        published: numbers that papers print; see `tables.build_tables`.
        about: a function that returns facts about the methods of the rows, by name.
        cite: BibTeX of the suite.

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
    slugs = Slugs(names)
    links = SiteLinks("../../index.html", {name: f"../../methods/{slugs[name]}.html" for name in names})
    boards = []
    for table in tables:
        slug = folder_of(table.key)
        methods = [row.method for row in table.rows]
        cases = read_videos(standing / slug, methods)
        files |= _board_files(slug, table, cases, links)
        boards.append(_pages(slug, table, seeds[_key(table)], cases, stored[slug]))
    versions = sorted({table.key["suite_version"] for table in tables})
    files |= _method_pages(boards, about(results), versions)
    files |= _metric_pages(boards, bands, versions)
    files["index.html"] = _index(boards, versions, cite)
    _write(files, out)
    return out / "index.html"


def _key(table: Table) -> tuple[str, ...]:
    return tuple(table.key.values())


def _board_files(slug: str, table: Table, cases: Sequence[GalleryCase], links: SiteLinks) -> Files:
    """The page of a board, its tables in other forms, and its videos."""
    gallery = {table.key["setting"]: cases}
    texts = {
        "index.html": to_html([table], "board", gallery, links),
        "board.csv": to_csv(list(records([table]))),
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
            title=f"{case['speaker']}: {case['reference_emotion']} → {case['target_emotion']}",
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


def _render(template: str, **values: object) -> bytes:
    return environment().get_template(template).render(**values).encode()


def _method_slugs(boards: Sequence[BoardPages]) -> Slugs:
    return Slugs(sorted({row.method for board in boards for row in board.table.rows}))


def _metric_slugs(boards: Sequence[BoardPages]) -> Slugs:
    return Slugs(sorted({column.metric for board in boards for column in board.table.columns}))


def _first_rows(boards: Sequence[BoardPages]) -> dict[str, MethodRow]:
    """The first row of each method, in the order of the boards: ceilings and floors first."""
    return {row.method: row for board in reversed(boards) for row in reversed(board.table.rows)}


def _method_pages(boards: Sequence[BoardPages], about: Mapping[str, MethodAbout], versions: Sequence[str]) -> Files:
    slugs, metrics = _method_slugs(boards), _metric_slugs(boards)
    files = {}
    for name, row in _first_rows(boards).items():
        found = (method_scores(board, name, metrics) for board in boards)
        files[f"methods/{slugs[name]}.html"] = _render(
            "site_method.html.j2",
            name=name,
            title=row.title.partition(" @ ")[0],
            summary=row.summary.partition(" Differs from the paper in: ")[0],
            role=row.role,
            sees=", ".join(one.replace("-", " ") for one in row.sees),
            about=about.get(name, MethodAbout()),
            boards=[scores for scores in found if scores],
            versions=versions,
        )
    return files


def _metric_pages(boards: Sequence[BoardPages], bands: Bands, versions: Sequence[str]) -> Files:
    slugs, methods = _metric_slugs(boards), _method_slugs(boards)
    files = {}
    for metric in {column.metric: None for board in boards for column in board.table.columns}:
        found = (metric_scores(board, metric, methods) for board in boards)
        files[f"metrics/{slugs[metric]}.html"] = _render(
            "site_metric.html.j2",
            metric=metric,
            title=metric_facts.full_title(metric),
            about=metric_facts.about(metric),
            trained=metric_facts.is_trained_on_data(metric),
            bands=band_texts(bands, boards, metric),
            boards=[scores for scores in found if scores],
            versions=versions,
        )
    return files


def _index(boards: Sequence[BoardPages], versions: Sequence[str], cite: str) -> bytes:
    methods, metrics = _method_slugs(boards), _metric_slugs(boards)
    rows = _first_rows(boards)
    names = sorted({column.metric for board in boards for column in board.table.columns}, key=_metric_order)
    return _render(
        "site_index.html.j2",
        boards=[_index_board(board) for board in boards],
        methods=[
            {
                "slug": methods[name],
                "title": row.title.partition(" @ ")[0],
                "role": row.role,
                "summary": row.summary.partition(" Differs from the paper in: ")[0],
                "boards": sum(any(one.method == name for one in board.table.rows) for board in boards),
            }
            for name, row in sorted(rows.items(), key=lambda item: (item[1].role != "method", item[1].title))
        ],
        metrics=[
            {
                "slug": metrics[metric],
                "title": metric_facts.full_title(metric),
                "summary": metric_facts.about(metric).summary,
                "boards": sum(any(c.metric == metric for c in board.table.columns) for board in boards),
            }
            for metric in names
        ],
        versions=versions,
        cite=cite,
    )


def _metric_order(metric: str) -> tuple[int, str]:
    return metric_facts.place(metric), metric


def _index_board(board: BoardPages) -> dict[str, object]:
    table = board.table
    return {
        "slug": board.slug,
        "title": table.title,
        "data": formatting.data_of(table),
        "summary": table.setting.summary,
        "lead": answer_text(table).lead,
        "facts": f"{formatting.facts(table)} · {len(table.rows)} methods · {len(table.columns)} metrics",
        "notes": formatting.data_notes(table)[:1],
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
