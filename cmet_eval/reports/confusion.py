"""Report: emotion accuracy of each class, and confusion matrices, from the result rows of the `ea` metrics."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow.compute as pc

from cmet_eval.reports.common_pairs import MetricRows, by_method, by_signature, of_metrics
from cmet_eval.reports.report import Line, Report, new_figure, table, text
from cmet_leaderboards.digits import fixed
from cmet_leaderboards.escaping import code, markdown
from cmet_leaderboards.results import Results
from cmet_metrics.emotion import by_class, confusion
from talking_face.emotions import emotion_order
from talking_face.names import file_name_of
from talking_face.reasons import UserError
from talking_face.signature import digest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Matrix = Mapping[str, Mapping[str, float]]  # target emotion -> predicted emotion -> number of clips
# The column names are part of the file format: `asked_for` is the target emotion, `said` is the predicted emotion.
HEAD = (
    *("setting", "method", "revision", "metric", "asked_for", "said", "clips", "clips_asked_for", "compared"),
    *("signature", "pairs_digest"),
)


class _Confusion(NamedTuple):
    """The confusion matrix of one method and one metric."""

    method: str
    revision: str
    matrix: Matrix
    by_class: Mapping[str, tuple[float, float]]  # target emotion -> (accuracy, number of clips)
    n: int  # number of pairs
    compared: bool

    @property
    def asked(self) -> list[str]:
        return sorted(self.matrix, key=emotion_order)

    @property
    def predicted(self) -> list[str]:
        return sorted({name for row in self.matrix.values() for name in row}, key=emotion_order)


def confusion_tables(results: Results) -> Report:
    """The accuracy of each class and the confusion matrix, for every method and every signature of an `ea` metric.

    The report is computed from the column `stats` of the result rows.
    """
    frame = results.frame()
    frame = of_metrics(frame, lambda metric: metric.counts_predictions)
    if frame["value"].notna().sum() == 0:
        raise UserError("no values of an ea metric in the result rows; score with one, ea:fer say")
    rows: list[Line] = []
    parts = [
        "# Emotion accuracy by class",
        "Rows: the emotion asked for. Columns: share of what was said, in percent. "
        "Methods are compared on the pairs that all of them have a value for, as on the boards.",
    ]
    plots: dict[str, Callable[[], Figure]] = {}
    for part in by_signature(frame):
        setting, metric = part.key["setting"], part.metric
        found = list(_confusions(part, results))
        parts.append(f"## {markdown(setting)}, {markdown(metric)}")
        for one in found:
            note = "" if one.compared else ", too few to be compared"
            parts.append(f"### {markdown(one.method)} @ {markdown(one.revision)} ({one.n} of {part.expected}{note})")
            parts.append(_table(one))
            rows += _rows(one, part)
        parts.append(f"Signature: {code(part.signature)}.")
        names = f"{file_name_of(setting)}-{file_name_of(metric.replace(':', '-'))}"
        stem = f"confusion-{names}-{digest([part.key, part.signature], 6)}"
        plots[stem] = partial(_heat_maps, [(one.method, one.matrix) for one in found], f"{metric}, {setting}")
    return Report("confusion", text(*parts), HEAD, tuple(rows), plots)


def _confusions(part: MetricRows, results: Results) -> Iterator[_Confusion]:
    for method, revision, use, compared in by_method(part):
        sums: dict[str, float] = {}
        for stats in pc.take(results.table["stats"], use.index.to_numpy()).to_pylist():
            for name, value in stats:
                sums[name] = sums.get(name, 0.0) + value
        yield _Confusion(method, revision, confusion(sums), by_class(sums), len(use), compared)


def _table(one: _Confusion) -> str:
    matrix, asked, predicted = one.matrix, one.asked, one.predicted
    lines: list[Line] = []
    for emotion in asked:
        accuracy, clips = one.by_class[emotion]
        shares = (fixed(100 * matrix[emotion].get(name, 0) / clips, 1) for name in predicted)
        lines.append((emotion, f"{clips:g}", fixed(100 * accuracy, 1), *shares))
    right = sum(matrix[emotion].get(emotion, 0.0) for emotion in asked)
    total = sum(one.by_class[emotion][1] for emotion in asked)
    share = fixed(100 * right / total, 1) if total else "–"
    lines.append(("all", f"{total:g}", share, *("" for _ in predicted)))
    return table(("asked for", "clips", "right", *predicted), lines)


def _rows(one: _Confusion, part: MetricRows) -> Iterator[Line]:
    """One row for each combination of target emotion and predicted emotion."""
    names = (part.key["setting"], one.method, one.revision, part.metric)
    for emotion in one.asked:
        for name in one.predicted:
            numbers = (one.matrix[emotion].get(name, 0.0), one.by_class[emotion][1], one.compared)
            yield (*names, emotion, name, *numbers, part.signature, part.key["pairs_digest"])


def _heat_maps(matrices: Sequence[tuple[str, Matrix]], title: str) -> Figure:
    """Draws confusion matrices side by side. Each row adds up to 100%. Correct predictions have a red frame."""
    asked = sorted({emotion for _, matrix in matrices for emotion in matrix}, key=emotion_order)
    predicted = {name for _, matrix in matrices for row in matrix.values() for name in row}
    columns = sorted(predicted, key=emotion_order)
    figure = new_figure(1.6 + len(matrices) * (0.5 * len(columns) + 0.3), 1.5 + 0.42 * len(asked))
    panels = np.atleast_1d(figure.subplots(1, len(matrices), sharey=True))
    for n, (axes, (method, matrix)) in enumerate(zip(panels, matrices, strict=True)):
        _heat_map(axes, matrix, asked, columns)
        axes.set_title(method, fontsize=9)
        axes.set_xticks(range(len(columns)), columns, rotation=60, ha="right", fontsize=8)
        if n == 0:
            axes.set_yticks(range(len(asked)), asked, fontsize=8)
            axes.set_ylabel("asked for")
        axes.set_xlabel("said")
    figure.suptitle(f"{title}, % of clips", fontsize=10)
    return figure


def _heat_map(axes: Axes, matrix: Matrix, asked: Sequence[str], columns: Sequence[str]) -> None:
    from matplotlib.patches import Rectangle

    share = np.full((len(asked), len(columns)), np.nan)
    for i, emotion in enumerate(asked):
        total = sum(matrix.get(emotion, {}).values())
        if total:
            share[i] = [100 * matrix[emotion].get(name, 0.0) / total for name in columns]
    axes.imshow(share, cmap="Blues", vmin=0, vmax=100, aspect="auto")
    for i, j in np.ndindex(share.shape):
        if np.isfinite(share[i, j]):
            colour = "white" if share[i, j] > 60 else "black"
            axes.text(j, i, f"{share[i, j]:.0f}", ha="center", va="center", fontsize=8, color=colour)
        if asked[i] == columns[j]:
            axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, edgecolor="#c44", linewidth=1.2))
