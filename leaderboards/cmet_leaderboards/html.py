"""Writes the board as one self-contained HTML page, without external files, scripts or fonts.

The template `board.html.j2` reads the records of `views.py` and escapes every value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined

from cmet_leaderboards import formatting, published
from cmet_leaderboards.grid import Column
from cmet_leaderboards.section_views import named, section_views
from cmet_leaderboards.tables import UNRANKED_ROLES, Cell, MethodRow, Table
from cmet_leaderboards.views import (
    CellView,
    ColumnView,
    Gallery,
    GalleryCase,
    RowView,
    StripView,
    TableView,
)

# Width of the bar under a number, and the margin at both ends for the mean's dot, in SVG units.
_WIDTH, _EDGE = 96.0, 5.0
_NUMBERS = 60_000  # the most numbers in the heat maps of a page: about 0.6 MB


def to_html(tables: Sequence[Table], stem: str, gallery: Gallery | None = None, site: str = "") -> str:
    """The HTML page with these tables.

    Args:
        tables: the tables to show.
        stem: the name, without suffix, of the CSV, JSON, Parquet and Markdown files next to the page.
        gallery: the videos that the page plays.
        site: for a page of the standing leaderboard, the path of the site's index. Such a page has no Parquet file.
    """
    budget = _NUMBERS // max(1, len(tables))
    views = [_table(table, i, (gallery or {}).get(table.key["setting"], ()), budget) for i, table in enumerate(tables)]
    return (
        environment()
        .get_template("board.html.j2")
        .render(
            tables=views,
            rules=formatting.RULES,
            stem=quote(stem),
            site=site,
            versions=sorted({table.key["suite_version"] for table in tables}),
        )
    )


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


def _table(table: Table, index: int, gallery: Sequence[GalleryCase], budget: int) -> TableView:
    scales = [_scale(table, i) for i in range(len(table.columns))]
    return TableView(
        id=f"{re.sub(r'[^A-Za-z0-9.-]', '-', table.key['setting'])}-{index + 1}",
        title=table.title,
        summary=table.setting.summary,
        protocol=table.setting.protocol,
        differing_keys=_with_spaces(table.differing_keys),
        facts=_facts(table),
        interval_note=formatting.interval_note(table),
        columns=[_column(column) for column in table.columns],
        rows=[_row(row, table.columns, scales) for row in table.rows],
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
    drawn_for = [("speakers", table.speakers), ("seeds", table.seeds)]
    return [
        ("pairs", pairs),
        *((name, str(count)) for name, count in drawn_for if count),
        ("methods", str(len(table.rows))),
        ("data", f"{formatting.data_of(table)} {table.key['data_digest'][:8]}"),
    ]


def _column(column: Column) -> ColumnView:
    return ColumnView(
        name=column.name,
        detail=" · ".join(part for part in (column.variant, column.unit, column.short_signature) if part),
        arrow=column.arrow,
        direction=column.direction,
        higher=column.higher_is_better and column.ideal is None,
        signature=column.signature,
        label=formatting.column_label(column),
    )


Scale = tuple[float, float]  # the values at the left and right ends of the bars in a column


def _scale(table: Table, index: int) -> Scale | None:
    """One scale for a whole column: the range of all methods except ceilings and controls.

    With a ceiling in the range, the methods would be too close to each other: for example, the ceiling has 45 dB and
    the methods have 19 to 25 dB.
    """
    below = [row.cells[index] for row in table.rows if row.role not in UNRANKED_ROLES]
    for cells in (below, [row.cells[index] for row in table.rows]):
        ends: list[float] = []
        for cell in cells:
            if cell is not None and cell.mean is not None:
                ends += [cell.mean, *((cell.interval.low, cell.interval.high) if cell.interval else ())]
        if len(cells) > 1 and ends and min(ends) < max(ends):
            return min(ends), max(ends)
    return None


def _row(row: MethodRow, columns: Sequence[Column], scales: Sequence[Scale | None]) -> RowView:
    return RowView(
        title=row.title,
        role=row.role,
        summary=row.summary,
        sees=", ".join(name.replace("-", " ") for name in row.sees),
        notes=[f"{text}, {count} video{'s' if count != 1 else ''}" for text, count in row.notes],
        command=row.command,
        codec=row.codec,
        cells=[_cell(*cell) for cell in zip(row.cells, columns, scales, strict=True)],
    )


def _cell(cell: Cell | None, column: Column, scale: Scale | None) -> CellView:
    label = formatting.column_label(column)
    if cell is None:
        return CellView(label)
    half = formatting.half_width(cell)
    interval = ""
    if cell.interval is not None:
        low, high = (formatting.number(value, column) for value in (cell.interval.low, cell.interval.high))
        interval = f"95% interval {low} to {high}, over {formatting.interval_units(cell.interval)}"
    shown = cell.mean if column.ideal is None else cell.loss
    return CellView(
        label=label,
        there=True,
        rank=formatting.rank(cell),
        ties=formatting.ties(cell),
        distance=formatting.distance(cell, column),
        # A method whose frames are all identical to the target is sorted above every finite number.
        sort=repr(shown) if shown is not None else ("Infinity" if cell.infinite else ""),
        value=formatting.number(cell.mean, column) if cell.mean is not None else ("∞" if cell.infinite else "–"),
        half=None if half is None else formatting.number(half, column),
        strip=None if scale is None or cell.mean is None else _strip(cell, cell.mean, scale),
        interval=interval,
        coverage=formatting.coverage(cell),
        complete=cell.complete,
        compared=cell.compared,
        best=cell.best,
    )


def _strip(cell: Cell, mean: float, scale: Scale) -> StripView:
    def place(value: float) -> float:
        share = (value - scale[0]) / (scale[1] - scale[0])
        return _EDGE + min(1.0, max(0.0, share)) * (_WIDTH - 2 * _EDGE)

    low, high = (cell.interval.low, cell.interval.high) if cell.interval else (mean, mean)
    return StripView(
        off="left" if high < scale[0] else "right" if low > scale[1] else "",
        x=f"{place(low):.1f}",
        w=f"{max(0.0, place(high) - place(low)):.1f}",
        end=f"{place(high):.1f}",
        m=f"{place(mean):.1f}",
    )
