"""Builds tables of numbers from papers. These numbers never share a column with numbers that this suite measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HEADING = "Published, by the papers' own protocols"
NOTE = (
    "Not measured here, and not comparable with the table above: other clips, other crops, other evaluators. "
    "They only show an order of methods within one table."
)


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper."""

    title: str  # paper, table and data set
    protocol: str  # how the numbers were measured, as far as it is known
    metrics: tuple[str, ...]
    methods: tuple[tuple[str, tuple[float | None, ...]], ...]  # method, and a number or None per metric

    def lines(self) -> list[tuple[str, ...]]:
        """Each method and its numbers as text, with all digits of the record; an en dash if there is no number."""
        return [(method, *("–" if v is None else f"{v:g}" for v in values)) for method, values in self.methods]


def published_tables(records: Iterable[Mapping[str, object]], setting: str) -> tuple[PublishedTable, ...]:
    """The published tables to show with a setting. Methods and metrics are in the order of the records.

    Args:
        records: one per number, with `board` (the setting of this suite with which it is shown), `paper`, `table`,
            `dataset`, `method`, `title` (of the metric, with unit and direction), `value` and `protocol`.
        setting: the name of the setting.
    """
    records = list(records)
    order = list(dict.fromkeys(str(record["title"]) for record in records))
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    for record in records:
        if record["board"] == setting:
            title = f"{record['paper']}, Table {record['table']}, on {record['dataset']}"
            cells = found.setdefault((title, str(record["protocol"])), {})
            cells[str(record["method"]), str(record["title"])] = float(str(record["value"]))
    out = []
    for (title, protocol), cells in found.items():
        metrics = tuple(sorted({metric for _, metric in cells}, key=order.index))
        methods = dict.fromkeys(method for method, _ in cells)
        lines = tuple((method, tuple(cells.get((method, metric)) for metric in metrics)) for method in methods)
        out.append(PublishedTable(title, protocol, metrics, lines))
    return tuple(out)
