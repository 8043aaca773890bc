"""Writes the answers of a calibration as Markdown tables."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from cmet_eval.calibration.answers import BASE, SOUND_ONLY, Answer, groups, label
from cmet_eval.calibration.degradations import DEGRADATIONS, Degradation
from cmet_eval.calibration.noise import band_of, claim_of, kinds_of_noise, offsets, verdict, whole_band
from cmet_metrics.base import Metric

_MARKS = {"worse": "↑ ", "unchanged": "= ", "": ""}


def tables(answers: Sequence[Answer], metrics: Sequence[Metric]) -> str:
    """Markdown text with three tables: the noise bands, the changes at the last steps, and the offsets of the sound."""
    lines: list[str] = []
    for group in groups(answers):
        mine = [a for a in answers if a.group == group]
        used = [m for m in metrics if any(a.metric == m.key and a.value is not None for a in mine)]
        lines += _band_lines(mine, used, group)
        lines += _change_lines(mine, used, group)
        lines.append("")
    lines += _offset_lines(answers, metrics)
    return "\n".join([*lines, ""])


def _band_lines(answers: Sequence[Answer], metrics: Sequence[Metric], group: str) -> Iterator[str]:
    noise = kinds_of_noise(answers)
    yield f"### Noise bands, {group} clips\n"
    yield from _head(["metric", "clips", *(f"{name} {step}" for name, step in noise), "band"])
    for metric in metrics:
        clips = len({a.clip for a in answers if a.metric == metric.key})
        found = [
            *(band_of(answers, metric.key, *kind, group) for kind in noise),
            whole_band(answers, metric.key, group),
        ]
        yield _line([f"`{metric.key}`", str(clips), *("-" if value is None else f"{value:.2g}" for value in found)])


def _change_lines(answers: Sequence[Answer], metrics: Sequence[Metric], group: str) -> Iterator[str]:
    known = {a.degradation for a in answers if a.value is not None}
    shown = [how for how in DEGRADATIONS if not how.sound_only and how.name in known]
    yield f"\n### What the last step changes, median of {group} clips\n"
    yield from _head(["metric", "before", *(f"{how.name} {label(how.steps[-1])}" for how in shown)])
    for metric in metrics:
        before = [a.value for a in answers if (a.metric, a.degradation) == (metric.key, BASE) and a.value is not None]
        cells = [_change(answers, metric, how, group) for how in shown]
        yield _line([f"`{metric.key}`", f"{np.median(before):.3g}" if before else "-", *cells])


def _change(answers: Sequence[Answer], metric: Metric, how: Degradation, group: str) -> str:
    """The cell of a table: the median change with a mark for the claim, in bold if the claim fails."""
    wrong, change = verdict(answers, metric, how, group)
    if change is None:
        return "-"
    bold = "**" if wrong else ""
    return f"{bold}{_MARKS[claim_of(metric, how)]}{change:+.3g}{bold}"


def _offset_lines(answers: Sequence[Answer], metrics: Sequence[Metric]) -> Iterator[str]:
    yield "### Sound shifted by k = -10 to 10 frames\n"
    yield from _head(["metric", "clips", "videos", "offset is k", "within 1", "k more than the unmoved clip's"])
    for group in sorted({a.group for a in answers}):
        for metric in (m for m in metrics if m.measures_offset):
            total, *good = offsets(answers, metric.key, group)
            if total:
                clips = len({a.clip for a in answers if (a.metric, a.group) == (metric.key, group)})
                pictures = ", pictures as in the shards" if SOUND_ONLY in group else ""
                about = f"{clips} {group.removesuffix(SOUND_ONLY)}{pictures}"
                shares = [f"{count} ({100 * count / total:.0f}%)" for count in good]
                yield _line([f"`{metric.key}`", about, str(total), *shares])


def _head(cells: Sequence[str]) -> Iterator[str]:
    yield _line(cells)
    yield _line(["---"] * len(cells))


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
