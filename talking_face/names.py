"""Suggestions for names that a user mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str], at_most: int = 1) -> str:
    """`; did you mean NAME?` with the known names nearest to `name`; an empty string if no name is near.

    Args:
        name: the unknown name.
        known: all names that exist.
        at_most: number of names to suggest.

    Example:
        >>> did_you_mean("psnrr", ["psnr", "ssim"])
        '; did you mean psnr?'
    """
    near = difflib.get_close_matches(name, list(known), n=at_most)
    return f"; did you mean {' or '.join(near)}?" if near else ""
