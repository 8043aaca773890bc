"""Main program of a child process: answers calls of one function until its input ends.

Run as `python -m talking_face.execution.child_main FUNCTION READ_FD WRITE_FD`; `child_process.Child` starts it. A child
ends soon after its worker: on Linux the kernel kills it when its parent ends, and it exits at the end of its input.
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
    """Answers calls until the input ends."""
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole process group; the parent decides
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
        # Delete the printed output, so that the report of a later crash contains only the output of that call.
        with contextlib.suppress(OSError):
            os.ftruncate(1, 0)
            os.lseek(1, 0, os.SEEK_SET)
        write_message(answers, (ANSWER, outcome))


def _listen(read_fd: int, requests: queue.SimpleQueue[tuple[object, ...]]) -> None:
    """Puts requests into the queue. Ends the process at the end of the input, even during a call."""
    with os.fdopen(read_fd, "rb") as incoming:
        try:
            while True:
                requests.put(cast(tuple[object, ...], read_message(incoming)))
        except BaseException:
            os._exit(0)  # the worker has ended, so nobody reads an answer


def _die_with_parent() -> None:
    """Asks Linux to kill this process when its parent ends. Other systems rely on the end of the input."""
    parent = os.getppid()
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # the parent ended before the call
        os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
