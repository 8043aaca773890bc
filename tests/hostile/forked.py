"""Runs `cmet-eval` in a fork of this process, with a time limit and a memory limit, for the programs of this folder.

A fork has all imports, so that a try takes tens of milliseconds. A new interpreter takes 1 to 2 s for the imports.
"""

from __future__ import annotations

import atexit
import faulthandler
import gc
import os
import resource
import signal
import sys
import tempfile
import time
import traceback
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path

from tests.hostile.tally import MARK, Ended, alive

LIMIT = 6 << 30  # bytes of private memory, more than torch and all imports need; a try with more gets MemoryError
_GRACE_S = 2.0  # processes of a command have this time to end after it


def call(function: Callable[[], int | None], log: Path, timeout_s: float) -> tuple[Ended, int]:
    """Calls the function in a fork with a session of its own. Returns how the fork ended, and the number of orphans.

    Args:
        function: its result is the exit status; None is 0.
        log: the file for standard output and standard error.
        timeout_s: after this time, the fork and its children are killed.
    """
    mark = uuid.uuid4().hex
    sys.stdout.flush()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(function, log, mark)
    status = None
    while status is None and time.monotonic() - started < timeout_s:
        done, raw = os.waitpid(pid, os.WNOHANG)
        status = os.waitstatus_to_exitcode(raw) if done else None
        time.sleep(0.002)
    seconds = time.monotonic() - started
    hung = status is None
    orphans = [] if hung else _left(pid, mark)
    for other in {pid, *orphans, *(_left(pid, mark, 0) if hung else ())}:
        try:
            os.kill(other, signal.SIGKILL)
        except ProcessLookupError:
            continue
    if hung:
        os.waitpid(pid, 0)
    text = log.read_bytes()[-200_000:].decode("utf-8", "replace")
    return Ended(0 if status is None else status, text, seconds, hung), len(orphans)


def command(words: Sequence[str]) -> Callable[[], int]:
    """A function that runs `cmet-eval WORDS...` as its entry point does."""

    def run() -> int:
        from cmet_eval.cli import main

        sys.argv = ["cmet-eval", *words]
        try:
            main()
        except SystemExit as error:
            return error.code if isinstance(error.code, int) else int(error.code is not None)
        return 0

    return run


def _child(function: Callable[[], int | None], log: Path, mark: str) -> None:
    """The fork: never returns."""
    status = 1
    try:
        os.setsid()
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(out, 1)
        os.dup2(out, 2)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        sys.stdout = os.fdopen(1, "w", encoding="utf-8", errors="backslashreplace", closefd=False)
        sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False, buffering=1)
        faulthandler.enable(sys.stderr)
        os.environ[MARK] = mark
        tempfile.tempdir = None  # is found again from TMPDIR
        resource.setrlimit(resource.RLIMIT_DATA, (LIMIT, LIMIT))
        status = function() or 0
    except BaseException:
        traceback.print_exc()
    try:
        atexit._run_exitfuncs()
        sys.stdout.flush()
        sys.stderr.flush()
        gc.collect()
    finally:
        os._exit(status)


def _left(session: int, mark: str, grace_s: float = _GRACE_S) -> list[int]:
    """The processes of the session, or with the mark, that are still alive after the grace time."""
    end = time.monotonic() + grace_s
    while True:
        found = {*alive(mark), *_of_session(session)} - {session}
        if not found or time.monotonic() >= end:
            return sorted(found)
        time.sleep(0.05)


def _of_session(session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == session and fields[0] != "Z":
                found.append(int(entry.name))
    return found
