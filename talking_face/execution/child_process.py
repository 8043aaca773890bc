"""Starts the child process of a worker, calls a function in the child, and ends the child at a limit.

A child process runs many calls. It is ended if a call passes its deadline or takes too much memory. This module runs in
the worker, and the module `child_main` runs in the child. The child is a new Python program and not a fork, because a
fork would copy the state of native thread pools, and would import the main script again.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import cast

from talking_face.execution.calls import error_line
from talking_face.execution.messages import ANSWER, HEADER, LARGEST, STAGE, Outcome, Report, packed
from talking_face.execution.processes import GRACE_S, GuardedProcess, open_standard_streams
from talking_face.lines import one_line
from talking_face.reasons import Reason

START_DEADLINE_S = 180.0  # importing the libraries takes 1 s, and much longer from a network disk that is not cached
_CHECK_S = 0.25  # s between two checks of the memory; a process can fill 1 GB in this time
_KEPT_OUTPUT = 4000  # bytes of the child's printed output, for the report of a crash
# By default, the C library returns the memory of each picture to the kernel and requests zeroed memory for the next
# picture. For a 1080p frame this causes 700 page faults and takes 2 of 22 ms. With the settings below, a child keeps
# freed memory for the next picture. Only arrays above 16 MB, which occur in long clips, are still returned.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}


class ChildNotStarted(Exception):
    """No child process can be started. The message states why, in one line."""


class Stopped(Exception):
    """The run was stopped, so that the call has no result."""


class ChildDied(Exception):
    """The child ended before it answered. The message states how the child ended."""


class LimitPassed(Exception):
    """The call passed its deadline, or took too much memory."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(detail)
        self.reason, self.detail = reason, detail


