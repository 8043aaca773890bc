"""One picture a metric: a small panel for each degradation, a thin line a clip, the median of a group thick."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmet_eval.calibration.degradations import DEGRADATIONS, Degradation
from cmet_eval.calibration.tables import BASE, NO_STEP, NOT_MAKEABLE, Row, label, verdict, wanted, whole_band
from cmet_metrics.base import Metric

COLOURS = {"embedded": "#2166ac", "real": "#c2540a"}  # far apart for the colour-blind too
_COLUMNS = 4


def plot(path: Path, rows: Sequence[Row], metric: Metric) -> Path:
    """Write the metric's picture, PNG; no date or version enters the file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    mine = [row for row in rows if row.metric == metric.key and row.value is not None]
    tried = {row.degradation for row in rows if row.metric == metric.key}
    shown = [how for how in DEGRADATIONS if how.name in tried]
    lines = -(-len(shown) // _COLUMNS)
    figure = Figure(figsize=(3.1 * _COLUMNS, 0.6 + 2.2 * lines), dpi=70, layout="constrained")
    FigureCanvasAgg(figure)
    axes = np.atleast_1d(figure.subplots(lines, _COLUMNS, sharey=True, squeeze=False)).ravel()
    for k, axis in enumerate(axes):
        if k < len(shown):
            _panel(axis, rows, mine, metric, shown[k])
        else:
            axis.set_axis_off()
    for axis in axes[::_COLUMNS]:
        axis.set_ylabel(metric.unit or "value", fontsize=8)
    better = "higher" if metric.higher_is_better else "lower"
    better = better if metric.ideal is None else f"nearer to {metric.ideal:g}"
    groups = [group for group in COLOURS if any(row.group == group for row in mine)]
    figure.suptitle(f"{metric.key}  ({better} is better; thick: median; strip: noise band)", fontsize=10)
    handles = [_handle(COLOURS[group]) for group in groups]
    figure.legend(handles, groups, loc="upper right", ncols=2, fontsize=8, frameon=False)
    figure.savefig(path, format="png", metadata={"Software": None})
    return path


def _handle(colour: str) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour, linewidth=2)


def _panel(axis: Any, rows: Sequence[Row], mine: Sequence[Row], metric: Metric, how: Degradation) -> None:
    steps = [label(step) for step in how.steps]
    names = ["none", *steps]
    if how.sound_only:  # the unmoved clip stands in the middle of the shifts
        names = [*steps[: len(steps) // 2], "0", *steps[len(steps) // 2 :]]
    start = names.index("0") if how.sound_only else 0
    wrong = []
    for group, colour in COLOURS.items():
        here = [row for row in mine if row.group == group]
        clips = sorted({row.clip for row in here})
        if not any(row.degradation == how.name for row in here):
            continue
        at: dict[tuple[str, int], float] = {}
        for row in here:
            if (row.degradation, row.step) == (BASE, NO_STEP):
                at[row.clip, start] = row.value  # type: ignore[assignment]
            elif row.degradation == how.name:
                at[row.clip, names.index(row.step)] = row.value  # type: ignore[assignment]
        table = np.array([[at.get((clip, k), np.nan) for k in range(len(names))] for clip in clips])
        x = np.arange(len(names))
        seen = np.isfinite(table).any(axis=0)
        axis.plot(x[seen], table.T[seen], color=colour, linewidth=0.6, alpha=0.45)
        axis.plot(x[seen], np.nanmedian(table[:, seen], axis=0), color=colour, linewidth=2, marker="o", markersize=3)
        band = whole_band(rows, metric.key, group) or 0.0
        middle = float(np.nanmedian(table[:, start])) if np.isfinite(table[:, start]).any() else np.nan
        axis.axhspan(middle - band, middle + band, color=colour, alpha=0.12, linewidth=0)
        if not how.sound_only and verdict(rows, metric, how, group)[0]:
            wrong.append(group)
    scored = {row.clip for row in mine if row.degradation == BASE}
    for k, name in enumerate(names):
        here = [r for r in rows if (r.metric, r.degradation, r.step) == (metric.key, how.name, name)]
        lost = [row for row in here if row.value is None and row.clip in scored]
        why = sorted({row.reason for row in lost} - {NOT_MAKEABLE})
        if why:  # a gap in a line would say nothing
            axis.text(k, 0.97, f"{len(lost)} {why[0]}", fontsize=6, rotation=90, ha="center", va="top",
                      transform=axis.get_xaxis_transform(),
                      bbox={"facecolor": "white", "edgecolor": "none", "pad": 0.5, "alpha": 0.85})  # fmt: skip
    claim = {"moves": "should move", "still": "should stay", "": "either"}[wanted(how, metric)]
    fails = f": not so, {' and '.join(wrong)}" if wrong else ""
    axis.set_title(f"{how.name}\n{claim}{fails}", fontsize=8, color="#b00020" if wrong else "black")
    every_nth = 5 if how.sound_only else 1
    axis.set_xticks(np.arange(0, len(names), every_nth), names[::every_nth], fontsize=7)
    axis.set_xlabel(how.unit, fontsize=7)
    axis.tick_params(axis="y", labelsize=7)
    for side in ("top", "right"):
        axis.spines[side].set_visible(False)
