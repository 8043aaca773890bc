"""Report: how much the identity changes when a method changes the emotion (CEM-Net, Table I).

The measure is 1 - cosine to the reference frames.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from cmet_eval.reports.common_pairs import by_method, by_signature, of_metrics
from cmet_eval.reports.report import Line, Report, new_figure, table, text
from cmet_leaderboards.escaping import code
from cmet_leaderboards.escaping import markdown as escape
from cmet_leaderboards.results import Results
from cmet_leaderboards.statistics import mean_interval
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

HEAD = (
    *("setting", "method", "revision", "metric", "deterioration", "low", "high", "n", "expected", "compared"),
    *("signature", "pairs_digest"),
)


def identity_deterioration(results: Results) -> Report:
    """For each method, the mean of 1 - cosine to the reference frames over all pairs that change the emotion.

    The mean is computed from the result rows of the `csim:*-ref` metrics.
    """
    frame = results.frame()
    frame = of_metrics(frame, lambda metric: metric.name == "csim" and metric.needs_reference)
    frame = frame[frame["reference_emotion"].notna() & (frame["reference_emotion"] != frame["target_emotion"])]
    if frame.empty:
        raise UserError(
            "no rows of csim:dlib-ref or csim:aligned-ref for pairs that change the emotion; score with them"
        )
    rows: list[Line] = []
    bars: list[tuple[str, float, float | None, float | None]] = []
    for part in by_signature(frame):
        setting, signature = part.key["setting"], part.signature
        for method, revision, use, compared in by_method(part):
            values = use["value"].to_numpy(float)
            mean, interval = mean_interval(1 - values, use["speaker"].to_numpy()) if len(values) else (None, None)
            low, high = (interval.low, interval.high) if interval else (None, None)
            numbers = (mean, low, high, len(use), part.expected, compared)
            rows.append((setting, method, revision, part.metric, *numbers, signature, part.key["pairs_digest"]))
            if mean is not None:
                bars.append((f"{method}, {setting}, {part.metric}", mean, low, high))
    markdown = text(
        "# Identity deterioration",
        "1 - cosine of the generated frames to the reference frames, mean over pairs whose reference shows another "
        "emotion than was asked for; 95% interval as on the boards. Lower is better; a held reference frame has about "
        "0, and the ground truth shows how much another expression of the same person costs by itself.",
        "CEM-Net's Table I gives, by ArcFace, Interface 0.19, MyStyle 0.21, EmoStyle 0.12; which weights, alignment "
        "and data are not given. Only numbers of one signature compare.",
        table(HEAD[:10], [r[:10] for r in rows]),
        *(f"- {escape(m)}: {code(s)}" for m, s in sorted({(str(r[3]), str(r[10])) for r in rows})),
    )
    plots = {"identity-deterioration": lambda: _bars(bars)}
    return Report("identity-deterioration", markdown, HEAD, tuple(rows), plots)


def _bars(rows: Sequence[tuple[str, float, float | None, float | None]]) -> Figure:
    """Draws one horizontal bar with an interval for each row (label, value, low, high)."""
    figure = new_figure(9, 0.8 + 0.36 * len(rows))
    axes = figure.subplots()
    y = np.arange(len(rows))[::-1]
    axes.barh(y, [row[1] for row in rows], color="#7c9cbf", height=0.6)
    for at, (_, _, low, high) in zip(y, rows, strict=True):
        if low is not None and high is not None:
            axes.plot([low, high], [at, at], color="black", linewidth=1.2)
    axes.set_yticks(y, [row[0] for row in rows])
    axes.set_xlabel("1 - cosine to the reference, 95% interval")
    axes.spines[["top", "right"]].set_visible(False)
    return figure
