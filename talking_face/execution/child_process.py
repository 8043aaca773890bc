"""The persistent child process of a worker: started once, called over pipes, killed at a deadline.

Run as `python -m talking_face.execution.child_process FUNCTION READ_FD WRITE_FD`; the worker's side is `Child`.
Messages are pickles with a length in front: both ends are this program, on one machine, over pipes that no one else
holds. Started with subprocess, not multiprocessing: Dask's workers are daemons and may have no children of that kind,
and a fork would copy the state of native thread pools.
A child never outlives its worker by long: the kernel kills it with its parent (Linux), and it ends itself at the end of
its input.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import errno
import importlib
import logging
import os
import pickle
import queue
import select
import signal
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, BinaryIO

from talking_face.reasons import ClipError, Reason

START_DEADLINE_S = 180.0  # importing the stack takes 1 s, on a cold network disk much more
_HEADER = struct.Struct("<Q")
_PR_SET_PDEATHSIG = 1
# The C library gives pictures' memory back to the kernel each time and gets it anew, zeroed: 700 page faults and 2 of
# 22 ms a 1080p frame. A child keeps what it has had; the next clip wants it again. Not so arrays of above 16 MB, which
# only long clips have.
_KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": str(16 << 20), "MALLOC_TRIM_THRESHOLD_": str(1 << 32)}

Outcome = tuple[Any, tuple[str, str] | None]  # (value, (reason, detail) or None)

log = logging.getLogger(__name__)


class ChildDied(Exception):
    """The child ended before it answered; the message says how, `stage` how far the call had come."""

    stage = ""


class DeadlinePassed(Exception):
    """The child did not answer in time and was killed; `stage` says how far the call had come."""

    stage = ""


def enter_stage(name: str) -> None:
    """Called by a task's function: names the part that now begins, so that a death or a deadline can say where."""
    if _answers is not None:
        _write(_answers, ("stage", name))


_answers: BinaryIO | None = None  # of a child process; None elsewhere


def load(function: str) -> Callable[..., Any]:
    """The callable that "package.module:name" names."""
    module, _, name = function.partition(":")
    return getattr(importlib.import_module(module), name)  # type: ignore[no-any-return]


def call_guarded(call: Callable[..., Any], args: tuple[Any, ...]) -> Outcome:
    """Calls it, and turns exceptions into a reason and one line. The traceback goes to the log."""
    try:
        return call(*args), None
    except ClipError as error:
        return None, (error.reason.value, error.detail)
    except OSError as error:
        log.debug("task failed", exc_info=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return None, (
                Reason.NO_SPACE.value,
                f"no space left on the disk of {error.filename or 'the output folder'}",
            )
        return None, (Reason.UNREADABLE.value, _one_line(error))
    except MemoryError:
        return None, (Reason.CRASHED.value, "out of memory")
    except Exception as error:
        log.debug("task failed", exc_info=True)
        return None, (Reason.CRASHED.value, _one_line(error))


def _one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())[:300]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


# -- the worker's side -------------------------------------------------------------------------------------------------


