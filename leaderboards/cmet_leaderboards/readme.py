"""Writes the tables of a board as short Markdown for a README: the scores and one caption, without further sections."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from cmet_leaderboards.escaping import markdown
from cmet_leaderboards.paper import PaperCell, PaperTable


def to_readme(tables: Sequence[PaperTable]) -> str:
    """A heading, a table and a caption for each table. The same tables give the same bytes."""
    return "\n".join(line for table in tables for line in _lines(table))


def _lines(table: PaperTable) -> Iterator[str]:
    yield from (f"### {markdown(table.title)}", "")
    yield _row(["Method", *(column.label for column in table.columns)])
    yield "|---" + "|---:" * len(table.columns) + "|"
    for group in table.groups:
        for row in group:
            yield _row([f"{row.title} ({row.role})" if row.role else row.title, *map(_cell, row.cells)])
    yield from ("", markdown(" ".join(table.notes)), "")


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(map(markdown, cells)) + " |"


def _cell(cell: PaperCell) -> str:
    value = f"**{cell.value}**" if cell.bold else cell.value
    return value + (f" ± {cell.half}" if cell.half else "") + (f" ({cell.coverage})" if cell.coverage else "")
