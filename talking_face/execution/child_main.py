"""Main program of a child process: answers calls of one function until the channel to the worker is closed.

`child_process.Child` starts `python -m talking_face.execution.child_main FUNCTION CHANNEL_FD` under a guard, which ends
this process when the worker ends. The main script of the worker is not imported here.
"""

from __future__ import annotations

import contextlib
import pickle
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, cast

from talking_face.execution.calls import call_guarded, error_line, load
from talking_face.execution.messages import ANSWER, Outcome, read_bytes, write_message
from talking_face.execution.stage import report_to
from talking_face.logs import continue_log
from talking_face.reasons import Reason
from talking_face.threads import limit_threads


def main(function: str, channel_fd: int) -> None:
    """Answers calls until the channel is closed."""
    limit_threads(1)
    # If the machine has no memory left, the kernel shall end this process, and not the process of the command.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("500")
    continue_log()
    channel = socket.socket(fileno=channel_fd)
    requests, answers = cast(BinaryIO, channel.makefile("rb")), cast(BinaryIO, channel.makefile("wb"))
    report_to(answers)
    call = load(function)
    write_message(answers, (ANSWER, "ready"))
    while True:
        try:
            request = read_bytes(requests)
        except (EOFError, OSError):
            return
        _send(answers, _answer(call, request))


def _answer(call: Callable[..., object], request: bytes) -> Outcome:
    try:
        args = cast(tuple[object, ...], pickle.loads(request))
    except Exception as error:  # the module of an argument cannot be imported here, or there is no memory for it
        return None, (Reason.CRASHED.value, f"its arguments cannot be read ({error_line(error)})")
    return call_guarded(call, args)


def _send(answers: BinaryIO, outcome: Outcome) -> None:
    """Sends the outcome. A value that cannot be sent is replaced by a failure."""
    try:
        write_message(answers, (ANSWER, outcome))
    except OSError:  # the worker has ended
        raise
    except Exception as error:
        failure = (Reason.CRASHED.value, f"its result cannot be sent ({error_line(error)})")
        write_message(answers, (ANSWER, (None, failure)))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
