"""What boards need to know about a metric: its title, its place among the columns, and how its values are pooled."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache

from cmet_metrics.base import Metric
from cmet_metrics.registry import get_metric
from talking_face.reasons import UserError

Pooled = Callable[[Mapping[str, float]], float | None]  # sums of statistics over pairs -> the metric's value

_ORDER = ("psnr", "ssim", "m_lmd", "f_lmd", "lse", "lse_c", "lse_d", "lse_offset", "csim", "ea", "fid")
# Variants of these families measure different things; those of other families are protocols for one thing.
_VARIANTS_DIFFER = frozenset({"registration", "jitter", "lip_energy"})


def title(family: str) -> str:
    """The name in a column's head: `M-LMD` for `m_lmd`, `Emotion leak` for `emotion_leak`."""
    words = family.split("_")
    if len(words[0]) > 4 or words[0] == "lip":  # no abbreviation
        return " ".join(words).capitalize()
    return "-".join(words).upper()


def place(family: str) -> int:
    """Where the family's columns are on a board, from the left; unknown families come last."""
    return _ORDER.index(family) if family in _ORDER else len(_ORDER)


def variants_are_protocols(family: str) -> bool:
    """Whether the variants measure the same thing in different ways, so that their rankings can be compared."""
    return family not in _VARIANTS_DIFFER


def counts_predictions(family: str) -> bool:
    """Whether the statistics count a classifier's predictions, so that a confusion matrix can be made from them."""
    return family == "ea"


@cache
def pooled(metric: str) -> Pooled | None:
    """The function that makes a pooled metric's value from its sums.

    Args:
        metric: `name:variant`.

    Returns:
        None for an unknown metric and for a metric that is the plain mean over pairs.
    """
    try:
        found = get_metric(metric)
    except (UserError, KeyError, ValueError):
        return None
    return None if type(found).mean_of is Metric.mean_of else found.mean_of
