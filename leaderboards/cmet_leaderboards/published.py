"""Builds tables of numbers from papers. These numbers never share a column with numbers that this suite measures."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

HEADING = "Published, by the papers' own protocols"
_HEADING_RECORDED = "Published on recorded data, by the papers' own protocols"
_NOT_ALL_RECORDED = ("drawn", "mixed")
_NOTE_RECORDED = " The papers measured recordings of people; the clips of this board are not all recorded."
NOTE = (
    "Not measured here, and not comparable with the table above: other clips, other crops, other evaluators. "
    "They only show an order of methods within one table."
)


def heading(origin: str) -> str:
    """The heading of the published tables below a table whose data have this origin."""
    return _HEADING_RECORDED if origin in _NOT_ALL_RECORDED else HEADING


def note(origin: str) -> str:
    """The text below the heading."""
    return NOTE + _NOTE_RECORDED if origin in _NOT_ALL_RECORDED else NOTE


@dataclass(frozen=True)
class PublishedTable:
    """One table of a paper."""

    title: str  # paper, table and data set
    protocol: str  # how the numbers were measured, as far as it is known
    metrics: tuple[str, ...]
    methods: tuple[tuple[str, tuple[float | None, ...]], ...]  # method, and a number or None per metric
    # (method, source, titles of the metrics): numbers that the paper's caption says it copied, and from which paper.
    copied: tuple[tuple[str, str, tuple[str, ...]], ...] = ()

    def lines(self) -> list[tuple[str, ...]]:
        """Each method and its numbers as text, with all digits of the record; an en dash if there is no number."""
        return [(method, *("–" if v is None else f"{v:g}" for v in values)) for method, values in self.methods]

    def origins(self) -> list[str]:
        """One sentence per method whose numbers the paper copied from another paper."""
        return [
            f"{method}: {', '.join(metrics)} copied from {source}, by the table's caption."
            for method, source, metrics in self.copied
        ]


def published_tables(records: Iterable[Mapping[str, object]], setting: str) -> tuple[PublishedTable, ...]:
    """The published tables to show with a setting. Methods and metrics are in the order of the records.

    Args:
        records: one per number, with `board` (the setting of this suite with which it is shown), `paper`, `table`,
            `dataset`, `method`, `title` (of the metric, with unit and direction), `value`, `protocol` and, where the
            paper copied the number, `copied_from` (the paper of origin).
        setting: the name of the setting.
    """
    records = list(records)
    order = list(dict.fromkeys(str(record["title"]) for record in records))
    found: dict[tuple[str, str], dict[tuple[str, str], float]] = {}
    copied: dict[tuple[str, str], dict[tuple[str, str], list[str]]] = {}
    for record in records:
        if record["board"] == setting:
            title = f"{record['paper']}, Table {record['table']}, on {record['dataset']}"
            key, method = (title, str(record["protocol"])), str(record["method"])
            found.setdefault(key, {})[method, str(record["title"])] = float(str(record["value"]))
            if source := str(record.get("copied_from") or ""):
                copied.setdefault(key, {}).setdefault((method, source), []).append(str(record["title"]))
    out = []
    for (title, protocol), cells in found.items():
        metrics = tuple(sorted({metric for _, metric in cells}, key=order.index))
        methods = dict.fromkeys(method for method, _ in cells)
        lines = tuple((method, tuple(cells.get((method, metric)) for metric in metrics)) for method in methods)
        origins = copied.get((title, protocol), {})
        sources = tuple((method, source, tuple(titles)) for (method, source), titles in origins.items())
        out.append(PublishedTable(title, protocol, metrics, lines, sources))
    return tuple(out)
