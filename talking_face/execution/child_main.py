"""Main program of a child process: answers calls of one function until the pipe from the worker is closed.

`child_process.Child` starts `python -m talking_face.execution.child_main FUNCTION READ_FD WRITE_FD`. A child process
ends soon after its worker: the child exits when the pipe from the worker is closed. On Linux, the kernel also kills the
child when the worker ends.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import signal
import sys
import threading
from typing import cast

from talking_face.execution.calls import call_guarded, load
from talking_face.execution.messages import ANSWER, read_message, write_message
from talking_face.execution.stage import report_stages_to

_PR_SET_PDEATHSIG = 1


def main(function: str, read_fd: int, write_fd: int) -> None:
    """Answers calls until the pipe `read_fd` is closed."""
    _die_with_parent()
    # Ignore Ctrl-C, which a terminal sends to all processes of a command: the worker ends this process.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    from talking_face.threads import limit_threads

    limit_threads(1)
    answers = os.fdopen(write_fd, "wb")
    report_stages_to(answers)
    call = load(function)
    write_message(answers, (ANSWER, "ready"))
    requests: queue.SimpleQueue[tuple[object, ...]] = queue.SimpleQueue()
    threading.Thread(target=_listen, args=(read_fd, requests), daemon=True).start()
    while True:
        outcome = call_guarded(call, requests.get())
        # Delete the output of the finished call, so that the report of a crash in a later call does not contain it.
        with contextlib.suppress(OSError):
            os.ftruncate(1, 0)
            os.lseek(1, 0, os.SEEK_SET)
        write_message(answers, (ANSWER, outcome))


def _listen(read_fd: int, requests: queue.SimpleQueue[tuple[object, ...]]) -> None:
    """Puts requests into the queue. Ends this process when the pipe is closed, even during a call."""
    with os.fdopen(read_fd, "rb") as incoming:
        try:
            while True:
                requests.put(cast(tuple[object, ...], read_message(incoming)))
        except BaseException:
            os._exit(0)  # the worker has ended, so that no process would read an answer


def _die_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends. On other systems only `_listen` ends this process."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call of prctl, so that no signal will come
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
