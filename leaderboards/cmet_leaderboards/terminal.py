"""Shows a Markdown text on a terminal: without escapes, and with table columns of equal width."""

from __future__ import annotations

import html
import re
import unicodedata
from collections.abc import Iterator
from itertools import groupby

_ESCAPED = re.compile(r"\\([\\\[\]|`])")  # see `escaping.markdown`
_BETWEEN_CELLS = re.compile(r"(?<!\\) ?\| ?")


def terminal(text: str) -> str:
    """The text for a terminal.

    Args:
        text: Markdown whose texts were escaped with `escaping.markdown` or `escaping.code`.

    Example:
        >>> print(terminal("| p | name |\\n| --- | --- |\\n| &lt;0.001 | a\\\\|b |"))
        p       name
        <0.001  a|b
    """
    return "\n".join(_lines(text))


def _lines(text: str) -> Iterator[str]:
    for in_table, lines in groupby(text.split("\n"), lambda line: line.startswith("|")):
        if in_table:
            yield from _table([_BETWEEN_CELLS.split(line)[1:-1] for line in lines])
        else:
            yield from map(_plain, lines)


def _table(rows: list[list[str]]) -> Iterator[str]:
    cells = [[_plain(cell) for cell in row] for row in rows if not all(re.fullmatch(":?-+:?", cell) for cell in row)]
    widths = [max((_width(row[i]) for row in cells if i < len(row)), default=0) for i in range(max(map(len, cells)))]
    for row in cells:
        yield "  ".join(cell + " " * (width - _width(cell)) for cell, width in zip(row, widths, strict=False)).rstrip()


def _plain(text: str) -> str:
    return _ESCAPED.sub(r"\1", html.unescape(text))


def _width(text: str) -> int:
    """The columns that a terminal needs for the text."""
    wide = sum(unicodedata.east_asian_width(char) in "WF" for char in text)
    return len(text) + wide - sum(unicodedata.combining(char) > 0 for char in text)
