"""Shared code of all reports: writing of files, tables and figures, and calls of a function for many clips.

The same inputs give the same bytes: nothing in a report depends on the date or on the path of a folder.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import quote

from cmet_leaderboards.escaping import csv_cell
from cmet_leaderboards.escaping import markdown as escape
from talking_face.execution.options import RunOptions
from talking_face.execution.workers import Task, run_tasks
from talking_face.files import write_bytes, write_text
from talking_face.names import inside
from talking_face.progress import Progress
from talking_face.reasons import Reason, UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Cell: TypeAlias = str | int | float | bool | None
Line: TypeAlias = tuple[Cell, ...]

_DEADLINE_S = 300.0  # until a clip is read; the functions then set a deadline for its length


@dataclass(frozen=True)
class Report:
    """A table with its text and plots. `write` creates the files NAME.md and NAME.csv, and one PNG file per plot."""

    name: str
    markdown: str  # the text without the pictures
    head: tuple[str, ...]
    rows: tuple[Line, ...]
    plots: Mapping[str, Callable[[], Figure]] = field(default_factory=dict)  # file stem -> function


def write(report: Report, out: Path) -> Path:
    """Writes the report's files into `out`; returns the path of the Markdown file.

    Each file gets its final name by an atomic rename.
    """
    markdown = report.markdown
    for stem, plot in report.plots.items():
        buffer = io.BytesIO()
        plot().savefig(buffer, format="png", dpi=110, metadata={"Software": None})
        write_bytes(inside(out, f"{stem}.png"), buffer.getvalue())
        markdown += f"\n![{escape(stem)}]({quote(stem)}.png)\n"
    buffer_csv = io.StringIO()
    writer = csv.writer(buffer_csv, lineterminator="\n")
    writer.writerows([report.head, *([csv_cell(v) for v in row] for row in report.rows)])
    write_text(out / f"{report.name}.csv", buffer_csv.getvalue())
    write_text(out / f"{report.name}.md", markdown)
    return out / f"{report.name}.md"


def text(*parts: str) -> str:
    """Joins paragraphs of Markdown into one text."""
    return "\n\n".join(parts) + "\n"


def table(head: Sequence[str], rows: Sequence[Sequence[Cell]]) -> str:
    """A Markdown table. Floating-point numbers are printed with four significant digits, and None as a dash."""

    def cell(value: Cell) -> str:
        if value is None:
            return "–"
        return f"{value:.4g}" if isinstance(value, float) else escape(str(value))

    lines = [[cell(name) for name in head], ["---"] * len(head), *([cell(v) for v in row] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def new_figure(width: float, height: float) -> Figure:
    """An empty figure; width and height are in inches. The figure can be drawn on a machine without a display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def work_on_clips(function: str, tasks: Mapping[str, tuple[object, ...]], label: str, options: RunOptions) -> None:
    """Calls `function` in worker processes, once for each task. `tasks`: name of a task -> arguments of the call.

    If tasks fail, one line with their number and the first error is printed. The results of failed tasks are absent.

    Raises:
        UserError: a weight file that a task needs is absent.
    """
    failed = []
    with Progress(len(tasks), unit="clips", label=label, quiet=options.quiet) as progress:
        every = [Task(key, args, _DEADLINE_S) for key, args in tasks.items()]
        for result in run_tasks(
            function, every, workers=options.workers, memory_bytes=options.memory_bytes, progress=progress
        ):
            if result.error is not None and result.error.reason is Reason.MISSING_WEIGHTS:
                raise UserError(result.error.detail)
            if result.error is not None:
                failed.append(f"{result.key}: {result.error}")
    if failed:
        print(f"{len(failed)} of {len(tasks)} failed, {failed[0]} for one")
