"""Makes the records that the template `scores.html.j2` reads: the score table, and the data of its pop-ups."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from cmet_leaderboards import formatting, metric_facts
from cmet_leaderboards.escaping import script_json
from cmet_leaderboards.grid import Column
from cmet_leaderboards.tables import UNRANKED_ROLES, Cell, MethodRow, Table
from talking_face.signature import digest

GROUPS = (  # title, roles
    ("Methods", ("method",)),
    ("Floors: trivial methods", ("floor",)),
    ("Ground truth and controls", UNRANKED_ROLES),
)
_ON_PHONE = 3  # a phone has no room for more columns
_VERDICTS = {"first": "1", "second": "2", "tie": "=", "noise": "~"}
_SIGNS = "=12~."  # a letter for each two signs: 40 methods, 20 metrics and 6 settings have 94,000 comparisons

Scale = tuple[float, float]  # the values at the left and right ends of the strips in a column


@dataclass(frozen=True)
class StripView:
    """The bar under a number: interval and mean on the column's scale, in whole percent of its width."""

    off: str = ""  # "left" or "right" if the whole interval is outside the scale on that side; else empty
    start: int = 0
    width: int = 0
    mean: int = 0


@dataclass(frozen=True)
class CellView:
    """One number of the score table. `there` is False if the cell has no score."""

    there: bool = False
    value: str = "–"
    half: str = ""
    rank: str = ""  # empty if the column separates no two methods, or if the method shares the first rank
    note: str = ""  # the coverage, if it is not complete
    strip: StripView | None = None
    compared: bool = True
    best: bool = False


@dataclass(frozen=True)
class ScoreRow:
    """One method of the score table. `index` numbers the rows of all groups, from 0."""

    index: int
    title: str
    seeds: str  # such as `3 training seeds`, if the row is a mean over them; else empty
    role: str
    cells: list[CellView]


@dataclass(frozen=True)
class RowGroup:
    """The rows of methods with similar roles."""

    title: str
    rows: list[ScoreRow]


@dataclass(frozen=True)
class ColumnHead:
    """The head of a column. `key` names the column in the page's address."""

    key: str
    name: str
    detail: str  # variant, unit, and the signature's fields that distinguish the metric's columns
    arrow: str
    direction: str
    label: str
    tied: bool  # whether no method is shown to be better than another


@dataclass(frozen=True)
class HeadlineView:
    """The share of the way of a column's best method. If `value` is empty, `why` states the reason."""

    value: str = ""
    half: str = ""
    method: str = ""
    why: str = ""


@dataclass(frozen=True)
class ScoreTable:
    """The score table of one board. `phone` holds the columns that a phone shows first."""

    columns: list[ColumnHead]
    groups: list[RowGroup]
    headline: list[HeadlineView]  # by column; empty if no column has a share
    headline_missing: str
    phone: list[int]
    data: str = field(repr=False)  # JSON


def page_id(table: Table) -> str:
    """The id of a table in pages and file names: it stays the same if other tables are added to the board."""
    setting = re.sub(r"[^A-Za-z0-9.-]", "-", table.key["setting"])
    return f"{setting}-{digest(dict(table.key), 8)}"


def page_rows(table: Table) -> list[MethodRow]:
    """The rows in the order of the page: methods, floors, ground truth, controls."""
    return [row for _, roles in GROUPS for role in roles for row in table.rows if row.role == role]


def grid_order(table: Table) -> list[int]:
    """The index in `table.methods` of each row of the page."""
    return [table.methods.index((row.method, row.revision)) for row in page_rows(table)]


def score_table(table: Table) -> ScoreTable:
    """The score table of a board."""
    rows, scales = page_rows(table), [_scale(table, c) for c in range(len(table.columns))]
    separates = [_separates(table, c) for c in range(len(table.columns))]
    views = [
        ScoreRow(
            index,
            row.title,
            f"{len(row.training_seeds)} training seeds" if len(row.training_seeds) > 1 else "",
            row.role,
            [
                _cell(cell, column, scale, ranked)
                for cell, column, scale, ranked in zip(row.cells, table.columns, scales, separates, strict=True)
            ],
        )
        for index, row in enumerate(rows)
    ]
    heads = _heads(table, separates)
    groups = [RowGroup(title, [view for view in views if view.role in roles]) for title, roles in GROUPS]
    headline = [_headline(table, c) for c in range(len(table.columns))]
    given = any(view.value for view in headline)
    return ScoreTable(
        columns=heads,
        groups=[group for group in groups if group.rows],
        headline=headline if given else [],
        headline_missing="" if given else _no_headline(headline),
        phone=_phone_columns(table.columns),
        data=_data(table, rows, heads),
    )


