"""Writes what a command does into OUT/logs/COMMAND.log: the command line, versions, notes, and tracebacks of errors.

A line has the time, the level, the module and the text. Each start of a command adds to the file. The folder of the
user's home is written as `~`. The log is not a result: no command reads it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from talking_face.names import printable

FOLDER = "logs"
VARIABLE = "CMET_EVAL_LOG"  # environment variable with the path of the log, for the processes of the command
PACKAGES: tuple[str, ...] = (
    "talking_face",
    "cmet_pipelines",
    "cmet_metrics",
    "cmet_baselines",
    "cmet_leaderboards",
    "cmet_reference",
)
PACKAGES += ("embedded_corpus", "cmet_eval")
_VERSIONS = ("numpy", "av", "opencv-contrib-python-headless", "mediapipe", "torch", "pyarrow", "dask")
_KEPT = 1000  # lines that are kept in memory until the folder exists
_FORM = "%(asctime)s %(levelname)s %(name)s: %(message)s"

log = logging.getLogger(__name__)


class CommandLog(logging.Handler):
    """The log of one command. Until the command has made its output folder, the lines are kept in memory."""

    def __init__(self, command: str) -> None:
        super().__init__(logging.DEBUG)
        self.setFormatter(logging.Formatter(_FORM))
        self._command = command
        self._out: Path | None = None
        self._lines: deque[str] = deque(maxlen=_KEPT)

    def write_into(self, out: Path) -> None:
        """Sets the output folder. The log does not create this folder."""
        self._out = out

    def emit(self, record: logging.LogRecord) -> None:
        """Adds one record. If the file cannot be written, the command goes on without it."""
        self._lines.append(_without_home(self.format(record)))
        with contextlib.suppress(OSError):
            self.save()

    def save(self) -> Path | None:
        """Writes the lines that are still in memory. Returns the file, or None if there is no output folder."""
        if self._out is None or not self._out.is_dir():
            return None
        path = self._out / FOLDER / f"{self._command}.log"
        path.parent.mkdir(exist_ok=True)
        _append(path, self._lines)
        os.environ[VARIABLE] = str(path.resolve())
        return path

    def save_anywhere(self) -> Path | None:
        """Writes the lines into the output folder or, if that is not possible, into a new temporary file."""
        with contextlib.suppress(OSError):
            if (path := self.save()) is not None:
                return path
        with contextlib.suppress(OSError):
            number, name = tempfile.mkstemp(prefix=f"cmet-eval-{self._command}-", suffix=".log")
            os.close(number)
            _append(Path(name), self._lines)
            return Path(name)
        return None


@contextlib.contextmanager
def logging_to(handler: logging.Handler) -> Iterator[None]:
    """Sends the records of this suite's packages to a handler, until the block ends."""
    loggers = [logging.getLogger(name) for name in PACKAGES]
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
        logger.addHandler(handler)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(handler)


def write_log_into(out: Path) -> None:
    """A command calls this function with its output folder. Without a log of the command, nothing happens."""
    for handler in logging.getLogger(PACKAGES[0]).handlers:
        if isinstance(handler, CommandLog):
            handler.write_into(out)


def log_start(words: Sequence[str]) -> None:
    """Logs the command line, the versions and the kind of machine."""
    log.info("cmet-eval %s", " ".join(map(printable, words)))
    found = (f"{name} {installed}" for name in _VERSIONS if (installed := _version(name)))
    own = f"cmet-eval {_version('cmet-eval') or 'not installed'}, python {platform.python_version()}"
    log.info("%s, %s, %s %s", own, ", ".join(found), platform.system(), platform.machine())


def continue_log() -> None:
    """In a process that a command started: sends the records to the log of the command, if there is one."""
    path = os.environ.get(VARIABLE)
    if path and Path(path).is_file():
        handler = CommandLog(Path(path).stem)
        handler.write_into(Path(path).parents[1])
        for name in PACKAGES:
            logging.getLogger(name).setLevel(logging.DEBUG)
            logging.getLogger(name).addHandler(handler)


def _append(path: Path, lines: deque[str]) -> None:
    """Appends the lines with one call of the kernel, so that lines of several processes do not mix."""
    number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o666)
    try:
        os.write(number, "".join(f"{line}\n" for line in lines).encode("utf-8", "backslashreplace"))
        lines.clear()
    finally:
        os.close(number)


def _without_home(text: str) -> str:
    home = str(Path("~").expanduser())
    return text.replace(home, "~") if len(home) > 1 else text


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""
