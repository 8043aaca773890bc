"""The board as one self-contained HTML page: no external file, script or font; every value escaped by the template."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np

from cmet_leaderboards import wording
from cmet_leaderboards.grid import Column
from cmet_leaderboards.published import HEADING, NOTE
from cmet_leaderboards.sections import Confusion, Sensitivity
from cmet_leaderboards.tables import APART, Breakdown, Cell, Table
from cmet_leaderboards.text import survivors

# The strip under a number, in its own units; the mean's dot stays inside the edges.
_WIDTH, _EDGE = 96.0, 5.0


# setting -> its cases: pair, speaker, reference_emotion, target_emotion, videos, each a method and data (MP4, base64).
Gallery = Mapping[str, Sequence[Mapping[str, Any]]]


def to_html(tables: Sequence[Table], stem: str, gallery: Gallery | None = None) -> str:
    """The page of these tables. `stem` names the CSV and Markdown files beside it; `gallery` is played on it."""
    views = [_table(table, index) for index, table in enumerate(tables)]
    for view, table in zip(views, tables, strict=True):
        view["gallery"] = _gallery(table, (gallery or {}).get(table.key["setting"], ()))
    settings = list(dict.fromkeys(table.title for table in tables))
    return str(
        _environment()
        .get_template("board.html.j2")
        .render(
            tables=views,
            settings=settings,
            several=len(tables) > 1,
            rules=wording.RULES,
            published={"heading": HEADING, "note": NOTE},
            stem=stem,
            versions=sorted({table.key["suite_version"] for table in tables}),
        )
    )


@cache
def _environment() -> Any:
    from jinja2 import Environment, PackageLoader, StrictUndefined

    return Environment(
        loader=PackageLoader("cmet_leaderboards", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )


def _gallery(table: Table, cases: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The cases with the methods' titles; videos of methods that the table does not hold stay out."""
    titles = {row.method: row.title for row in table.rows}
    shown = [
        {**case, "videos": [{**v, "title": titles[v["method"]]} for v in case["videos"] if v["method"] in titles]}
        for case in cases
    ]
    return [case for case in shown if case["videos"]]


def _table(table: Table, index: int) -> dict[str, Any]:
    scales = [_scale(table, i) for i in range(len(table.columns))]
    return {
        "id": f"{table.key['setting']}-{index + 1}",
        "title": table.title,
        "summary": table.setting.summary,
        "protocol": table.setting.protocol,
        "apart": [(name.replace("_", " "), value) for name, value in table.apart.items()],
        "facts": _facts(table),
        "interval_note": wording.interval_note(table),
        "columns": [_column(column) for column in table.columns],
        "rows": [
            {
                "title": row.title,
                "role": row.role,
                "summary": row.summary,
                "sees": ", ".join(name.replace("-", " ") for name in row.sees),
                "notes": [f"{text}, {count} video{'s' if count != 1 else ''}" for text, count in row.notes],
                "command": row.command,
                "codec": row.codec,
                "cells": [_cell(c, column, s) for c, column, s in zip(row.cells, table.columns, scales, strict=True)],
            }
            for row in table.rows
        ],
        "groups": [
            _group("emotions", "By target emotion", table.by_emotion, table),
            _group("speakers", "By speaker", table.by_speaker, table),
        ],
        "confusions": [_confusion(table, one) for found in table.confusions for one in found],
        "drops": _drops(table),
        "sensitivity": [_sensitivity(table, found) for found in table.sensitivity],
        "plots": _plots(table),
        "has_flows": bool(table.flows),
        "bands": table.bands,
        "losses": table.losses,
        "missing_cells": table.missing_cells,
        "pair_notes": table.pair_notes,
        "published": table.published,
        "key": [(name.replace("_", " "), value) for name, value in table.key.items() if name != "setting"],
        "disjoint": ", ".join(table.setting.disjoint),
        "shared": ", ".join(table.setting.shared),
    }


def _facts(table: Table) -> list[tuple[str, str]]:
    pairs = f"{table.pairs} of {table.drawn}" if table.drawn > table.pairs else str(table.pairs)
    return [
        ("pairs", pairs),
        ("speakers", str(table.speakers)),
        ("seeds", str(table.seeds)),
        ("methods", str(len(table.rows))),
        ("data", f"{table.key['dataset']} {table.key['data_digest'][:8]}"),
    ]


