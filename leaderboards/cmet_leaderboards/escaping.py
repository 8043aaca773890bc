"""Escapes texts for Markdown, CSV files and scripts, because titles and names can come from a stranger.

The page is escaped by its template; see `html.py`.
"""

from __future__ import annotations

import json

# Spreadsheets compute a cell that begins with one of these characters.
_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_MARKDOWN = str.maketrans(
    {
        **{"\\": "\\\\", "&": "&amp;", "<": "&lt;", ">": "&gt;", "|": "\\|"},
        **{"[": "\\[", "]": "\\]", "`": "\\`", "\n": " ", "\r": " "},
    }
)


def markdown(text: str) -> str:
    """The text for a cell or a line of Markdown: without HTML, links, code and line breaks. `*` still marks bold text.

    Example:
        >>> markdown("a|b <script>")
        'a\\\\|b &lt;script&gt;'
    """
    return text.translate(_MARKDOWN)


def code(text: str) -> str:
    """The text as code in Markdown, on one line. In a cell of a table, `|` would still divide the cell."""
    return "`" + text.replace("`", "'").replace("\n", " ").replace("\r", " ") + "`"


def csv_cell(value: object) -> object:
    """The value for a cell of a CSV file: None becomes an empty cell, and a number keeps all its digits.

    A text that begins with `=`, `+`, `-`, `@`, a tab or a line break gets a `'` before it, so that no spreadsheet
    computes it. `csv_text` gives the text back. Numbers are not changed.
    """
    if value is None:
        return ""
    if isinstance(value, float):
        return repr(value)
    return f"'{value}" if isinstance(value, str) and _is_formula(value) else value


def csv_text(cell: str) -> str:
    """The text in a cell that `csv_cell` wrote."""
    return cell[1:] if cell.startswith("'") and _is_formula(cell) else cell


def script_json(value: object) -> str:
    """The value as JSON for a script of a page. `<` is escaped, so that no text ends the script."""
    text = json.dumps(value, allow_nan=False, ensure_ascii=False, separators=(",", ":"))
    return text.replace("<", "\\u003c")


def _is_formula(text: str) -> bool:
    return text.lstrip("'").startswith(_FORMULA)
