"""Writes the board as one self-contained HTML page, without external files, scripts or fonts.

The template `board.html.j2` reads the records of `views.py` and escapes every value.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from urllib.parse import quote

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from cmet_leaderboards import formatting
from cmet_leaderboards.grid import Column
from cmet_leaderboards.markdown import agreement
from cmet_leaderboards.published import HEADING, NOTE
from cmet_leaderboards.sections import Confusion, EmotionTransfer, Sensitivity
from cmet_leaderboards.tables import UNRANKED_ROLES, Breakdown, Cell, MethodRow, Table
from cmet_leaderboards.views import (
    CellView,
    ColumnView,
    DropCellView,
    DropRowView,
    Gallery,
    GalleryCase,
    GroupView,
    HeatCellView,
    HeatRowView,
    HeatView,
    RowView,
    SensitivityView,
    StripView,
    TableView,
)
from talking_face.names import file_name_of

# Width of the bar under a number, and the margin at both ends for the mean's dot, in SVG units.
_WIDTH, _EDGE = 96.0, 5.0


def to_html(tables: Sequence[Table], stem: str, gallery: Gallery | None = None) -> str:
    """The HTML page with these tables.

    Args:
        tables: the tables to show.
        stem: the name, without suffix, of the CSV, JSON, Parquet and Markdown files next to the page.
        gallery: the videos that the page plays.
    """
    views = [_table(table, i, (gallery or {}).get(table.key["setting"], ())) for i, table in enumerate(tables)]
    return (
        _environment()
        .get_template("board.html.j2")
        .render(
            tables=views,
            rules=formatting.RULES,
            published={"heading": HEADING, "note": NOTE},
            stem=quote(stem),
            versions=sorted({table.key["suite_version"] for table in tables}),
        )
    )


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("cmet_leaderboards", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _gallery(table: Table, cases: Sequence[GalleryCase]) -> list[dict[str, object]]:
    """The cases with the methods' titles added and without videos of methods that are not in the table."""
    titles = {file_name_of(row.method): row.title for row in table.rows}
    shown = []
    for case in cases:
        videos = [{**video, "title": titles[video["method"]]} for video in case["videos"] if video["method"] in titles]
        if videos:
            shown.append({**case, "videos": videos})
    return shown


def _table(table: Table, index: int, gallery: Sequence[GalleryCase]) -> TableView:
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
        groups=[
            GroupView(name, title, [_breakdown(part, table) for part in parts])
            for name, title, parts in (
                ("emotions", "By target emotion", table.by_emotion),
                ("speakers", "By speaker", table.by_speaker),
            )
            if any(part.groups for part in parts)
        ],
        confusions=[_confusion(table, one) for found in table.confusions for one in found],
        drops=_drops(table),
        sensitivity=[_sensitivity(table, found) for found in table.sensitivity],
        plots=_plots(table),
        has_transfers=bool(table.transfers),
        bands=table.bands,
        missing=table.missing,
        missing_cells=table.missing_cells,
        pair_notes=table.pair_notes,
        published=table.published,
        key=[item for item in _with_spaces(table.key) if item[0] != "setting"],
        disjoint=", ".join(table.setting.disjoint),
        shared=", ".join(table.setting.shared),
        gallery=_gallery(table, gallery),
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
        ("data", f"{table.key['dataset']} {table.key['data_digest'][:8]}"),
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
        interval = f"95% interval {low} to {high}, over {cell.interval.units} {cell.interval.over}"
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