def _heads(table: Table, separates: Sequence[bool]) -> list[ColumnHead]:
    seen: Counter[str] = Counter()
    heads = []
    for column, separated, comparisons in zip(table.columns, separates, table.comparisons, strict=True):
        seen[column.metric] += 1
        several = f"~{seen[column.metric]}" if seen[column.metric] > 1 else ""
        heads.append(
            ColumnHead(
                key=column.metric + several,
                name=column.name,
                detail=formatting.column_detail(column),
                arrow=column.arrow,
                direction=column.direction,
                label=formatting.column_label(column),
                tied=bool(comparisons) and not separated,
            )
        )
    return heads


def _phone_columns(columns: Sequence[Column]) -> list[int]:
    """The columns that a phone shows first: one of each metric, emotion metrics before M-LMD before the others."""
    first = {column.name: c for c, column in reversed(list(enumerate(columns)))}

    def place(c: int) -> tuple[bool, bool, int]:
        return not metric_facts.judges_emotion(columns[c].metric), columns[c].family != "m_lmd", c

    return sorted(sorted(first.values(), key=place)[:_ON_PHONE])


def _separates(table: Table, c: int) -> bool:
    """Whether the test finds one method better than another."""
    return any(found.verdict in ("first", "second") for found in table.comparisons[c])


def _headline(table: Table, c: int) -> HeadlineView:
    """The share of the way of the method with the lowest loss; floors are not methods."""
    way = table.ways[c]
    shared = [
        (cell.loss, row.title, cell.share)
        for row in table.rows
        if row.role == "method" and (cell := row.cells[c]) is not None and cell.share is not None
    ]
    if not shared:
        return HeadlineView(why=way.missing or "no method is compared")
    _, title, share = min(shared, key=lambda one: one[0] if one[0] is not None else math.inf)
    half = formatting.percent(share.interval.half) if share.interval else ""
    return HeadlineView(formatting.percent(share.value), half, title)


def _no_headline(headline: Sequence[HeadlineView]) -> str:
    reasons = Counter(view.why for view in headline)
    return f"No share of the way from floor to ground truth: {'; '.join(reasons)}." if reasons else ""


def _scale(table: Table, c: int) -> Scale | None:
    """One scale for a whole column: the range of all methods except ceilings and controls, within what is possible.

    With a ceiling in the range, the methods would be too close to each other: for example, the ceiling has 45 dB and
    the methods have 19 to 25 dB.
    """
    lowest, highest = table.columns[c].limits
    below = [row.cells[c] for row in table.rows if row.role not in UNRANKED_ROLES]
    for cells in (below, [row.cells[c] for row in table.rows]):
        ends: list[float] = []
        for cell in cells:
            if cell is not None and cell.mean is not None:
                ends += [cell.mean, *((cell.interval.low, cell.interval.high) if cell.interval else ())]
        if len(cells) > 1 and ends:
            low, high = max(lowest, min(ends)), min(highest, max(ends))
            if low < high:
                return low, high
    return None


def _cell(cell: Cell | None, column: Column, scale: Scale | None, ranked: bool) -> CellView:
    if cell is None:
        return CellView(note="not scored")
    told = ranked and cell.rank is not None and (cell.rank > 1 or not cell.ties)
    return CellView(
        there=True,
        value=formatting.mean(cell, column),
        half=formatting.half_width(cell.interval, column),
        rank=f"#{cell.rank}" if told else "",
        note="" if cell.complete and not cell.infinite and cell.compared else formatting.coverage(cell),
        strip=None if scale is None or cell.mean is None else _strip(cell, cell.mean, scale),
        compared=cell.compared,
        best=cell.best,
    )


