"""Numbers that papers print, in tables of their own: never in a column with what was measured here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

HEADING = "Published, by the papers' own protocols"
NOTE = (
    "Not measured here, and not comparable with the table above: other clips, other crops, other evaluators. "
    "What one may take from them is an order of methods within one table."
)


@dataclass(frozen=True)
class Printed:
    """One table of a paper."""

    title: str  # paper, table and data set
    protocol: str  # how the numbers were made, as far as that is known
    metrics: tuple[str, ...]
    methods: tuple[tuple[str, tuple[float | None, ...]], ...]  # method, by metric; None where nothing is printed

    def lines(self) -> list[tuple[str, ...]]:
        """Method and numbers as text, with as many digits as the record holds; an en dash where there is none."""
        return [(method, *("–" if v is None else f"{v:g}" for v in values)) for method, values in self.methods]


def printed(records: Iterable[Mapping[str, Any]], setting: str) -> tuple[Printed, ...]:
    """The tables that belong to a setting, methods and metrics in the order of the records.

    Args:
        records: one a number: `board` (the setting of ours that it is shown under), `paper`, `table`, `dataset`,
            `method`, `title` (of the metric, with unit and direction), `value` and `protocol`.
        setting: its name.
    """
    records = list(records)
    order = list(dict.fromkeys(str(record["title"]) for record in records))
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for record in records:
        if record["board"] == setting:
            title = f"{record['paper']}, Table {record['table']}, on {record['dataset']}"
            cells = found.setdefault((title, str(record["protocol"])), {})
            cells[str(record["method"]), str(record["title"])] = float(record["value"])
    out = []
    for (title, protocol), cells in found.items():
        metrics = tuple(sorted({metric for _, metric in cells}, key=order.index))
        methods = dict.fromkeys(method for method, _ in cells)
        lines = tuple((method, tuple(cells.get((method, metric)) for metric in metrics)) for method in methods)
        out.append(Printed(title, protocol, metrics, lines))
    return tuple(out)