def _breakdown(part: Breakdown, table: Table) -> HeatView:
    """A metric by emotion or speaker. The colours cover the range of all methods except ceilings and controls."""
    ceilings = {row.title for row in table.rows if row.role in UNRANKED_ROLES}
    below = [cell for title, cells in part.rows if title not in ceilings for cell in cells]
    losses = [cell.loss for cell in below if cell is not None and cell.loss is not None]
    best, worst = (min(losses), max(losses)) if losses else (0.0, 0.0)

    def heat(cell: Cell) -> str:
        if cell.loss is None or worst <= best:
            return "0"
        return f"{min(1.0, max(0.0, (worst - cell.loss) / (worst - best))):.2f}"

    def view(cell: Cell | None, expected: int) -> HeatCellView:
        if cell is None:
            return HeatCellView("–", "0", f"0/{expected}", complete=False)
        infinite = cell.mean is None and cell.infinite
        text = "∞" if infinite else formatting.number(cell.mean, part.column)
        return HeatCellView(text, heat(cell), f"{cell.scored}/{expected}", cell.complete)

    column = _column(part.column)
    several = sum(other.name == column.name for other in table.columns) > 1
    return HeatView(
        tab=" ".join([column.name, *([column.detail] if several else ())]),
        label=column.label,
        groups=list(zip(part.groups, part.pairs, strict=True)),
        rows=[
            HeatRowView(title, [view(*cell) for cell in zip(cells, part.pairs, strict=True)], title in ceilings)
            for title, cells in part.rows
        ],
    )


def _confusion(table: Table, one: Confusion) -> HeatView:
    rows = []
    for target, counts in zip(one.targets, one.clips, strict=True):
        total = float(counts.sum())
        shares = [float(count) / total if total else 0.0 for count in counts]
        cells = [
            HeatCellView(f"{100 * share:.0f}", f"{share:.2f}", correct=name == target)
            for name, share in zip(one.predictions, shares, strict=True)
        ]
        rows.append(HeatRowView(target, cells, clips=f"{total:g}"))
    name, column = table.name(one.method), _column(one.column)
    groups = [(prediction, 0) for prediction in one.predictions]
    return HeatView(f"{name}, {column.detail}", f"{column.label}: {name}", groups, rows)


def _drops(table: Table) -> list[DropRowView]:
    """One line per method; empty if the table has no drops."""
    if not table.drops:
        return []
    return [DropRowView(row.title, [_drop(table, row, column) for column in table.columns]) for row in table.rows]


def _drop(table: Table, row: MethodRow, column: Column) -> DropCellView:
    change = table.drop(row, column)
    if change is None:
        return DropCellView("–")
    text, interval = formatting.signed(change.mean, column), change.interval
    if interval is None:
        return DropCellView(text)
    kind = ("worse" if change.mean > 0 else "better") if interval.low > 0 or interval.high < 0 else ""
    return DropCellView(text, formatting.number((interval.high - interval.low) / 2, column), kind)


def _sensitivity(table: Table, found: Sensitivity) -> SensitivityView:
    names = [_column(column).detail for column in found.columns]
    lines = [
        (name, [("–" if tau is None else f"{tau:.2f}", f"{max(0.0, tau or 0.0):.2f}") for tau in taus])
        for name, taus in zip(names, found.tau, strict=True)
    ]
    methods = max(n for line in found.methods for n in line)
    return SensitivityView(found.columns[0].name, names, lines, methods, agreement(table, found))


def _plots(table: Table) -> str:
    """JSON for the scatter plot and the heat maps that the page's script draws. `<` is escaped, as scripts require."""
    columns = [
        {
            "label": formatting.column_label(c),
            "lower": not c.higher_is_better,
            "ideal": c.ideal,
            "digits": formatting.decimals(c),
        }
        for c in table.columns
    ]
    points = [
        {"title": row.title, "role": row.role, "cells": [_point(cell) for cell in row.cells]} for row in table.rows
    ]
    flows = [_transfer(table, transfer) for transfer in table.transfers]
    text = json.dumps({"columns": columns, "points": points, "flows": flows}, allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c")


def _point(cell: Cell | None) -> list[float] | None:
    """The mean and the two ends of the interval."""
    if cell is None or cell.mean is None:
        return None
    return [cell.mean, *((cell.interval.low, cell.interval.high) if cell.interval else (cell.mean, cell.mean))]


def _transfer(table: Table, transfer: EmotionTransfer) -> dict[str, object]:
    def rounded(means: np.ndarray) -> list[list[float | None]]:
        return [[None if np.isnan(x) else float(f"{x:.5g}") for x in line] for line in means]

    return {
        "references": transfer.references,
        "targets": transfer.targets,
        "pairs": transfer.pairs.tolist(),
        "rows": [[table.name(method), rounded(means)] for method, means, _ in transfer.rows],
    }