class Child:
    """A running child for one function."""

    def __init__(self, function: str) -> None:
        self.function = function
        ours_read, theirs_write = os.pipe()
        theirs_read, ours_write = os.pipe()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - what it prints, for the detail of a crash
        # -P: a `metrics` folder in the current directory, a method's own say, must not stand in for ours.
        command = [
            sys.executable,
            "-P",
            "-m",
            "talking_face.execution.child_process",
            function,
            str(theirs_read),
            str(theirs_write),
        ]
        self._process = subprocess.Popen(
            command,
            env=os.environ | _KEEP_MEMORY,
            pass_fds=(theirs_read, theirs_write),
            stdin=subprocess.DEVNULL,
            stdout=self._said,
            stderr=subprocess.STDOUT,
        )
        os.close(theirs_read)
        os.close(theirs_write)
        self._to = os.fdopen(ours_write, "wb")
        self._from = os.fdopen(ours_read, "rb", buffering=0)
        self._stage = ""
        try:
            self._receive(START_DEADLINE_S)  # its start-up counts towards no task's deadline
        except DeadlinePassed:
            raise ChildDied(f"did not start within {START_DEADLINE_S:g} s") from None

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self._process.poll() is None

    def call(self, args: tuple[Any, ...], deadline_s: float) -> Outcome:
        """One call. Raises ChildDied or DeadlinePassed, after which this child is gone."""
        self._stage = ""
        try:
            try:
                _write(self._to, args)
            except OSError:
                raise ChildDied(self._obituary()) from None
            outcome: Outcome = self._receive(deadline_s)
            return outcome
        except (ChildDied, DeadlinePassed) as end:
            end.stage = self._stage
            raise

    def close(self) -> None:
        """Kills the process."""
        if self._process.poll() is None:
            self._process.kill()
        self._process.wait()
        for file in (self._to, self._from, self._said):
            with contextlib.suppress(OSError):
                file.close()

    def _receive(self, deadline_s: float) -> Any:
        end = time.monotonic() + deadline_s
        parts: list[bytes] = []
        wanted = _HEADER.size
        header: int | None = None
        while True:
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._from], [], [], left)[0]:
                self.close()
                raise DeadlinePassed
            data = self._from.read(min(wanted, 1 << 20))
            if not data:
                raise ChildDied(self._obituary())
            parts.append(data)
            wanted -= len(data)
            if wanted:
                continue
            whole, parts = b"".join(parts), []
            if header is None:
                header = wanted = _HEADER.unpack(whole)[0]
                continue
            kind, content = pickle.loads(whole)
            if kind == "answer":
                return content
            self._stage, header, wanted = content, None, _HEADER.size

    def _obituary(self) -> str:
        try:
            code = self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            code = 0
        how = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit status {code}"
        try:
            self._said.seek(0)
            lines = self._said.read().decode("utf-8", "replace").strip().splitlines()
        except (OSError, ValueError):
            lines = []
        self.close()
        return f"{how}; its last words: {lines[-1][:200]}" if lines and code > 0 else how


_children: dict[int, Child] = {}
# The kernel's death signal follows the thread that started a child, so all are started by one thread that never ends.
_starter: ThreadPoolExecutor | None = None
_lock = threading.Lock()


def child_of_this_thread(function: str) -> Child:
    """This thread's child for `function`, started where there is none. Raises ChildDied where it cannot start."""
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


# -- the child's side --------------------------------------------------------------------------------------------------


def _write(file: BinaryIO, message: Any) -> None:
    data = pickle.dumps(message, protocol=pickle.HIGHEST_PROTOCOL)
    file.write(_HEADER.pack(len(data)) + data)
    file.flush()


def _read(file: BinaryIO) -> Any:
    """The next message. Raises EOFError at the end of the input."""
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        raise EOFError
    return pickle.loads(file.read(_HEADER.unpack(header)[0]))


def _die_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends; elsewhere the end of the input does it."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it went before the call
        os._exit(1)


def main(function: str, read_fd: int, write_fd: int) -> None:
    """Answers calls until the input ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the parent decides
    from talking_face.threads import limit_threads

    limit_threads(1)
    requests: queue.SimpleQueue[Any] = queue.SimpleQueue()
    answers = os.fdopen(write_fd, "wb")
    # This file runs as __main__; a task's function imports it under its own name.
    importlib.import_module("talking_face.execution.child_process")._answers = answers  # type: ignore[attr-defined]
    call = load(function)
    _write(answers, ("answer", "ready"))

    def listen() -> None:
        with os.fdopen(read_fd, "rb") as incoming:
            try:
                while True:
                    requests.put(_read(incoming))
            except BaseException:
                os._exit(0)  # the worker is gone or done; a call under way has no one to answer to

    threading.Thread(target=listen, daemon=True).start()
    while True:
        outcome = call_guarded(call, requests.get())
        # What was printed so far belongs to calls that ended well.
        with contextlib.suppress(OSError):
            os.ftruncate(1, 0)
            os.lseek(1, 0, os.SEEK_SET)
        _write(answers, ("answer", outcome))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
