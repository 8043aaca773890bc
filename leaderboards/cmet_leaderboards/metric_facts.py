"""Reads the facts about a metric that boards need: its title, the position of its column, and how it is pooled.

The argument of every function is the metric's key in a result row. The metric or its variant can be unknown to this
version of the suite.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from cmet_metrics.base import Metric
from cmet_metrics.record import LAST
from cmet_metrics.registry import find_record

Pooled = Callable[[Mapping[str, float]], float | None]  # sums of statistics over pairs -> the metric's value

_record = cache(find_record)


@cache
def _exact(metric: str) -> Metric | None:
    """The metric with this key; None if it is unknown, or if only its variant is unknown."""
    found = _record(metric)
    return found if found is not None and found.key == metric else None


@dataclass(frozen=True)
class MetricAbout:
    """What the suite knows about a metric; empty texts if the metric is unknown to this version."""

    summary: str = ""
    unit: str = ""
    direction: str = ""
    source: str = ""
    bibtex: str = ""
    version: str = ""
    profile: str = ""
    needs: tuple[str, ...] = ()


def about(metric: str) -> MetricAbout:
    """What the suite knows about the metric with this key."""
    found = _exact(metric)
    if found is None:
        return MetricAbout()
    needs = {
        "a ground truth": found.needs_target,
        "sound": found.needs_audio,
        "emotion labels": found.needs_labels,
        "reference frames": found.needs_reference,
    }
    higher = "higher is better" if found.higher_is_better else "lower is better"
    return MetricAbout(
        summary=found.summary,
        unit=found.unit,
        direction=higher if found.ideal is None else f"nearer to {found.ideal:g} is better",
        source=found.source,
        bibtex=found.bibtex,
        version=found.version,
        profile=found.profile,
        needs=tuple(name for name, needed in needs.items() if needed),
    )


def is_known(metric: str) -> bool:
    """Whether this suite has the metric with this key."""
    return _exact(metric) is not None


def title(metric: str) -> str:
    """The name in a column's head, such as `M-LMD` for `m_lmd:eat`. For an unknown metric: the family in the key."""
    found = _record(metric)
    return found.title if found else metric.partition(":")[0]


def full_title(metric: str) -> str:
    """The title and the variant, such as `M-LMD (eat-mp)`."""
    variant = metric.partition(":")[2]
    return f"{title(metric)} ({variant})" if variant else title(metric)


def place(metric: str) -> int:
    """The position of the metric's column on a board: lower numbers are first, and unknown metrics are last."""
    found = _record(metric)
    return found.order if found else LAST


def limits(metric: str) -> tuple[float, float]:
    """The lowest and the highest possible value; infinite if the metric has no limit or is unknown."""
    found = _record(metric)
    return found.limits if found else (-math.inf, math.inf)


def judges_emotion(metric: str) -> bool:
    """Whether the value states which emotion a clip shows."""
    found = _record(metric)
    return found is not None and found.judges_emotion


def variants_are_protocols(metric: str) -> bool:
    """Whether the variants of the metric's family measure the same quantity. Boards then compare their rankings."""
    found = _record(metric)
    return found is None or found.variants_are_protocols


def counts_predictions(metric: str) -> bool:
    """Whether the statistics contain a classifier's predictions, from which a confusion matrix can be computed."""
    found = _record(metric)
    return found is not None and found.counts_predictions


def is_trained_on_data(metric: str) -> bool:
    """Whether the metric's network is an evaluator that was trained on the training clips of the data set."""
    return evaluator(metric) is not None


def evaluator(metric: str) -> str | None:
    """The kind of the evaluator that was trained on the data set, if the metric uses one."""
    found = _exact(metric)
    return found.evaluator if found else None


def pooled(metric: str) -> Pooled | None:
    """The function that computes a pooled metric's value from sums.

    Returns:
        the function; None if the metric is unknown, or if its value is the mean over pairs.
    """
    found = _exact(metric)
    return found.mean_of if found and found.pooled else None
