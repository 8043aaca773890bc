"""Prints a measurement on the terminal: the table, the reasons of missing values, notes and signatures."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

from cmet_eval.measuring.result import Measured
from cmet_metrics.record import UNITS

Form = Literal["table", "json", "csv", "markdown", "latex"]
_TREATMENT = re.compile(r"\|(rate:.*)\|version:")  # the fields of a signature that state how files were treated
_SHOWN = 3  # cases that a line about a reason names


def formatted(result: Measured, form: Form, per_clip: bool = False) -> str:
    """The result in one of the forms. With `per_clip`, the values of each case; JSON always has them."""
    text = {
        "table": lambda: summary(result, per_clip),
        "json": result.to_json,
        "csv": lambda: result.to_csv(per_clip),
        "markdown": lambda: result.to_markdown(per_clip),
        "latex": lambda: result.to_latex(per_clip),
    }[form]()
    return text.rstrip("\n")


def summary(result: Measured, per_clip: bool = False) -> str:
    """The text for the terminal. With `per_clip`, the values of each case come first."""
    return "\n".join(_lines(result, per_clip))


def _lines(result: Measured, per_clip: bool) -> Iterator[str]:
    if per_clip:
        names = [f"{one.metric.title} {one.metric.key.partition(':')[2]}" for one in result.means]
        yield from _aligned(["clip", *names], result.printed())
        yield ""
    of_list = result.target == result.method  # a CSV list names the videos and their ground truths
    against = "" if of_list else f" against {result.target}" if result.target else ", without ground truth"
    yield f"{result.method}{against}"
    if result.protocol:
        yield result.protocol_line
    yield from _aligned(["metric", "mean", "std", "n", "unit"], [line for line, _ in result.lines()])
    yield from ("", *reasons(result))
    yield from dict.fromkeys(result.notes)
    yield from _clip_notes(result)
    yield from (
        f"{unit}: {UNITS[unit]}" for unit in dict.fromkeys(m.metric.unit for m in result.means) if unit in UNITS
    )
    yield from _signatures([one.signature for one in result.means])


def _signatures(whole: Sequence[str]) -> Iterator[str]:
    """The signatures. A treatment of the files that several of them state is printed once."""
    treatments = [found[1] for text in whole if (found := _TREATMENT.search(text))]
    shared = max(treatments, key=lambda text: (treatments.count(text), len(text)), default="")
    if treatments.count(shared) < 2:
        yield "signatures:"
        yield from (f"  {text}" for text in whole)
        return
    yield f"treatment: {shared}"
    yield "signatures, with the word treatment for that line (--format csv prints them whole):"
    yield from (f"  {text.replace(f'|{shared}|', '|treatment|')}" for text in whole)


def _aligned(head: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """The rows with columns of equal width; the first column is left-aligned."""
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(len(head))]
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(text.rjust(width) for text, width in zip(row[1:], widths[1:], strict=True))]
        yield "  ".join(cells).rstrip()


def reasons(result: Measured) -> Iterator[str]:
    """One line per reason: how many cases, in which metrics, and the message of the first case."""
    found: dict[tuple[str, str], tuple[dict[str, None], dict[str, None]]] = {}
    for row in result.lost:
        cases, metrics = found.setdefault((str(row.reason), row.detail), ({}, {}))
        cases[row.pair_id] = metrics[row.metric] = None
    merged: dict[tuple[str, tuple[str, ...]], tuple[dict[str, None], str]] = {}
    for (reason, detail), (cases, metrics) in found.items():
        names, _ = merged.setdefault((reason, tuple(metrics)), ({}, detail))
        names.update(cases)
    total = len({row.pair_id for row in result.rows})
    for (reason, keys), (names, detail) in merged.items():
        where = "all metrics" if len(keys) == len(result.metrics) else ", ".join(keys)
        some = ", ".join(list(names)[:_SHOWN]) + (" ..." if len(names) > _SHOWN else "")
        yield f"no value, {reason}: {len(names)} of {total} videos ({some}) in {where}: {detail}"


def _clip_notes(result: Measured) -> Iterator[str]:
    """One line per note about videos, with the number of videos that have it."""
    found: dict[str, dict[str, None]] = {}
    for row in result.rows:
        for note in filter(None, row.notes.split("; ")):
            found.setdefault(note, {})[row.pair_id] = None
    for note, cases in found.items():
        some = ", ".join(list(cases)[:_SHOWN]) + (" ..." if len(cases) > _SHOWN else "")
        yield f"note: {note}: {len(cases)} videos ({some})" if len(cases) > 1 else f"note: {note}: {some}"