def _column(column: Column) -> dict[str, Any]:
    return {
        "metric": column.metric,
        "name": column.name,
        "detail": " · ".join(part for part in (column.variant, column.unit, column.short_signature) if part),
        "arrow": column.arrow,
        "direction": column.direction,
        "higher": column.higher_is_better and column.ideal is None,
        "signature": column.signature,
        "label": _label(column),
    }


def _label(column: Column) -> str:
    return f"{wording.column_title(column)} {column.arrow}"


def _scale(table: Table, index: int) -> tuple[float, float] | None:
    """The values that the strip's two ends stand for: one scale for a whole column, over the methods below the ceiling,
    which would else press them together (45 dB above methods between 19 and 25)."""
    below = [row.cells[index] for row in table.rows if row.role not in APART]
    for cells in (below, [row.cells[index] for row in table.rows]):
        ends: list[float] = []
        for cell in cells:
            if cell is not None and cell.mean is not None:
                ends += [cell.mean, *((cell.interval.low, cell.interval.high) if cell.interval else ())]
        if len(cells) > 1 and ends and min(ends) < max(ends):
            return min(ends), max(ends)
    return None


def _cell(cell: Cell | None, column: Column, scale: tuple[float, float] | None) -> dict[str, Any]:
    if cell is None:
        return {"there": False, "sort": "", "label": _label(column)}
    half = wording.half_width(cell)
    strip = None
    if scale is not None and cell.mean is not None:

        def place(value: float) -> float:
            share = (value - scale[0]) / (scale[1] - scale[0])
            return _EDGE + min(1.0, max(0.0, share)) * (_WIDTH - 2 * _EDGE)

        low, high = (cell.interval.low, cell.interval.high) if cell.interval else (cell.mean, cell.mean)
        strip = {
            "off": "left" if high < scale[0] else "right" if low > scale[1] else "",
            "x": f"{place(low):.1f}",
            "w": f"{max(0.0, place(high) - place(low)):.1f}",
            "end": f"{place(high):.1f}",
            "m": f"{place(cell.mean):.1f}",
        }
    interval = ""
    if cell.interval is not None:
        ends = [wording.number(value, column) for value in (cell.interval.low, cell.interval.high)]
        interval = f"95% interval {ends[0]} to {ends[1]}, over {cell.interval.units} {cell.interval.over}"
    shown = cell.mean if column.ideal is None else cell.loss
    return {
        "there": True,
        "rank": wording.rank(cell),
        "ties": wording.ties(cell),
        "distance": wording.distance(cell, column),
        # Identical to the target everywhere: above (or below) every finite number.
        "sort": repr(shown) if shown is not None else ("Infinity" if cell.infinite else ""),
        "value": wording.number(cell.mean, column) if cell.mean is not None else ("∞" if cell.infinite else "–"),
        "half": None if half is None else wording.number(half, column),
        "strip": strip,
        "interval": interval,
        "coverage": wording.coverage(cell),
        "complete": cell.complete,
        "compared": cell.compared,
        "best": cell.best,
        "label": _label(column),
    }


def _group(name: str, title: str, parts: Sequence[Breakdown], table: Table) -> dict[str, Any]:
    return {"name": name, "title": title, "parts": [_breakdown(part, table) for part in parts]}


