"""Prints figures of trainings with several seeds as tables with intervals."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import t as student

Row = Mapping[str, Sequence[float]]  # column -> one value per seed


def interval(values: Sequence[float]) -> tuple[float, float]:
    """The mean, and half the width of its 95 % interval over the seeds (Student's t); NaN for a single seed."""
    n = len(values)
    if n < 2:
        return float(np.mean(values)), float("nan")
    return float(np.mean(values)), float(student.ppf(0.975, n - 1) * np.std(values, ddof=1) / n**0.5)


def table_lines(title: str, digits: Mapping[str, int], rows: Mapping[str, Row]) -> list[str]:
    """A table in Markdown. A cell has the mean and half the width of its 95 % interval over the seeds.

    Args:
        title: the heading of the first column.
        digits: the columns, and the number of their decimal places.
        rows: the figures. A column that a row lacks is an empty cell.
    """
    lines = [f"| {title} | " + " | ".join(digits) + " |", "|---|" + "---|" * len(digits)]
    for row, values in rows.items():
        cells = []
        for name, places in digits.items():
            mean, half = interval(values[name]) if name in values else (float("nan"), float("nan"))
            spread = f" ± {half:.{places}f}" if np.isfinite(half) else ""
            cells.append(f"{mean:.{places}f}{spread}" if name in values else "")
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return lines


def differences(full: Row, others: Mapping[str, Row]) -> dict[str, dict[str, list[float]]]:
    """The figures of `full` minus those of each other row with the same seed, for the columns that both have."""
    return {
        row: {n: [a - b for a, b in zip(full[n], values[n], strict=True)] for n in full if n in values}
        for row, values in others.items()
    }


def compared(full: str, digits: Mapping[str, int], rows: Mapping[str, Row], alone: Sequence[str] = ()) -> str:
    """Two tables: the figures, and the figures of row `full` minus those of each row with the same seed.

    If zero is outside of the interval of a difference, the difference is more than the chance of the seeds.

    Args:
        alone: rows that are not compared.
    """
    others = {row: values for row, values in rows.items() if row not in (full, *alone)}
    found = differences(rows.get(full, {}), others)
    return "\n".join([*table_lines("", digits, rows), "", *table_lines(f"{full} minus", digits, found)])