def _strip(cell: Cell, mean: float, scale: Scale) -> StripView:
    def place(value: float) -> int:
        return round(100 * min(1.0, max(0.0, (value - scale[0]) / (scale[1] - scale[0]))))

    low, high = (cell.interval.low, cell.interval.high) if cell.interval else (mean, mean)
    if high < scale[0] or low > scale[1]:
        return StripView("left" if high < scale[0] else "right")
    return StripView("", place(low), place(high) - place(low), place(mean))


def _data(table: Table, rows: Sequence[MethodRow], heads: Sequence[ColumnHead]) -> str:
    """JSON for the pop-ups, the sorting and the second view of the table. `<` is escaped, as scripts require."""
    order = grid_order(table)
    overs: dict[str, int] = {}
    columns = [
        {
            "key": head.key,
            "label": head.label,
            "higher": column.higher_is_better and column.ideal is None,
            "digits": formatting.decimals(column),
            "signature": column.signature,
            "way": _way(table, c),
            "verdicts": _verdicts(table, c, order),
        }
        for c, (head, column) in enumerate(zip(heads, table.columns, strict=True))
    ]
    methods = [
        {
            "title": row.title,
            "role": row.role,
            "key": f"{row.method}@{row.revision}",
            "cells": [
                None if cell is None else _details(cell, column, overs)
                for cell, column in zip(row.cells, table.columns, strict=True)
            ],
        }
        for row in rows
    ]
    data = {"columns": columns, "methods": methods, "overs": list(overs)}
    return script_json(data)


def _details(cell: Cell, column: Column, overs: dict[str, int]) -> list[object]:
    """Key for sorting, interval (low, high, unit), coverage, rank, share (value, low, high), distance; else 0 or "".

    The end is left out from the last entry that is not empty. Texts are those that Python formats, because JavaScript
    rounds 0.0625 to another text.
    """
    shown = cell.mean if column.ideal is None else cell.loss
    key = float(f"{shown:.6g}") if shown is not None else ("Infinity" if cell.infinite else "")
    interval, share = cell.interval, cell.share
    out: list[object] = [key, *_ends(cell, column)]
    out.append(overs.setdefault(formatting.interval_units(interval), len(overs)) if interval else 0)
    plain = cell.complete and formatting.coverage(cell) == f"{cell.scored}/{cell.expected}"
    out += ["" if plain else formatting.coverage(cell), cell.rank or 0]
    out.append(formatting.percent(share.value) if share else "")
    out += (
        [formatting.percent(end) for end in (share.interval.low, share.interval.high)]
        if share and share.interval
        else ["", ""]
    )
    out.append(formatting.distance(cell, column))
    while out[-1] in ("", 0):
        out.pop()
    return out


def _ends(cell: Cell, column: Column) -> tuple[str, str]:
    """The ends of the interval as text, cut at the lowest and the highest possible value."""
    if cell.interval is None:
        return "", ""
    (low, high), (lowest, highest) = (cell.interval.low, cell.interval.high), column.limits
    return formatting.number(max(low, lowest), column), formatting.number(min(high, highest), column)


def _way(table: Table, c: int) -> Mapping[str, object]:
    way = table.ways[c]
    floor, truth = (None if m is None else table.name(table.methods[m]) for m in (way.floor, way.truth))
    return {"floor": floor, "truth": truth, "missing": way.missing}


def _verdicts(table: Table, c: int, order: Sequence[int]) -> Mapping[str, object]:
    """The comparisons of one column: the compared rows, and one sign for each two of them, in order, two in a letter.

    `1`: the first is better. `2`: the second is better. `=`: a tie. `~`: inside the noise band. `.`: not compared.
    """
    place = {m: index for index, m in enumerate(order)}
    signs: dict[tuple[int, int], str] = {}
    for found in table.comparisons[c]:
        first, second, sign = place[found.first], place[found.second], _VERDICTS[found.verdict]
        if first > second:
            first, second, sign = second, first, {"1": "2", "2": "1"}.get(sign, sign)
        signs[first, second] = sign
    who = sorted({index for pair in signs for index in pair})
    pairs = [(a, b) for i, a in enumerate(who) for b in who[i + 1 :]]
    numbers = [_SIGNS.index(signs.get(pair, ".")) for pair in pairs] + [0] * (len(pairs) % 2)
    letters = (chr(ord("A") + 5 * a + b) for a, b in zip(numbers[::2], numbers[1::2], strict=True))
    return {"rows": who, "signs": "".join(letters)}
