"""Writes numbers as text: the one rounding rule of pages, the site, Markdown, LaTeX, reports and `measure`.

A number is rounded to 6 significant digits first, and then to its decimals. Two versions of a package can add numbers
in another order: one gives the mean 0.46249999999999997, and the other 0.4625. Both are `0.463`.
"""

from __future__ import annotations

DIGITS = 6  # significant digits; texts have fewer


def significant(value: float) -> float:
    """The number with DIGITS significant digits."""
    return float(f"{value:.{DIGITS}g}")


def fixed(value: float, decimals: int) -> str:
    """The number as text with this many digits after the decimal point. The text is never `-0.00`.

    Example:
        >>> fixed(0.46249999999999997, 3), fixed(0.4625, 3), fixed(-0.001, 2)
        ('0.463', '0.463', '0.00')
    """
    text = f"{significant(value):.{decimals}f}"
    return text if float(text) else text.lstrip("-")


def percent(share: float, decimals: int = 0) -> str:
    """A share as percent, such as `34%` for 0.34."""
    return f"{fixed(100 * share, decimals)}%"
