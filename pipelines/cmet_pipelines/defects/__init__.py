"""Looks up known defects of the datasets' clips. Clips with a known defect are left out, except with `--no-defects`.

This folder has one CSV file per dataset. The column `key` is a clip_id in which * matches any text. The column `reason`
describes the defect in a sentence. The column `source` names who reports the defect. A file lists only clips that
cannot be used. A file does not list defects that a reader repairs, such as a silent video with a good sound file.
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
    """One row of a dataset's table of defects."""

    key: str
    reason: str
    source: str


@cache
def table(dataset: str) -> tuple[Defect, ...]:
    """The rows of a dataset's file, in the order of the file. Empty if the dataset has no file."""
    path = resources.files(__package__).joinpath(f"{dataset}.csv")
    if not path.is_file():
        return ()
    return tuple(Defect(**row) for row in csv.DictReader(path.read_text("utf-8").splitlines()))


def find(dataset: str, clip_id: str) -> Defect | None:
    """The row whose key matches the clip, or None. A key without * is preferred to a key with *."""
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
