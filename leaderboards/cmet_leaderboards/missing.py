"""Writes which values are missing, once for all methods that lack the same ones.

A metric that does not apply to a pair is not a fault of a method. Such pairs are stated in a sentence, once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cmet_leaderboards.tables import Table
from talking_face.names import counted
from talking_face.reasons import Reason


@dataclass(frozen=True)
class Missing:
    """Pairs without a value of the same metrics for the same reason, with the same number for each of the methods."""

    methods: str
    count: int
    reason: str
    metrics: str
    detail: str  # one of the pairs and its message, as an example


def missing(table: Table) -> tuple[list[Missing], list[str]]:
    """The missing values, and a sentence for each kind of pairs to which a metric does not apply."""
    found: dict[tuple[str, int, tuple[str, ...]], tuple[list[str], str]] = {}
    for one in table.missing:
        methods, _ = found.setdefault((one.reason, one.count, one.metrics), ([], one.detail))
        methods.append(one.method)
    lines = [
        Missing(_who(table, methods), count, reason, ", ".join(metrics), detail)
        for (reason, count, metrics), (methods, detail) in found.items()
    ]
    asked = [line for line in lines if line.reason != Reason.NOT_ASKED.value]
    return asked, [_sentence(line) for line in lines if line.reason == Reason.NOT_ASKED.value]


def _who(table: Table, methods: Sequence[str]) -> str:
    """The methods as text. If most methods are in it, the text names the others."""
    others = [row.title for row in table.rows if row.title not in methods]
    if not others:
        return "every method"
    return f"every method but {'; '.join(others)}" if len(others) < len(methods) else "; ".join(methods)


def _sentence(line: Missing) -> str:
    verb = "do" if ", " in line.metrics else "does"
    pairs = f"{counted(line.count, 'pair')} ({line.methods})"
    return f"Not asked: {line.metrics} {verb} not apply to {pairs}. For example, {line.detail}."
