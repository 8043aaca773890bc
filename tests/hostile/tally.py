"""Runs commands on hostile input and counts what went wrong, for the programs of this folder.

Every program of this folder takes `--tries N --seed S`, prints one table of `Tally`, and ends with status 1 if a column
other than `tried` is not 0. The same seed gives the same tries.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path

MARK = "CMET_EVAL_HOSTILE_RUN"  # environment variable, by which the processes of one run are found


@dataclass
class Tally:
    """Counts of one kind of try. The goal is 0 in every column after `tried`.

    Attributes:
        tried: number of tries.
        crashed: a process died by a signal that the try did not send.
        hung: the command did not end in time.
        traceback: the command printed a traceback.
        silently_wrong: the command reported success, and a value or a file was wrong or lost.
        orphans: a process of the run was alive after its end, or a temporary folder was left.
        examples: one line for each fault, with the seed or the file that shows it again.
    """

    kind: str
    tried: int = 0
    crashed: int = 0
    hung: int = 0
    traceback: int = 0
    silently_wrong: int = 0
    orphans: int = 0
    examples: list[str] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        """True if nothing went wrong."""
        return not any((self.crashed, self.hung, self.traceback, self.silently_wrong, self.orphans))

    def fault(self, column: str, example: str) -> None:
        """Adds one to a column, and keeps the line that shows the fault."""
        setattr(self, column, getattr(self, column) + 1)
        self.examples.append(f"{self.kind}: {column.replace('_', ' ')}: {example}")

    def add(self, ended: Ended, example: str) -> None:
        """Counts one run of a command."""
        self.tried += 1
        if ended.hung:
            self.fault("hung", example)
        elif ended.status < 0:
            self.fault("crashed", f"{example}: {signal.Signals(-ended.status).name}")
        if "Traceback (most recent call last)" in ended.text:
            self.fault("traceback", f"{example}: {ended.text.strip().splitlines()[-1][:200]}")


def report(tallies: Sequence[Tally]) -> int:
    """Prints the table and the examples of faults. Returns the exit status: 0 if everything is clean, else 1."""
    names = [f.name for f in fields(Tally) if f.name not in ("kind", "examples")]
    width = max(len(tally.kind) for tally in tallies)
    print(f"{'':{width}}  " + "  ".join(name.replace("_", " ") for name in names))
    for tally in tallies:
        cells = (f"{getattr(tally, name):>{len(name)}}" for name in names)
        print(f"{tally.kind:{width}}  " + "  ".join(cells))
    for tally in tallies:
        for line in tally.examples:
            print(line)
    return 0 if all(tally.clean for tally in tallies) else 1


@dataclass(frozen=True)
class Ended:
    """How a command ended: its status (negative: the signal that ended it), its output, and the time it took, s."""

    status: int
    text: str
    seconds: float
    hung: bool = False


def start(
    command: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[subprocess.Popen[bytes], str]:
    """Starts `cmet-eval COMMAND...` in a session of its own. Returns the process and the mark of all its processes.

    Standard output and standard error go to one pipe.
    """
    mark = uuid.uuid4().hex
    process = subprocess.Popen(
        [sys.executable, "-m", "cmet_eval.cli", *command],
        cwd=folder,
        env={**os.environ, MARK: mark, **(environment or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
        preexec_fn=listen,
    )
    return process, mark


def listen() -> None:
    """Makes a new process receive Ctrl-C and SIGHUP. The children of a background job would ignore them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def run(command: Sequence[str], folder: Path, timeout_s: float, environment: Mapping[str, str] | None = None) -> Ended:
    """Runs `cmet-eval COMMAND...` to its end. After `timeout_s`, all its processes are killed and `hung` is True."""
    started = time.monotonic()
    process, mark = start(command, folder, environment)
    try:
        text, _ = process.communicate(timeout=timeout_s)
    except subprocess.TimeoutExpired:
        for pid in (process.pid, *alive(mark)):
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        text, _ = process.communicate()
        return Ended(process.returncode, text.decode("utf-8", "replace"), time.monotonic() - started, hung=True)
    return Ended(process.returncode, text.decode("utf-8", "replace"), time.monotonic() - started)


def alive(mark: str) -> list[int]:
    """The processes, other than zombies, whose environment has the mark (Linux). A child inherits the environment."""
    wanted, found = f"{MARK}={mark}".encode(), []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            has_mark = wanted in (entry / "environ").read_bytes().split(b"\0")
            state = (entry / "stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if has_mark and state != "Z":
            found.append(int(entry.name))
    return found
