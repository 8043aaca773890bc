"""Starts the child process of a Dask worker, calls a function in the child over pipes, and kills the child.

A child process runs many calls. It is killed if a call passes its deadline. This module runs in the worker, and the
module `child_main` runs in the child. The child is started with subprocess, not multiprocessing, for two reasons:
Dask's workers are daemons, which cannot have multiprocessing children, and a fork would copy the state of native thread
pools.
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
# By default, the C library returns the memory of each picture to the kernel and requests zeroed memory for the next
# picture. For a 1080p frame this causes 700 page faults and takes 2 of 22 ms. With the settings below, a child keeps
# freed memory for the next picture. Only arrays above 16 MB, which occur in long clips, are still returned.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


class ChildDied(Exception):
    """The child ended before it answered. The message states how the child ended.

    `stage` is the last stage that the call entered.
    """

    stage = ""


class DeadlinePassed(Exception):
    """The child did not answer before the deadline and was killed. `stage` is the last stage that the call entered."""

    stage = ""


class Child:
    """A running child process for one function. Raises ChildDied if the process does not start."""

    def __init__(self, function: str) -> None:
        self.function = function
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()
        self._output = tempfile.TemporaryFile()  # noqa: SIM115 - lines that the child prints, for the report of a crash
        # -P: do not import from the current directory, because a folder `metrics` in the current directory would hide
        # an installed package of the same name.
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
            self._receive(START_DEADLINE_S)  # the time of the start does not count towards the deadline of a task
        except DeadlinePassed:
            raise ChildDied(f"did not start within {START_DEADLINE_S:g} s") from None

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._process.poll() is None

    def call(self, args: tuple[object, ...], deadline_s: float) -> Outcome:
        """Calls the function in the child and returns the outcome.

        Raises ChildDied or DeadlinePassed; after either error this child cannot be used again.
        """
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
        """The next answer of the child. The last stage that the child reports before the answer is stored in `_stage`.

        Raises DeadlinePassed or ChildDied.
        """
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
        """Closes this child. Returns the child's signal or exit status, and the last line that the child printed."""
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
    """The child process of the current thread for `function`. If there is no such child, a new child is started.

    Raises ChildDied if the new child does not start.
    """
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