class Child:
    """A running child process for one function.

    Args:
        function: name of the function, "package.module:callable".
        memory_bytes: memory that the child and the processes that it starts may take together; None: no limit.
        stop: when this event is set, a call ends with the error `Stopped`.

    Raises ChildNotStarted. After any error of `call`, the child must be closed.
    """

    def __init__(self, function: str, memory_bytes: int | None, stop: threading.Event) -> None:
        self._memory_bytes, self._stop = memory_bytes, stop
        self.stage = ""  # last stage that the current call entered
        self._printed = b""
        self._allowed_s = START_DEADLINE_S
        self._end = self._next_check = time.monotonic()
        try:
            self._start(function)
        except OSError as error:
            raise ChildNotStarted(f"{error.strerror or error}") from None
        try:
            self._allow(START_DEADLINE_S)  # the time of the start does not count towards the deadline of a task
            self._receive()
        except (ChildDied, LimitPassed) as error:
            self.close()
            late = isinstance(error, LimitPassed) and error.reason is Reason.DEADLINE
            raise ChildNotStarted(f"not ready after {START_DEADLINE_S:g} s" if late else str(error)) from None
        except BaseException:
            self.close()
            raise

    def _start(self, function: str) -> None:
        # -P: do not import from the current directory, because a folder `metrics` in the current directory would hide
        # an installed package of the same name.
        program = [sys.executable, "-P", "-m", "talking_face.execution.child_main"]
        open_standard_streams()
        self._channel, theirs = socket.socketpair()
        with theirs:
            try:
                self._guarded = GuardedProcess(
                    [*program, function, str(theirs.fileno())],
                    # Longer than the time that the child's own guarded processes get, so that each of them gets it.
                    grace_s=GRACE_S + 1,
                    env=os.environ | _KEEP_MEMORY,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.STDOUT,
                    pass_fds=(theirs.fileno(),),
                )
            except BaseException:
                self._channel.close()
                raise
        self._channel.setblocking(False)
        assert self._guarded.process.stdout is not None
        self._output: int | None = self._guarded.process.stdout.fileno()  # None after its end
        os.set_blocking(self._output, False)

    @property
    def alive(self) -> bool:
        """True while the process runs."""
        return self._guarded.process.poll() is None

    def call(self, request: bytes, deadline_s: float) -> Outcome:
        """Calls the function in the child and returns the outcome.

        Args:
            request: the arguments, as `messages.packed` returns them.
            deadline_s: seconds for the call; the function can change them by `stage.allow_seconds`.

        Raises ChildDied, LimitPassed or Stopped.
        """
        self.stage, self._printed = "", b""
        self._allow(deadline_s)
        left = memoryview(request)
        while left:
            self._wait(select.POLLOUT)
            try:
                left = left[self._channel.send(left[: 1 << 20]) :]
            except OSError:
                raise ChildDied(self._how_it_ended()) from None
        return cast(Outcome, self._receive())

    def close(self) -> None:
        """Ends the process and all processes that it started."""
        self._channel.close()
        self._guarded.end()

    def _allow(self, seconds: float) -> None:
        self._allowed_s, self._end = seconds, time.monotonic() + seconds

    def _receive(self) -> object:
        """The next answer of the child. Stages and limits that the child reports before the answer are stored."""
        while True:
            (length,) = HEADER.unpack(self._read(HEADER.size))
            if length > LARGEST:
                raise ChildDied("it wrote something into the channel that is no answer")
            kind, content = pickle.loads(self._read(length))
            if kind == ANSWER:
                return cast(object, content)
            if kind == STAGE:
                self.stage = content
            else:
                self._allow(content)

    def _read(self, count: int) -> bytes:
        """Exactly `count` bytes from the child."""
        parts: list[bytes] = []
        while count:
            self._wait(select.POLLIN)
            try:
                data = self._channel.recv(min(count, 1 << 20))
            except BlockingIOError:
                continue
            except OSError:
                data = b""
            if not data:
                raise ChildDied(self._how_it_ended())
            parts.append(data)
            count -= len(data)
        return b"".join(parts)

    def _wait(self, event: int) -> None:
        """Waits until the channel is ready. Meanwhile, reads what the child prints, and checks the limits."""
        while True:
            poll = select.poll()
            poll.register(self._channel, event)
            if self._output is not None:
                poll.register(self._output, select.POLLIN)
            ready = [descriptor for descriptor, _ in poll.poll(1000 * _CHECK_S)]
            if self._output in ready:
                self._read_output()
            if self._channel.fileno() in ready:
                return
            self._check()

    def _check(self) -> None:
        """Raises Stopped or LimitPassed if the call must not go on."""
        if self._stop.is_set():
            raise Stopped
        now = time.monotonic()
        if now >= self._end:
            detail = f"not done after {self._allowed_s:g} s; its process was stopped (a longer limit: --deadline)"
            raise LimitPassed(Reason.DEADLINE, detail)
        if self._memory_bytes is not None and now >= self._next_check:
            self._next_check = now + _CHECK_S
            if (used := self._guarded.memory_bytes()) > self._memory_bytes:
                raise LimitPassed(
                    Reason.OUT_OF_MEMORY,
                    f"its process took {used / 1e9:.1f} GB of memory, the limit is {self._memory_bytes / 1e9:.1f} GB, "
                    "and was stopped (a higher limit: --memory)",
                )

    def _read_output(self) -> bool:
        """Keeps the end of what the child printed. Returns False if there is nothing to read now."""
        try:
            data = os.read(self._output, 1 << 16) if self._output is not None else b""
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if not data:
            self._output = None
        self._printed = (self._printed + data)[-_KEPT_OUTPUT:]
        return bool(data)

    def _how_it_ended(self) -> str:
        """The child's signal or exit status, and the last line that the child printed."""
        try:
            code = self._guarded.process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return "it closed its channel"
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        while self._read_output():
            pass
        lines = self._printed.decode("utf-8", "replace").strip().splitlines()
        return f"{how}; its last words: {one_line(lines[-1], 200)}" if lines and code > 0 else how


class Keeper:
    """Keeps one child process for the calls of one worker. A child that died or was ended is replaced."""

    def __init__(self, function: str, memory_bytes: int | None, stop: threading.Event) -> None:
        self._function, self._memory_bytes, self._stop = function, memory_bytes, stop
        self._child: Child | None = None

    def report(self, args: tuple[object, ...], deadline_s: float) -> Report:
        """Calls the function. If the child dies in the call, the call is tried once more with a new child.

        Every exception of the call is in the report. Raises only ChildNotStarted and Stopped.
        """
        started = time.perf_counter()
        try:
            request = packed(args)
        except Exception as error:
            failure = (Reason.CRASHED.value, f"its arguments cannot be sent ({error_line(error)})")
            return Report(None, failure, 0.0)
        for attempt in (1, 2):
            child = self._living()
            try:
                outcome = child.call(request, deadline_s)
                return Report(*outcome, time.perf_counter() - started)
            except Stopped:
                raise
            except ChildDied as died:
                if attempt == 1:
                    self.close()
                    continue
                failure = (Reason.CRASHED.value, f"its process died twice ({died})")
            except LimitPassed as end:
                failure = (end.reason.value, end.detail)
            except Exception as error:
                failure = (Reason.CRASHED.value, f"its answer cannot be read ({error_line(error)})")
            self.close()
            return Report(None, failure, time.perf_counter() - started, child.stage)
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Ends the child process."""
        if self._child is not None:
            self._child.close()
            self._child = None

    def _living(self) -> Child:
        if self._child is None or not self._child.alive:
            self.close()
            self._child = Child(self._function, self._memory_bytes, self._stop)
        return self._child
