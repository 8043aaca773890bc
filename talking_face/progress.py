"""Shows the progress of a long task as a bar on a terminal, or as a line every few seconds in a file or pipe."""

from __future__ import annotations

import logging
import sys
import time
from datetime import datetime, timedelta
from types import TracebackType
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress
    from rich.progress import Task as RichTask
    from rich.progress import TaskID

log = logging.getLogger(__name__)
PLAIN_LINE_EVERY_S = 5.0  # s between two progress lines if the output is not a terminal


class Progress:
    """Counts and prints the finished units of a task. A context manager; call `advance` from one thread only.

    By default everything is printed to stderr, so that stdout contains only the results of the command. The printed
    speed is the mean speed since the start. The printed end is a time of day.

    Args:
        total: number of units.
        unit: name of the units.
        label: text before the count.
        quiet: True: the count is not printed; notes are still printed.
        stream: file for the output in place of stderr.
        already: number of units that an earlier run finished. These units are included in the count, but not in the
            speed.
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
        self._bar: RichProgress | None = None
        self._task: TaskID | None = None

    def __enter__(self) -> Progress:
        self._started = self._printed = time.monotonic()
        if not self.quiet and self._stream.isatty():
            self._bar = _rich_bar(self.unit, self._stream)
        if self._bar is not None:
            self._task = self._bar.add_task(self.label or self.unit, total=self.total, completed=self.done, speed="")
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
        log.info(self._line(final=True))

    def advance(self, n: int = 1) -> None:
        """Counts `n` more finished units."""
        self.done += n
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=n, speed=self._speed_text())
        elif not self.quiet and time.monotonic() - self._printed >= PLAIN_LINE_EVERY_S:
            self._print_line()

    def note(self, text: str) -> None:
        """Prints a line above the bar and logs it. The line is also printed in quiet mode."""
        log.info(text)
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            print(text, file=self._stream, flush=True)

    def _print_line(self, final: bool = False) -> None:
        self._printed = time.monotonic()
        print(self._line(final), file=self._stream, flush=True)

    def _line(self, final: bool) -> str:
        head = f"{self.label}: " if self.label else ""
        tail = f"in {timedelta(seconds=round(time.monotonic() - self._started))}" if final else self._end_text()
        return f"{head}{self.done}/{self.total} {self.unit}, {self._speed_text()}, {tail}"

    def _speed(self) -> float:
        return (self.done - self._already) / max(time.monotonic() - self._started, 1e-6)

    def _speed_text(self) -> str:
        speed = self._speed()
        return f"{speed:.1f} {self.unit}/s" if speed >= 1 else f"{speed * 60:.1f} {self.unit}/min"

    def _end_text(self) -> str:
        speed = self._speed()
        if speed <= 0:
            return "end unknown"
        left = (self.total - self.done) / speed
        return f"ends {(datetime.now() + timedelta(seconds=left)).strftime('%H:%M:%S')}"


def _rich_bar(unit: str, stream: TextIO) -> RichProgress | None:
    """A rich progress bar, or None if rich is not installed."""
    try:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, ProgressColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as RichProgress
        from rich.text import Text
    except ImportError:
        return None

    class EndTime(ProgressColumn):
        def render(self, task: RichTask) -> Text:
            if task.time_remaining is None or task.finished:
                return Text("")
            return Text((datetime.now() + timedelta(seconds=task.time_remaining)).strftime("ends %H:%M:%S"))

    return RichProgress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn(unit),
        TextColumn("{task.fields[speed]}"),
        TimeElapsedColumn(),
        EndTime(),
        console=Console(file=stream),
    )
