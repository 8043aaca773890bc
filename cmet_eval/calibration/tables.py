"""What a calibration's rows say: noise bands, verdicts and tables; and their files, read and written."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cmet_eval.calibration.degradations import DEGRADATIONS, NOISE, Degradation, Step
from cmet_metrics.base import Metric

BASE, STAND_IN, NO_STEP = "none", "stand-in", ""
EVALUATOR = "evaluator"  # the kind of noise that another seed of an evaluator's training is
# Told, and not in the band: 2 px cost 3 to 4 dB of PSNR, and no two methods would differ.
NOT_IN_BAND = frozenset({("move", "2")})
SOUND_ONLY = "-sound"  # ends the group of clips of which the sound alone was moved
NOT_MAKEABLE = "not-makeable"  # in place of a reason, where a clip cannot be degraded so


@dataclass(frozen=True)
class Row:
    """One metric's answer to one degraded clip: a value, or a reason and no number."""

    metric: str
    # "none" for the clip as this suite writes it; "stand-in", "stand-in+move", "stand-in+evaluator" for the noise bands
    degradation: str
    step: str
    group: str
    clip: str
    value: float | None
    reason: str
    offset: float | None  # with its sign, of the metrics that find one


def label(step: Step) -> str:
    """The step as the tables write it."""
    return step if isinstance(step, str) else f"{step:g}"


# What the rows say ----------------------------------------------------------------------------------------------------


def differences(rows: Sequence[Row], metric: str, start: str, name: str, step: str, group: str | None) -> np.ndarray:
    """Value at the step minus value at `start`, clip by clip, of the clips that have both."""
    at: dict[str, float] = {}
    before: dict[str, float] = {}
    for row in rows:
        if row.metric == metric and row.value is not None and group in (None, row.group):
            if (row.degradation, row.step) == (start, NO_STEP):
                before[row.clip] = row.value
            elif (row.degradation, row.step) == (name, step):
                at[row.clip] = row.value
    return np.array([at[clip] - before[clip] for clip in sorted(at.keys() & before.keys())])


def band_of(rows: Sequence[Row], metric: str, noise: str, step: str, group: str | None) -> float | None:
    """Mean size over clips of what a kind of noise does to the stand-in; None without a clip."""
    found = differences(rows, metric, STAND_IN, f"{STAND_IN}+{noise}", step, group)
    return float(np.abs(found).mean()) if len(found) else None


def kinds_of_noise(rows: Sequence[Row]) -> list[tuple[str, str]]:
    """(name, step) of NOISE, and of the other evaluators that the rows know."""
    seeds = sorted({row.step for row in rows if row.degradation == f"{STAND_IN}+{EVALUATOR}"})
    return [(how.name, label(step)) for how in NOISE for step in how.steps] + [(EVALUATOR, seed) for seed in seeds]


def noise_of(rows: Sequence[Row], metric: str, group: str | None) -> dict[tuple[str, str], float]:
    """What each kind of noise does, where it is known."""
    found = {kind: band_of(rows, metric, *kind, group) for kind in kinds_of_noise(rows)}
    return {kind: value for kind, value in found.items() if value is not None}


def whole_band(rows: Sequence[Row], metric: str, group: str | None) -> float | None:
    """The noise band: the largest of re-encoding, a crop moved by 1 px and another evaluator's seed."""
    found = noise_of(rows, metric, group)
    return max((value for kind, value in found.items() if kind not in NOT_IN_BAND), default=None)


