"""Writes the board as one HTML page. It loads no file except, on demand, the videos and the values of the pairs.

The template `board.html.j2` reads the records of `views.py` and escapes every value.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from cmet_leaderboards import formatting, published
from cmet_leaderboards.grid import Column
from cmet_leaderboards.score_table import page_id, page_rows, score_table
from cmet_leaderboards.section_views import named, section_views
from cmet_leaderboards.tables import MethodRow, Table
from cmet_leaderboards.views import (
    ColumnView,
    Gallery,
    GalleryCase,
    RowView,
    SiteLinks,
    TableView,
)
from talking_face.names import counted

_NUMBERS = 40_000  # the most numbers in the heat maps of a page: about 0.4 MB


def to_html(tables: Sequence[Table], stem: str, gallery: Gallery | None = None, site: SiteLinks | None = None) -> str:
    """The HTML page with these tables.

    Args:
        tables: the tables to show.
        stem: the name, without suffix, of the CSV, JSON, Parquet and Markdown files next to the page.
        gallery: the videos that the page plays.
        site: for a page of the standing leaderboard, its other pages. Such a page has no Parquet file.
    """
    shown, budget = gallery or {}, numbers_of_each(len(tables))
    return page_file(
        [table_view(table, shown.get(table.key["setting"], ()), budget, site) for table in tables], stem, site
    )


def numbers_of_each(tables: int) -> int:
    """The most numbers in the heat maps of each table of a page with this many tables."""
    return _NUMBERS // max(1, tables)


def page_file(views: Sequence[TableView], stem: str, site: SiteLinks | None = None) -> str:
    """The HTML page, from the records of its tables. The other arguments are those of `to_html`."""
    versions = sorted({value for view in views for name, value in view.key if name == "suite version"})
    page = environment().get_template("board.html.j2")
    return page.render(tables=views, rules=formatting.RULES, stem=quote(stem), site=site, versions=versions)


@cache
def environment() -> Environment:
    """The environment of all templates. Every value in a template is escaped."""
    made = Environment(
        loader=PackageLoader("cmet_leaderboards", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters["named"] = named
    return made


def table_view(table: Table, gallery: Sequence[GalleryCase], budget: int, site: SiteLinks | None = None) -> TableView:
    """What the page shows of a table.

    Args:
        table: the table.
        gallery: the pairs of its setting whose videos are shown.
        budget: the most numbers in its heat maps.
        site: see `to_html`.
    """
    return TableView(
        id=page_id(table),
        title=table.title,
        summary=table.setting.summary,
        protocol=table.setting.protocol,
        differing_keys=_with_spaces(table.differing_keys),
        facts=_facts(table),
        interval_note=formatting.interval_note(table),
        columns=[_column(column) for column in table.columns],
        scores=score_table(table),
        rows=[_row(row, site) for row in page_rows(table)],
        sections=section_views(table, gallery, budget),
        bands=table.bands,
        missing_cells=table.missing_cells,
        pair_notes=table.pair_notes,
        published=table.published,
        published_heading=published.heading(table.key["origin"]),
        published_note=published.note(table.key["origin"]),
        data_notes=formatting.data_notes(table),
        key=[item for item in _with_spaces(table.key) if item[0] != "setting"],
        disjoint=", ".join(table.setting.disjoint),
        shared=", ".join(table.setting.shared),
    )


def _with_spaces(mapping: Mapping[str, str]) -> list[tuple[str, str]]:
    return [(name.replace("_", " "), value) for name, value in mapping.items()]


def _facts(table: Table) -> list[tuple[str, str]]:
    pairs = f"{table.pairs} of {table.drawn}" if table.drawn > table.pairs else str(table.pairs)
    counts = [("speaker", table.speakers), ("seed", table.seeds), ("method", len(table.rows))]
    return [
        ("pairs", pairs),
        *((noun if count == 1 else f"{noun}s", str(count)) for noun, count in counts if count),
        ("data", f"{formatting.data_of(table)} {table.key['data_digest'][:8]}"),
    ]


def _column(column: Column) -> ColumnView:
    return ColumnView(
        name=column.name,
        detail=formatting.column_detail(column),
        signature=column.signature,
        label=formatting.column_label(column),
    )


def _row(row: MethodRow, site: SiteLinks | None) -> RowView:
    return RowView(
        title=row.title,
        summary=row.summary,
        sees=formatting.inputs(row),
        seeds=formatting.seeds_text(row.training_seeds),
        page=site.methods.get(row.method, "") if site else "",
        notes=[f"{text}, {counted(count, 'video')}" for text, count in row.notes],
        command=row.command,
        codec=row.codec,
    )
