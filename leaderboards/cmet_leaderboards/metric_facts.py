"""Reads from a metric's record what boards need: its title, its place among the columns, and how it is pooled.

Every function takes the key in a result row, which may be of a metric or a variant that is unknown here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from cmet_metrics.base import Metric
from cmet_metrics.record import LAST
from cmet_metrics.registry import find_record

Pooled = Callable[[Mapping[str, float]], float | None]  # sums of statistics over pairs -> the metric's value

_record = cache(find_record)


def title(metric: str) -> str:
    """The name in a column's head: `M-LMD` for `m_lmd:eat`; the key's family for an unknown metric."""
    found = _record(metric)
    return found.title if found else metric.partition(":")[0]


def place(metric: str) -> int:
    """The place of the metric's column on a board, lowest first; unknown metrics come last."""
    found = _record(metric)
    return found.order if found else LAST


def variants_are_protocols(metric: str) -> bool:
    """Whether the variants of the metric's family are protocols for one quantity, so that boards compare rankings."""
    found = _record(metric)
    return found is None or found.variants_are_protocols


def counts_predictions(metric: str) -> bool:
    """Whether the statistics count a classifier's predictions, so that a confusion matrix can be made from them."""
    found = _record(metric)
    return found is not None and found.counts_predictions


def pooled(metric: str) -> Pooled | None:
    """The function that makes a pooled metric's value from its sums.

    Returns:
        None for an unknown metric and for a metric that is the plain mean over pairs.
    """
    found: Metric | None = _record(metric)
    return found.mean_of if found is not None and found.key == metric and found.pooled else None
