"""Plots a calibration: one picture per metric, with one panel per degradation.

Each clip is a thin line; the thick line is the median.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from cmet_eval.calibration.answers import BASE, NO_STEP, NOT_MAKEABLE, Answer, label
from cmet_eval.calibration.degradations import DEGRADATIONS, Degradation
from cmet_eval.calibration.noise import claim_of, verdict, whole_band
from cmet_metrics.base import Metric

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

COLOURS = {"embedded": "#2166ac", "real": "#c2540a"}  # colour-blind readers can distinguish them
_COLUMNS = 4


def plot(path: Path, answers: Sequence[Answer], metric: Metric) -> Path:
    """Writes the metric's picture as PNG. The file has no date or version, so the same values give the same bytes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mine = [a for a in answers if a.metric == metric.key]
    tried = {a.degradation for a in mine}
    shown = [how for how in DEGRADATIONS if how.name in tried]
    lines = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(3.1 * _COLUMNS, 0.6 + 2.2 * lines), dpi=70, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(lines, _COLUMNS, sharey=True, squeeze=False)).ravel()
    for k, axis in enumerate(axes):
        if k < len(shown):
            _panel(axis, answers, mine, metric, shown[k])
        else:
            axis.set_axis_off()
    for axis in axes[::_COLUMNS]:
        axis.set_ylabel(metric.unit or "value", fontsize=8)
    better = "higher" if metric.higher_is_better else "lower"
    better = better if metric.ideal is None else f"nearer to {metric.ideal:g}"
    figure.suptitle(f"{metric.key}  ({better} is better; thick: median; strip: noise band)", fontsize=10)
    groups = [group for group in COLOURS if any(a.group == group and a.value is not None for a in mine)]
    handles = [_handle(COLOURS[group]) for group in groups]
    figure.legend(handles, groups, loc="upper right", ncols=2, fontsize=8, frameon=False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _handle(colour: str) -> Line2D:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=2)


def _panel(axis: Axes, answers: Sequence[Answer], mine: Sequence[Answer], metric: Metric, how: Degradation) -> None:
    """Draws the panel of one degradation. `mine` are the answers of this metric."""
    names, start = _positions(how)
    wrong = []
    for group, colour in COLOURS.items():
        here = [a for a in mine if a.group == group and a.value is not None]
        if not any(a.degradation == how.name for a in here):
            continue
        table = _table(here, how, names, start)
        x = np.arange(len(names))
        seen = np.isfinite(table).any(axis=0)
        axis.plot(x[seen], table.T[seen], color=colour, linewidth=0.6, alpha=0.45)
        axis.plot(x[seen], np.nanmedian(table[:, seen], axis=0), color=colour, linewidth=2, marker="o", markersize=3)
        band = whole_band(answers, metric.key, group) or 0.0
        middle = float(np.nanmedian(table[:, start])) if np.isfinite(table[:, start]).any() else np.nan
        axis.axhspan(middle - band, middle + band, color=colour, alpha=0.12, linewidth=0)
        if not how.sound_only and verdict(answers, metric, how, group).wrong:
            wrong.append(group)
    _write_losses(axis, mine, how, names)
    claim = {"worse": "should move", "unchanged": "should stay", "": "either"}[claim_of(metric, how)]
    fails = f": not so, {' and '.join(wrong)}" if wrong else ""
    axis.set_title(f"{how.name}\n{claim}{fails}", fontsize=8, color="#b00020" if wrong else "black")
    every_nth = 5 if how.sound_only else 1
    axis.set_xticks(np.arange(0, len(names), every_nth), names[::every_nth], fontsize=7)
    axis.set_xlabel(how.unit, fontsize=7)
    axis.tick_params(axis="y", labelsize=7)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)


def _positions(how: Degradation) -> tuple[list[str], int]:
    """The labels of the x axis, and the position of the clip without degradation."""
    steps = [label(step) for step in how.steps]
    if not how.sound_only:
        return ["none", *steps], 0
    half = len(steps) // 2  # shifts go from negative to positive; the clip without a shift is in the middle
    return [*steps[:half], "0", *steps[half:]], half


def _table(answers: Sequence[Answer], how: Degradation, names: Sequence[str], start: int) -> np.ndarray:
    """(clips, positions) values; NaN if there is no value."""
    at: dict[tuple[str, int], float] = {}
    for a in answers:
        if a.value is None:
            continue
        if (a.degradation, a.step) == (BASE, NO_STEP):
            at[a.clip, start] = a.value
        elif a.degradation == how.name:
            at[a.clip, names.index(a.step)] = a.value
    clips = sorted({a.clip for a in answers})
    return np.array([[at.get((clip, k), np.nan) for k in range(len(names))] for clip in clips])


def _write_losses(axis: Axes, mine: Sequence[Answer], how: Degradation, names: Sequence[str]) -> None:
    """Writes the reasons for absent values into the panel, because a gap in a line does not show the reason."""
    scored = {a.clip for a in mine if a.degradation == BASE and a.value is not None}
    for k, name in enumerate(names):
        here = [a for a in mine if (a.degradation, a.step) == (how.name, name)]
        lost = [a for a in here if a.value is None and a.clip in scored]
        why = sorted({a.reason for a in lost} - {NOT_MAKEABLE})
        if why:
            box = {"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85}
            where = axis.get_xaxis_transform()
            text = f"{len(lost)} {why[0]}"
            axis.text(k, 0.97, text, fontsize=6, rotation=90, ha="center", va="top", transform=where, bbox=box)
