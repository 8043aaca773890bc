"""Known defects of the datasets: one CSV for each dataset, applied by default, switched off by `--no-defects`.

Columns: `key`, a clip_id in which * matches any text; `reason`, a sentence; `source`, who reports the defect. A table
lists only clips that are useless. Defects that a reader repairs, such as a silent video with a good sound file, are not
listed.
"""

from __future__ import annotations

import csv
import fnmatch
import re
from dataclasses import dataclass
from functools import cache
from importlib import resources


@dataclass(frozen=True, slots=True)
class Defect:
    """One row of a table."""

    key: str
    reason: str
    source: str


@cache
def table(dataset: str) -> tuple[Defect, ...]:
    """The rows of a dataset, in the order of the file; empty where there is no file."""
    path = resources.files(__package__).joinpath(f"{dataset}.csv")
    if not path.is_file():
        return ()
    return tuple(Defect(**row) for row in csv.DictReader(path.read_text("utf-8").splitlines()))


def find(dataset: str, clip_id: str) -> Defect | None:
    """The first row whose key matches the clip, or None."""
    exact, patterns = _index(dataset)
    if clip_id in exact:
        return exact[clip_id]
    return next((defect for pattern, defect in patterns if pattern.fullmatch(clip_id)), None)


@cache
def _index(dataset: str) -> tuple[dict[str, Defect], list[tuple[re.Pattern[str], Defect]]]:
    rows = table(dataset)
    exact = {row.key: row for row in rows if "*" not in row.key}
    patterns = [(re.compile(fnmatch.translate(row.key)), row) for row in rows if "*" in row.key]
    return exact, patterns