def bands(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """One row a metric and source (the kind of clips): what boards read."""
    out = []
    for metric in metrics:
        for group in _groups(rows):
            value = whole_band(rows, metric.key, group)
            if value is not None:
                head = {"metric": metric.key, "signature": str(metric.signature()), "unit": metric.unit}
                out.append(head | {"source": group, "band": f"{value:.6g}"})
    return out


def noise_table(rows: Sequence[Row], metrics: Sequence[Metric]) -> list[dict[str, str]]:
    """One row a metric, source and kind of noise, with what it changes by itself, and whether the band counts it."""
    return [
        {
            "metric": metric.key, "unit": metric.unit, "source": group, "noise": kind[0], "step": kind[1],
            "change": f"{value:.6g}", "in_band": "no" if kind in NOT_IN_BAND else "yes",
        }
        for metric in metrics
        for group in _groups(rows)
        for kind, value in noise_of(rows, metric.key, group).items()
    ]  # fmt: skip


def _groups(rows: Sequence[Row]) -> list[str]:
    return sorted({row.group for row in rows if not row.group.endswith(SOUND_ONLY)})


def wanted(how: Degradation, metric: Metric) -> str:
    """The metric's claim under a degradation: "moves", "still", or "" for none."""
    return "moves" if how.name in metric.worsened_by else "still" if how.name in metric.unchanged_by else ""


def verdict(rows: Sequence[Row], metric: Metric, how: Degradation, group: str) -> tuple[str, float | None]:
    """("" as it should or no claim, else what went wrong; median difference over clips at the last step).

    "does not move": its median became worse by no more than re-encoding makes it. "moves": it changed, either way, by
    more than its whole noise band.
    """
    found = differences(rows, metric.key, BASE, how.name, label(how.steps[-1]), group)
    noise = noise_of(rows, metric.key, group)
    coding = max((value for (name, _), value in noise.items() if name == "reencode"), default=None)
    whole = whole_band(rows, metric.key, group)
    if not len(found) or coding is None or whole is None:
        return "", None
    change = float(np.median(found))
    worse = -change if metric.higher_is_better else change
    if metric.ideal is not None:  # which an undamaged clip has, so that any change is one for the worse
        worse = abs(change)
    claim = wanted(how, metric)
    if claim == "moves" and worse <= coding:
        return "does not move", change
    if claim == "still" and abs(change) > whole:
        return "moves", change
    return "", change


def offset_table(rows: Sequence[Row], metric: str, group: str) -> tuple[int, int, int, int]:
    """(n, exact, within 1, k more than the unmoved clip's) over clips and shifts of the sound."""
    mine = [row for row in rows if row.metric == metric and row.group == group and row.offset is not None]
    start = {row.clip: row.offset for row in mine if row.degradation == BASE}
    errors = [(row.offset - float(row.step), row.offset - float(row.step) - start[row.clip])  # type: ignore[operator]
              for row in mine if row.degradation == "sound-shift" and row.clip in start]  # fmt: skip
    return (
        len(errors),
        sum(plain == 0 for plain, _ in errors),
        sum(abs(plain) <= 1 for plain, _ in errors),
        sum(more == 0 for _, more in errors),
    )


# Writing --------------------------------------------------------------------------------------------------------------


def write_values(out: Path, rows: Sequence[Row]) -> Path:
    """values.csv in the folder `out`."""
    out.mkdir(parents=True, exist_ok=True)
    values = [
        {
            "metric": row.metric, "degradation": row.degradation, "step": row.step, "group": row.group,
            "clip": row.clip, "value": "" if row.value is None else f"{row.value:.6g}", "reason": row.reason,
            "offset": "" if row.offset is None else f"{row.offset:g}",
        }
        for row in rows
    ]  # fmt: skip
    return write_csv(out / "values.csv", values)


def read_values(path: Path) -> list[Row]:
    """The rows of a values.csv, so that tables and plots can be made again without the videos."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Row(
                **{name: row[name] for name in ("metric", "degradation", "step", "group", "clip", "reason")},
                value=float(row["value"]) if row["value"] else None,
                offset=float(row["offset"]) if row["offset"] else None,
            )
            for row in csv.DictReader(file)
        ]


def tables(rows: Sequence[Row], metrics: Sequence[Metric]) -> str:
    """Markdown: noise bands, what a degradation's last step does, and offsets, for each group of clips."""
    parts = []
    for group in _groups(rows):
        used = [m for m in metrics if any(r.metric == m.key and r.group == group and r.value is not None for r in rows)]
        noise = kinds_of_noise([row for row in rows if row.group == group])
        count = {m.key: str(len({r.clip for r in rows if (r.metric, r.group) == (m.key, group)})) for m in used}
        parts.append(f"### Noise bands, {group} clips\n")
        parts.append(_line(["metric", "clips", *(f"{name} {step}" for name, step in noise), "band"]))
        parts.append(_line(["---"] * (len(noise) + 3)))
        for metric in used:
            found = [*(band_of(rows, metric.key, *kind, group) for kind in noise), whole_band(rows, metric.key, group)]
            parts.append(
                _line(
                    [
                        f"`{metric.key}`",
                        count[metric.key],
                        *("-" if value is None else _short(value) for value in found),
                    ]
                )
            )
        shown = [how for how in DEGRADATIONS if not how.sound_only]
        shown = [
            h for h in shown if any(r.degradation == h.name and r.group == group and r.value is not None for r in rows)
        ]
        parts.append(f"\n### What the last step changes, median of {group} clips\n")
        parts.append(_line(["metric", "before", *(f"{how.name} {label(how.steps[-1])}" for how in shown)]))
        parts.append(_line(["---"] * (len(shown) + 2)))
        for metric in used:
            before = [r.value for r in rows if (r.metric, r.degradation, r.group) == (metric.key, BASE, group)]
            known = [value for value in before if value is not None]
            cells = [f"`{metric.key}`", f"{np.median(known):.3g}" if known else "-"]
            for how in shown:
                wrong, change = verdict(rows, metric, how, group)
                mark = {"moves": "↑ ", "still": "= ", "": ""}[wanted(how, metric)]
                cells.append(
                    "-" if change is None else f"{'**' if wrong else ''}{mark}{change:+.3g}{'**' if wrong else ''}"
                )
            parts.append(_line(cells))
        parts.append("")
    parts.append("### Sound shifted by k = -10 to 10 frames\n")
    parts.append(_line(["metric", "clips", "videos", "offset is k", "within 1", "k more than the unmoved clip's"]))
    parts.append(_line(["---"] * 6))
    for group in sorted({row.group for row in rows}):
        for metric in (m for m in metrics if m.measures_offset):
            total, *good = offset_table(rows, metric.key, group)
            if total:
                n = len({row.clip for row in rows if (row.metric, row.group) == (metric.key, group)})
                about = f"{n} {group.removesuffix(SOUND_ONLY)}" + (
                    ", pictures as in the shards" if SOUND_ONLY in group else ""
                )
                cells = [f"{x} ({100 * x / total:.0f}%)" for x in good]
                parts.append(_line([f"`{metric.key}`", about, str(total), *cells]))
    parts.append("")
    return "\n".join(parts)


def _short(value: float) -> str:
    return f"{value:.2g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def write_csv(path: Path, rows: Sequence[dict[str, str]]) -> Path:
    text = io.StringIO()
    if rows:
        table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    path.write_text(text.getvalue(), encoding="utf-8")
    return path
