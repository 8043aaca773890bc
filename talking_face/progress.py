"""Progress of long work: a bar with a rate and an end time on a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TextIO

PLAIN_LINE_EVERY_S = 5.0  # a log file stays readable, and a person still sees that work goes on


class Progress:
    """Counts finished units. Use as a context manager; `advance` from one thread, `note` for a line between.

    `already` units were finished by an earlier run: they count as done, and not into the rate.

    Everything goes to stderr, so that a command's own output stays clean in a pipe. `quiet` silences the counting but
    not the notes. A rate is the mean since the start, a unit per second; the end time is a wall-clock time.
    """

    def __init__(
        self,
        total: int,
        unit: str = "clips",
        label: str = "",
        quiet: bool = False,
        stream: TextIO | None = None,
        already: int = 0,
    ) -> None:
        self.total, self.unit, self.label, self.quiet = total, unit, label, quiet
        self.done = self._already = already
        self._stream = stream if stream is not None else sys.stderr
        self._started = self._printed = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __enter__(self) -> Progress:
        self._started = self._printed = time.monotonic()
        if not self.quiet and self._stream.isatty():
            self._bar = _rich_bar(self.unit, self._stream)
        if self._bar is not None:
            self._task = self._bar.add_task(self.label or self.unit, total=self.total, completed=self.done, rate="")
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
            self._bar = None
        elif not self.quiet and self.done > self._already:
            self._print_line(final=True)

    def advance(self, n: int = 1) -> None:
        """`n` more units are finished."""
        self.done += n
        if self._bar is not None:
            self._bar.update(self._task, advance=n, rate=self._rate_text())
        elif not self.quiet and time.monotonic() - self._printed >= PLAIN_LINE_EVERY_S:
            self._print_line()

    def note(self, text: str) -> None:
        """A line of its own, above the bar. Shown in quiet mode too."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def _print_line(self, final: bool = False) -> None:
        self._printed = time.monotonic()
        head = f"{self.label}: " if self.label else ""
        tail = f"in {timedelta(seconds=round(time.monotonic() - self._started))}" if final else self._end_text()
        line = f"{head}{self.done}/{self.total} {self.unit}, {self._rate_text()}, {tail}"
        print(line, file=self._stream, flush=True)

    def _rate(self) -> float:
        return (self.done - self._already) / max(time.monotonic() - self._started, 1e-6)

    def _rate_text(self) -> str:
        rate = self._rate()
        return f"{rate:.1f} {self.unit}/s" if rate >= 1 else f"{rate * 60:.1f} {self.unit}/min"

    def _end_text(self) -> str:
        rate = self._rate()
        if rate <= 0:
            return "end unknown"
        left = (self.total - self.done) / rate
        return f"ends {(datetime.now() + timedelta(seconds=left)).strftime('%H:%M:%S')}"


def _rich_bar(unit: str, stream: TextIO) -> Any:
    """A rich progress bar, or None where rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress
        from rich.text import Text
    except ImportError:
        return None

    class EndTime(ProgressColumn):
        def render(self, task: Any) -> Text:
            if task.time_remaining is None or task.finished:
                return Text("")
            return Text((datetime.now() + timedelta(seconds=task.time_remaining)).strftime("ends %H:%M:%S"))

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[rate]}"),
        TimeElapsedColumn(),
        EndTime(),
        console=Console(file=stream),
    )
