"""Puts a text that another program or library wrote on one line, for messages and records."""

from __future__ import annotations


def one_line(text: object, most: int | None = None) -> str:
    """The text with one space in place of every run of spaces and line ends.

    Args:
        text: an error, or any other object with a text.
        most: maximum number of characters; the rest is cut. None: no limit.

    Example:
        >>> one_line(ValueError("no\\n  such file"), 7)
        'no such'
    """
    return " ".join(str(text).split())[:most]
