"""The persistent child process of a worker: started once, called over pipes, killed at a deadline.

This module runs in the worker; `child_main` runs in the child. The child is started with subprocess, not
multiprocessing, for two reasons: Dask's workers are daemons, which cannot have multiprocessing children, and a fork
would copy the state of native thread pools.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import pickle
import select
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import cast

from talking_face.execution.messages import ANSWER, HEADER, Outcome, write_message

START_DEADLINE_S = 180.0  # importing the libraries takes 1 s, and much longer from a network disk that is not cached
# By default, the C library returns the memory of each picture to the kernel and requests it again, zeroed. For a 1080p
# frame this causes 700 page faults and takes 2 of 22 ms. With these settings a child keeps its memory, because the next
# clip needs it again. Arrays above 16 MB, which occur only in long clips, are still returned.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


class ChildDied(Exception):
    """The child ended before it answered. The message states how. `stage` is the last stage that the call entered."""

    stage = ""


class DeadlinePassed(Exception):
    """The child did not answer in time and was killed. `stage` is the last stage that the call entered."""

    stage = ""


class Child:
    """A running child process for one function. Raises ChildDied if the process does not start."""

    def __init__(self, function: str) -> None:
        self.function = function
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - printed lines, for the detail of a crash
        # -P: no import from the current directory, so that a folder `metrics` there does not replace an installed
        # package.
        program = [sys.executable, "-P", "-m", "talking_face.execution.child_main"]
        self._process = subprocess.Popen(
            [*program, function, str(theirs_read), str(theirs_write)],
            env=os.environ | _KEEP_MEMORY,
            pass_fds=(theirs_read, theirs_write),
            stdin=subprocess.DEVNULL,
            stdout=self._output,
            stderr=subprocess.STDOUT,
        )
        os.close(theirs_read)
        os.close(theirs_write)
        self._to = os.fdopen(ours_write, "wb")
        self._from = os.fdopen(ours_read, "rb", buffering=0)
        self._stage = ""
        try:
            self._receive(START_DEADLINE_S)  # the start is not part of a task's deadline
        except DeadlinePassed:
            raise ChildDied(f"did not start within {START_DEADLINE_S:g} s") from None

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def call(self, args: tuple[object, ...], deadline_s: float) -> Outcome:
        """One call. After ChildDied or DeadlinePassed this child cannot be used again."""
        self._stage = ""
        try:
            try:
                write_message(self._to, args)
            except OSError:
                raise ChildDied(self._how_it_ended()) from None
            return cast(Outcome, self._receive(deadline_s))
        except (ChildDied, DeadlinePassed) as end:
            end.stage = self._stage
            raise

    def close(self) -> None:
        """Kills the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for file in (self._to, self._from, self._output):
            with contextlib.suppress(OSError):
                file.close()

    def _receive(self, deadline_s: float) -> object:
        """The next answer. Stages that arrive before it are stored in `_stage`. Raises DeadlinePassed, ChildDied."""
        end = time.monotonic() + deadline_s
        while True:
            (length,) = HEADER.unpack(self._read_bytes(HEADER.size, end))
            kind, content = pickle.loads(self._read_bytes(length, end))
            if kind == ANSWER:
                return cast(object, content)
            self._stage = content

    def _read_bytes(self, count: int, end: float) -> bytes:
        """Exactly `count` bytes from the child, before the time `end`."""
        parts: list[bytes] = []
        while count:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                self.close()
                raise DeadlinePassed
            data = self._from.read(min(count, 1 << 20))
            if not data:
                raise ChildDied(self._how_it_ended())
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def _how_it_ended(self) -> str:
        """Closes this child. Returns its signal or exit status, and the last line that it printed."""
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        try:
            self._output.seek(0)
            lines = self._output.read().decode("utf-8", "replace").strip().splitlines()
        except (OSError, ValueError):
            lines = []
        self.close()
        return f"{how}; its last words: {lines[-1][:200]}" if lines and code > 0 else how


_children: dict[int, Child] = {}
# Linux kills a child when the thread that started it ends. Therefore one thread that never ends starts all children.
_starter: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def child_of_this_thread(function: str) -> Child:
    """This thread's child for `function`, started if there is none. Raises ChildDied if it does not start."""
    global _starter
    me = threading.get_ident()
    child = _children.get(me)
    if child is not None and child.alive and child.function == function:
        return child
    if child is not None:
        child.close()
    with _lock:
        if _starter is None:
            _starter = ThreadPoolExecutor(1, thread_name_prefix="child-starter")
            atexit.register(close_children)
    child = _starter.submit(Child, function).result()
    _children[me] = child
    return child


def close_children() -> None:
    """Ends every child of this process."""
    while _children:
        _children.popitem()[1].close()
