"""Reads the numbers that papers print, one number per row of published.csv, and compares them.

These numbers are never in the same column as measured numbers. docs/reference/published.md states how the protocol of
each paper differs from this suite's, and where papers contradict themselves.
"""

from __future__ import annotations

import csv
import tomllib
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

from cmet_baselines.registry import catalogue
from cmet_metrics.registry import get_metric
from talking_face.reasons import UserError

_FILE = Path(__file__).parent / "published.csv"
# Settings in published.csv whose rows describe a dataset and not a method.
OF_DATA = ("emotion-proportion",)
# Number of rows in C-MET's test list of each dataset. An accuracy is 100 * k / rows for an integer k.
ROWS = {"MEAD": 1143, "CREMA-D": 1546}
# Number of rows in the same lists, by target emotion (cmet_eval/protocol/settings/cmet-*.csv).
CLASS_ROWS = {
    "MEAD": {
        **{"angry": 159, "contempt": 166, "disgusted": 161, "fear": 159, "happy": 168, "sad": 165, "surprised": 165},
    },
    "CREMA-D": {"angry": 309, "disgusted": 292, "fear": 329, "happy": 308, "sad": 308},
}


class PublishedNumber(NamedTuple):
    """One printed number."""

    paper: str
    table: str
    dataset: str
    setting: str
    method: str  # as the paper prints it
    metric: str
    value: float
    copied_from: str  # reference number and name of the paper from which the caption says the number is; or empty


@cache
def numbers() -> tuple[PublishedNumber, ...]:
    """All rows of published.csv, in the order of the file."""
    with _FILE.open(encoding="utf-8", newline="") as file:
        return tuple(
            PublishedNumber(
                **{name: line[name] for name in PublishedNumber._fields if name != "value"}, value=float(line["value"])
            )
            for line in csv.DictReader(file)
        )


def of_entry(name: str) -> list[PublishedNumber]:
    """The rows for the names in `published_as` of a catalogue entry. Raises UserError if the entry is unknown."""
    if name not in catalogue():
        raise UserError(f"no method named {name!r} in the catalogue")
    names = catalogue()[name].published_as
    return [row for row in numbers() if row.method in names and row.setting not in OF_DATA]


def published_rows() -> list[dict[str, object]]:
    """The rows about methods, as plain records for boards.

    Returns:
        one record per row, with the row's fields and four more. `entry` is the method's name in the catalogue. `board`
        is the setting of this suite whose board shows the row, or empty. `title` is the title of the metric. `protocol`
        states how the number was measured.
    """
    known = tomllib.loads(_FILE.with_suffix(".toml").read_text(encoding="utf-8"))
    protocols = {(part["paper"], part["dataset"]): part for part in known["protocols"]}
    entries = {printed: entry.name for entry in catalogue().values() for printed in entry.published_as}
    out = []
    for row in numbers():
        if row.setting not in OF_DATA:
            protocol, (name, _, part) = protocols[row.paper, row.dataset], row.metric.partition("/")
            out.append(
                row._asdict()
                | {
                    "entry": entries[row.method],
                    "board": protocol["boards"].get(row.setting, ""),
                    "title": f"{part}: {known['titles'][name]}" if part else known["titles"][name],
                    "protocol": protocol["text"],
                }
            )
    return out


def by_table(rows: Iterable[PublishedNumber]) -> dict[tuple[str, str, str, str], list[PublishedNumber]]:
    """{(paper, table, dataset, setting): rows}, in the order of the file."""
    found: dict[tuple[str, str, str, str], list[PublishedNumber]] = {}
    for row in rows:
        found.setdefault((row.paper, row.table, row.dataset, row.setting), []).append(row)
    return found


# Arithmetic on the printed numbers -----------------------------------------------------------------------------------


def hits(percent: float, rows: int, digits: int = 2) -> int | None:
    """The k for which 100 * k / rows, rounded to `digits` decimal places, is `percent`; None if there is no such k.

    Example:
        >>> hits(55.91, 1143), hits(33.36, 1143)
        (639, None)
    """
    k = round(percent * rows / 100)
    fits = [i for i in (k - 1, k, k + 1) if f"{100 * i / rows:.{digits}f}" == f"{percent:.{digits}f}"]
    return fits[0] if fits else None


def differences(first: str, second: str, paper: str = "CEM-Net") -> list[tuple[PublishedNumber, float]]:
    """The rows of table `second` for which table `first` of the same paper prints a different number.

    Numbers that differ by less than 0.01 do not count as different, because one table prints fewer digits: for example,
    .89 and .8962.

    Returns:
        a list of (row, number in `second` minus number in `first`).
    """
    rows = [row for row in numbers() if row.paper.startswith(paper)]
    known = {(r.dataset, r.setting, r.method, r.metric): r.value for r in rows if r.table == first}
    found = []
    for row in rows:
        before = known.get((row.dataset, row.setting, row.method, row.metric)) if row.table == second else None
        if before is not None and abs(row.value - before) >= 0.01:
            found.append((row, round(row.value - before, 4)))
    return found


def repeated(metrics: Sequence[str], digits: int = 4) -> list[tuple[PublishedNumber, PublishedNumber]]:
    """Pairs of rows in the same paper with equal numbers of a metric, for different methods, data sets or settings.

    Only numbers with at least `digits` significant digits are compared, because shorter numbers are often equal by
    chance. The rows of the ground truth are left out. Table V of CEM-Net is left out too, because it prints the same
    runs as table III.
    """
    rows = [r for r in numbers() if r.metric in metrics and r.method != "Ground truth" and r.table not in ("V", "6")]
    long = [r for r in rows if len(f"{r.value:g}".replace(".", "").lstrip("0")) >= digits]
    return [
        (a, b)
        for index, a in enumerate(long)
        for b in long[index + 1 :]
        if (a.paper, a.metric, a.value) == (b.paper, b.metric, b.value)
        and (a.dataset, a.setting, a.method) != (b.dataset, b.setting, b.method)
    ]


def copied() -> dict[tuple[str, str, str], list[PublishedNumber]]:
    """{(table, setting, source): the numbers that the caption of the table says were copied from the source}."""
    found: dict[tuple[str, str, str], list[PublishedNumber]] = {}
    for row in numbers():
        if row.copied_from:
            found.setdefault((row.table, row.setting, row.copied_from), []).append(row)
    return found


def improves(method: str, before: str = "neutral-base", after: str = "cross-emotion") -> dict[str, tuple[float, float]]:
    """The metrics of table II of CEM-Net that are better in setting `after` than in setting `before`.

    Returns:
        {metric: (value in `before`, value in `after`)}.
    """
    value = {(r.setting, r.metric): r.value for r in numbers() if (r.table, r.method) == ("II", method)}
    return {
        metric: (old, new)
        for (setting, metric), old in value.items()
        if setting == before
        and (new := value.get((after, metric))) is not None
        and (new > old if get_metric(metric).higher_is_better else new < old)
    }


def better(one: str, other: str, setting: str, dataset: str = "MEAD", table: str = "II") -> list[str]:
    """The metrics for which method `one` has a better number than method `other` in a table of CEM-Net."""
    value = {
        (r.method, r.metric): r.value for r in numbers() if (r.table, r.dataset, r.setting) == (table, dataset, setting)
    }
    return [
        metric
        for (method, metric), mine in value.items()
        if method == one
        and (theirs := value.get((other, metric))) is not None
        and (mine > theirs if get_metric(metric).higher_is_better else mine < theirs)
    ]
