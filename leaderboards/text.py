"""Boards as Markdown and CSV. The same tables give the same bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from typing import Any

from leaderboards.tables import Cell, Column, Table
from leaderboards.wording import RULES, column_title, coverage, facts, half_width, interval_note, named_values, number

# Markdown ------------------------------------------------------------------------------------------------------------


def to_markdown(tables: Sequence[Table]) -> str:
    """All tables, then per-emotion tables, losses and signatures of each."""
    out = ["# Leaderboard", ""]
    for table in tables:
        out += _markdown_table(table)
    out += ["## How to read it", "", *(f"- **{name}**: {text}" for name, text in RULES), ""]
    return "\n".join(out)


def _markdown_table(table: Table) -> list[str]:
    out = [f"## {_escape(table.title)}", "", _escape(str(table.setting.get("summary", ""))), "", facts(table), ""]
    if table.apart:
        out += [f"Not comparable with the setting's other tables: {named_values(table.apart)}.", ""]
    head = ["Method", *(f"{column_title(c)} {'↑' if c.higher_is_better else '↓'}" for c in table.columns)]
    out += ["| " + " | ".join(map(_escape, head)) + " |", "|---" * len(head) + "|"]
    for row in table.rows:
        cells = [f"{row.title} (ceiling)" if row.role == "ceiling" else row.title]
        for column, cell in zip(table.columns, row.cells, strict=True):
            cells.append(_markdown_cell(column, cell))
        out.append("| " + " | ".join(map(_escape, cells)) + " |")
    out += ["", interval_note(table) + " Coverage in brackets.", ""]
    for part in table.breakdowns:
        arrow = "↑" if part.column.higher_is_better else "↓"
        out += [f"### {column_title(part.column)} {arrow} by target emotion", ""]
        head = ["Method", *(f"{e} ({n})" for e, n in zip(part.emotions, part.pairs, strict=True))]
        out += ["| " + " | ".join(map(_escape, head)) + " |", "|---" * len(head) + "|"]
        for title, cells_ in part.rows:
            texts = []
            for cell, expected in zip(cells_, part.pairs, strict=True):
                text = number(cell.mean, part.column) if cell else "–"
                texts.append(text if cell and cell.scored == expected else f"{text} ({cell.scored if cell else 0})")
            out.append("| " + " | ".join(map(_escape, [title, *texts])) + " |")
        out.append("")
    if table.losses:
        out += [
            "### What is missing",
            "",
            "| Method | Metrics | Pairs | Reason | For example |",
            "|---|---|---|---|---|",
        ]
        for loss in table.losses:
            cells = [loss.method, ", ".join(loss.metrics), str(loss.count), loss.reason, loss.detail]
            out.append("| " + " | ".join(map(_escape, cells)) + " |")
        out.append("")
    out += ["### Signatures", ""]
    out += [f"- {_escape(column_title(column))}: {_code(column.signature)}" for column in table.columns]
    out += [f"- {name.replace('_', ' ')}: {_code(value)}" for name, value in table.key.items() if name != "setting"]
    out += [f"- {_escape(row.title)}: {_code(row.command)}" for row in table.rows if row.command]
    return [*out, ""]


def _markdown_cell(column: Column, cell: Cell | None) -> str:
    if cell is None:
        return "not scored"
    value = number(cell.mean, column)
    if (half := half_width(cell)) is not None:
        value += f" ± {number(half, column)}"
    return f"{'**' + value + '**' if cell.best else value} ({coverage(cell)})"


def _code(text: str) -> str:
    return "`" + text.replace("`", "'").replace("\n", " ") + "`"


def _escape(text: str) -> str:
    """Table cells hold no pipe, no line break and no HTML."""
    for a, b in (("&", "&amp;"), ("<", "&lt;"), (">", "&gt;"), ("|", "\\|"), ("\n", " ")):
        text = text.replace(a, b)
    return text


# CSV -----------------------------------------------------------------------------------------------------------------

CSV_COLUMNS = (
    *("setting", "method", "revision", "metric", "signature", "higher_is_better", "unit", "target_emotion"),
    *("mean", "low", "high", "interval_over", "n", "scored", "expected", "infinite", "compared", "best"),
    *("dataset", "data_digest", "data_signature", "pairs_digest", "rules", "profile", "suite_version"),
)


def to_csv(tables: Sequence[Table]) -> str:
    """One row a method and metric, and one a target emotion (`target_emotion` empty: all). Numbers in full."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, fieldnames=CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for table in tables:
        for i, column in enumerate(table.columns):
            part = table.breakdowns[i]
            by_title = dict(part.rows)
            for row in table.rows:
                cells = [("", row.cells[i]), *zip(part.emotions, by_title.get(row.title, ()), strict=False)]
                for emotion, cell in cells:
                    if cell is not None:
                        writer.writerow(_csv_row(table, row.method, row.revision, column, emotion, cell))
    return buffer.getvalue()


def _csv_row(table: Table, method: str, revision: str, column: Column, emotion: str, cell: Cell) -> dict[str, Any]:
    interval = cell.interval
    return {
        **table.key,
        "method": method,
        "revision": revision,
        "metric": column.metric,
        "signature": column.signature,
        "higher_is_better": column.higher_is_better,
        "unit": column.unit,
        "target_emotion": emotion,
        "mean": "" if cell.mean is None else repr(cell.mean),
        "low": "" if interval is None else repr(interval.low),
        "high": "" if interval is None else repr(interval.high),
        "interval_over": "" if interval is None else interval.over,
        "n": cell.n,
        "scored": cell.scored,
        "expected": cell.expected,
        "infinite": cell.infinite,
        "compared": cell.compared,
        "best": cell.best,
    }
