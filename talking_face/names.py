"""Suggestions for names that a user mistyped."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """`; did you mean NAME?` for the known name nearest to `name`, or an empty string where none is near.

    Example:
        >>> did_you_mean("psnrr", ["psnr", "ssim"])
        '; did you mean psnr?'
    """
    near = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""
