"""Makes the records of a table's answer and of the sections below its scores, which the page's templates read."""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from markupsafe import Markup, escape

from cmet_leaderboards import formatting
from cmet_leaderboards.answer_text import NAME_END, NAME_START, answer_text
from cmet_leaderboards.grid import Column
from cmet_leaderboards.markdown import agreement
from cmet_leaderboards.sections import Confusion, EmotionTransfer, Sensitivity
from cmet_leaderboards.tables import UNRANKED_ROLES, Breakdown, Cell, MethodRow, Table
from cmet_leaderboards.views import (
    DropCellView,
    DropRowView,
    GalleryCase,
    GroupView,
    HeatCellView,
    HeatRowView,
    HeatView,
    SectionsView,
    SensitivityView,
)
from talking_face.names import file_name_of


def section_views(table: Table, gallery: Sequence[GalleryCase]) -> SectionsView:
    """The sections of one table, with these pairs in its gallery."""
    return SectionsView(
        answer=answer_text(table),
        gallery=_gallery(table, gallery),
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
    )


def named(text: str) -> Markup:
    """A text of the answer as HTML: everything is escaped, and the names in it are bold."""
    return Markup(str(escape(text)).replace(NAME_START, "<b>").replace(NAME_END, "</b>"))


def _detail(column: Column) -> str:
    """What distinguishes a column from others with its title: variant, unit and fields of the signature."""
    return " · ".join(part for part in (column.variant, column.unit, column.short_signature) if part)


def _gallery(table: Table, cases: Sequence[GalleryCase]) -> list[dict[str, object]]:
    """The cases with the methods' titles added and without videos of methods that are not in the table."""
    titles = {file_name_of(row.method): row.title for row in table.rows}
    shown = []
    for case in cases:
        videos = [{**video, "title": titles[video["method"]]} for video in case["videos"] if video["method"] in titles]
        if videos:
            shown.append({**case, "videos": videos})
    return shown


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

    name = part.column.name
    several = sum(other.name == name for other in table.columns) > 1
    return HeatView(
        tab=" ".join([name, *([_detail(part.column)] if several else ())]),
        label=formatting.column_label(part.column),
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
    name, label = table.name(one.method), formatting.column_label(one.column)
    groups = [(prediction, 0) for prediction in one.predictions]
    return HeatView(f"{name}, {_detail(one.column)}", f"{label}: {name}", groups, rows)


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
    names = [_detail(column) for column in found.columns]
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
