"""Groups result rows by the metric's signature, and selects the pairs for which all compared methods have a value."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pandas as pd

from cmet_leaderboards.row import TABLE_KEYS
from cmet_leaderboards.statistics import common_pairs
from cmet_metrics.base import Metric
from cmet_metrics.registry import find_record


class MetricRows(NamedTuple):
    """The result rows of one metric that can be compared in one table."""

    key: dict[str, str]  # values of TABLE_KEYS
    signature: str
    rows: pd.DataFrame
    expected: int  # number of pairs in the table, including pairs without a value

    @property
    def metric(self) -> str:
        """Key of the metric."""
        return str(self.rows["metric"].iloc[0])


class MethodRows(NamedTuple):
    """The result rows of one method that have a value. If the method is compared: only the rows of the common pairs."""

    method: str
    revision: str
    rows: pd.DataFrame
    compared: bool


def of_metrics(frame: pd.DataFrame, condition: Callable[[Metric], bool]) -> pd.DataFrame:
    """The result rows of all metrics whose record fulfils the condition."""
    records = {key: find_record(key) for key in frame["metric"].unique()}
    keys = [key for key, record in records.items() if record is not None and condition(record)]
    return frame[frame["metric"].isin(keys)]


def by_signature(frame: pd.DataFrame) -> Iterator[MetricRows]:
    """Groups of result rows, sorted. The rows of one group can be compared with each other."""
    expected = frame.groupby(list(TABLE_KEYS), dropna=False)["pair_id"].nunique()
    for values, part in frame.groupby([*TABLE_KEYS, "signature"], sort=True, dropna=False):
        key = dict(zip(TABLE_KEYS, map(str, values), strict=False))
        yield MetricRows(key, str(values[-1]), part, int(expected.loc[values[:-1]]))


def by_method(part: MetricRows) -> Iterator[MethodRows]:
    """The methods of a table, sorted. If a method has too few pairs, it is not compared and keeps all its rows."""
    have = part.rows[part.rows["value"].notna()]
    groups = {
        str(i): (name, have.loc[rows.index.intersection(have.index)])
        for i, (name, rows) in enumerate(part.rows.groupby(["method", "revision"], sort=True))
    }
    pairs = {i: frozenset(rows["pair_id"]) for i, (_, rows) in groups.items()}
    compared, shared = common_pairs(pairs, part.expected)
    for i, ((method, revision), rows) in groups.items():
        used = rows[rows["pair_id"].isin(shared)] if i in compared else rows
        yield MethodRows(str(method), str(revision), used, i in compared)
