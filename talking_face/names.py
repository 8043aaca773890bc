"""Suggestions for names that a user mistyped, and nouns after a number."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], at_most: int = 1) -> str:
    """The text `; did you mean NAME?` with the known names most similar to `name`, or "" if no name is similar.

    Args:
        name: the unknown name.
        known: all names that exist.
        at_most: maximum number of names to suggest.

    Example:
        >>> did_you_mean("psnrr", ["psnr", "ssim"])
        '; did you mean psnr?'
    """
    near = difflib.get_close_matches(name, list(known), n=at_most)
    return f"; did you mean {' or '.join(near)}?" if near else ""


def counted(count: int, noun: str) -> str:
    """The number and the noun, with the ending `s` unless the number is 1.

    Example:
        >>> counted(1, "pair"), counted(2, "pair")
        ('1 pair', '2 pairs')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
