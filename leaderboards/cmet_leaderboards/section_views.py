"""Makes the records of a table's answer and of the sections below its scores, which the page's templates read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import PurePosixPath

from markupsafe import Markup, escape

from cmet_leaderboards import formatting
from cmet_leaderboards.answer_text import NAME_END, NAME_START, answer_text
from cmet_leaderboards.digits import fixed
from cmet_leaderboards.escaping import script_json
from cmet_leaderboards.grid import Column
from cmet_leaderboards.heat_views import heat_cards
from cmet_leaderboards.markdown import agreement
from cmet_leaderboards.missing import missing
from cmet_leaderboards.sections import Sensitivity
from cmet_leaderboards.tables import Cell, MethodRow, Table
from cmet_leaderboards.views import (
    DropCellView,
    DropRowView,
    GalleryCase,
    PlayerView,
    SectionsView,
    SensitivityView,
)
from talking_face.files import sha256_of
from talking_face.names import file_name_of

VIDEOS = "videos"  # the folder of the gallery's videos, next to the pages
PLOT_OPENED = ("m_lmd", "ea")  # the families of metrics on which the scatter plot opens: across, up
_PLAYED = 4  # methods whose videos are loaded at first


def section_views(table: Table, gallery: Sequence[GalleryCase], budget: int) -> SectionsView:
    """The sections of one table.

    Args:
        table: the table.
        gallery: the pairs whose videos are shown.
        budget: the most numbers in the heat maps, see `heat_cards`.
    """
    heat, collapsed = heat_cards(table, budget)
    lacking, not_asked = missing(table)
    return SectionsView(
        answer=answer_text(table),
        gallery=_player(table, gallery),
        heat=heat,
        collapsed=collapsed,
        drops=_drops(table),
        sensitivity=[_sensitivity(table, found) for found in table.sensitivity],
        missing=lacking,
        not_asked=not_asked,
        plot=_plot(table),
    )


def named(text: str) -> Markup:
    """A text of the answer as HTML: everything is escaped, and the names in it are bold."""
    return Markup(str(escape(text)).replace(NAME_START, "<b>").replace(NAME_END, "</b>"))


def video_path(video: bytes) -> str:
    """The path of a video of the gallery, relative to the page. The same content has the same path."""
    return f"{VIDEOS}/{sha256_of(video)[:16]}.mp4"


def case_title(case: GalleryCase) -> str:
    """The speaker and the emotions of a case, such as `M901: neutral → sad`."""
    return f"{case['speaker']}: {case['reference_emotion']} → {case['target_emotion']}"


def _player(table: Table, cases: Sequence[GalleryCase]) -> PlayerView | None:
    """The pairs whose videos are shown, without videos of methods that are not in the table."""
    folders = [file_name_of(row.method) for row in table.rows]
    shown = []
    for case in cases:
        paths = {video["method"]: video_path(video["data"]) for video in case["videos"]}
        files = [paths.get(folder, "") for folder in folders]
        if any(files):
            shown.append((case_title(case), case["pair"], files))
    there = [any(files[m] for _, _, files in shown) for m in range(len(folders))]
    rows = [row for row, some in zip(table.rows, there, strict=True) if some]
    if not rows:
        return None
    shown = [(title, pair, [f for f, some in zip(files, there, strict=True) if some]) for title, pair, files in shown]
    first = [m for m, row in enumerate(rows) if row.role in ("ceiling", "method")][:_PLAYED]
    wanted = first if len(first) > 1 else range(min(len(rows), _PLAYED))
    methods = [(row.title, m in wanted) for m, row in enumerate(rows)]
    names = [(title, pair, [PurePosixPath(file).stem for file in files]) for title, pair, files in shown]
    data = {"folder": VIDEOS, "methods": [title for title, _ in methods], "cases": names}
    return PlayerView(methods, shown, script_json(data))


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
    return DropCellView(text, formatting.half_width(interval, column), kind)


def _sensitivity(table: Table, found: Sensitivity) -> SensitivityView:
    names = [formatting.column_detail(column) for column in found.columns]
    lines = [
        (name, [("–" if tau is None else fixed(tau, 2), f"{max(0.0, tau or 0.0):.2f}") for tau in taus])
        for name, taus in zip(names, found.tau, strict=True)
    ]
    methods = max(n for line in found.methods for n in line)
    return SensitivityView(found.columns[0].name, names, lines, methods, agreement(table, found))


def _plot(table: Table) -> str:
    """JSON for the scatter plot. It opens on M-LMD across and EA up if the table has both, else on the first two."""
    families = [column.family for column in table.columns]
    opened = [families.index(family) for family in PLOT_OPENED if family in families]
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
        {
            "title": row.title,
            "role": row.role,
            "cells": [_point(cell, column) for cell, column in zip(row.cells, table.columns, strict=True)],
        }
        for row in table.rows
    ]
    opened = opened if len(opened) == len(PLOT_OPENED) else [0, min(1, len(columns) - 1)]
    return script_json({"columns": columns, "points": points, "opened": opened})


def _point(cell: Cell | None, column: Column) -> list[float | str] | None:
    """The mean and the two ends of the interval, as far as values are possible, with four digits; the mean as text."""
    if cell is None or cell.mean is None:
        return None
    low, high = (cell.interval.low, cell.interval.high) if cell.interval else (cell.mean, cell.mean)
    lowest, highest = column.limits
    places = [float(f"{x:.4g}") for x in (cell.mean, max(low, lowest), min(high, highest))]
    return [*places, formatting.number(cell.mean, column)]