def _breakdown(part: Breakdown, table: Table) -> dict[str, Any]:
    ceilings = {row.title for row in table.rows if row.role in APART}
    losses = [
        cell.loss
        for title, cells in part.rows
        for cell in cells
        if title not in ceilings and cell is not None and cell.loss is not None
    ]
    best, worst = (min(losses), max(losses)) if losses else (0.0, 0.0)

    def heat(cell: Cell | None) -> str:
        if cell is None or cell.loss is None or worst <= best:
            return "0"
        return f"{min(1.0, max(0.0, (worst - cell.loss) / (worst - best))):.2f}"

    twice = sum(column.name == part.column.name for column in table.columns) > 1
    return {
        **_column(part.column),
        "tab": " ".join([part.column.name, *([_column(part.column)["detail"]] if twice else ())]),
        "groups": list(zip(part.groups, part.pairs, strict=True)),
        "rows": [
            {
                "title": title,
                "ceiling": title in ceilings,
                "cells": [
                    {
                        "value": "∞"
                        if cell and cell.mean is None and cell.infinite
                        else wording.number(cell.mean, part.column),
                        "heat": heat(cell),
                        "coverage": f"{cell.scored}/{expected}",
                        "complete": cell.complete,
                    }
                    if cell is not None
                    else {"value": "–", "heat": "0", "coverage": f"0/{expected}", "complete": False}
                    for cell, expected in zip(cells, part.pairs, strict=True)
                ],
            }
            for title, cells in part.rows
        ],
    }


def _confusion(table: Table, one: Confusion) -> dict[str, Any]:
    lines = []
    for meant, counts in zip(one.meant, one.clips, strict=True):
        total = float(counts.sum())
        shares = [float(count) / total if total else 0.0 for count in counts]
        cells = [
            {"text": f"{100 * x:.0f}", "heat": f"{x:.2f}", "right": said == meant}
            for said, x in zip(one.said, shares, strict=True)
        ]
        lines.append({"meant": meant, "clips": f"{total:g}", "cells": cells})
    name, column = table.name(one.method), _column(one.column)
    return {
        "tab": f"{name}, {column['detail']}",
        "label": f"{column['label']}: {name}",
        "said": one.said,
        "lines": lines,
    }


def _drops(table: Table) -> list[dict[str, Any]]:
    """One line a method: the rise of each metric's loss from the other setting, worse or better where it is sure."""
    if not table.drops:
        return []
    found = {(drop.method, drop.column.signature): drop.change for drop in table.drops}
    lines = []
    for row in table.rows:
        cells = []
        for column in table.columns:
            change = found.get(((row.method, row.revision), column.signature))
            if change is None:
                cells.append({"text": "–", "half": "", "kind": ""})
                continue
            interval = change.interval
            sure = interval is not None and (interval.low > 0 or interval.high < 0)
            half = "" if interval is None else wording.number((interval.high - interval.low) / 2, column)
            kind = ("worse" if change.mean > 0 else "better") if sure else ""
            cells.append({"text": wording.signed(change.mean, column), "half": half, "kind": kind})
        lines.append({"title": row.title, "cells": cells})
    return lines


def _sensitivity(table: Table, found: Sensitivity) -> dict[str, Any]:
    names = [_column(column)["detail"] for column in found.columns]
    lines = [
        {"name": name, "cells": [("–" if tau is None else f"{tau:.2f}", f"{max(0.0, tau or 0.0):.2f}") for tau in taus]}
        for name, taus in zip(names, found.tau, strict=True)
    ]
    return {
        "name": found.columns[0].name,
        "variants": names,
        "lines": lines,
        "methods": max(n for line in found.methods for n in line),
        "survivors": survivors(table, found),
    }


def _plots(table: Table) -> str:
    """JSON for the scatter and the heat maps, which the page's script draws; safe inside a script element."""
    columns = [
        {"label": _label(c), "lower": not c.higher_is_better, "ideal": c.ideal, "digits": wording.decimals(c)}
        for c in table.columns
    ]
    points = [
        {
            "title": row.title,
            "role": row.role,
            "cells": [
                None
                if cell is None or cell.mean is None
                else [
                    cell.mean,
                    *((cell.interval.low, cell.interval.high) if cell.interval else (cell.mean, cell.mean)),
                ]
                for cell in row.cells
            ],
        }
        for row in table.rows
    ]
    flows = [
        {
            "references": flow.references,
            "targets": flow.targets,
            "pairs": flow.pairs.tolist(),
            "rows": [
                [table.name(method), [[None if np.isnan(x) else float(f"{x:.5g}") for x in line] for line in means]]
                for method, means, _ in flow.rows
            ],
        }
        for flow in table.flows
    ]
    text = json.dumps({"columns": columns, "points": points, "flows": flows}, allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c")
