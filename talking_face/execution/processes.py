"""Starts commands of which nothing outlives the caller: not the command, and no process that the command starts.

Every child process of this suite that runs the code of others is started here: the children of the workers, which run
decoders and metrics, and outside methods.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO

from talking_face.execution.guard import descendants, send

GRACE_S = 2.0  # s between SIGTERM and SIGKILL; a method can remove its temporary files in this time
_GUARD = Path(__file__).with_name("guard.py")
_START_S = 60.0  # s; the guard starts in 20 ms, and much later on a machine that has no memory left
_MARGIN_S = 15.0  # s; longer than the guard waits for a process that it has killed

_Stream = int | IO[bytes] | None


class GuardedProcess:
    """A command whose whole tree of processes ends with it, with the caller, or by `end`.

    The guard (guard.py) is a child of this process, and the command is a child of the guard in a session of its own.
    The guard first sends SIGTERM to all processes of the tree, and after `grace_s` SIGKILL. It does so when

    - the command ends by itself: processes that the command left running are ended;
    - `end` is called, or this object is deleted;
    - this process ends in any way: by SIGKILL, SIGTERM, Ctrl-C, or a crash.

    Nothing else is needed in the command. It may start sessions of its own and end the parents of its processes.

    Attributes:
        process: the process of the guard. Its pipes are those of the command. Its return code is that of the command
            (negative: the signal that ended the command). It ends after the last process of the tree.
    """

    # long: the arguments of subprocess.Popen that the callers use
    def __init__(
        self,
        command: Sequence[str],
        *,
        grace_s: float = GRACE_S,
        cwd: Path | None = None,
        env: Mapping[str, str] | None = None,
        stdin: _Stream = subprocess.DEVNULL,
        stdout: _Stream = None,
        stderr: _Stream = None,
        pass_fds: Sequence[int] = (),
    ) -> None:
        """Starts the command. The arguments are those of `subprocess.Popen`.

        Raises OSError if the command, or the guard, cannot be started. Then no process is left.
        """
        self._grace_s = grace_s
        open_standard_streams()
        self._control, theirs = socket.socketpair()
        guard = [sys.executable, "-I", "-S", str(_GUARD), str(theirs.fileno()), str(os.getpid()), str(grace_s)]
        try:
            with theirs:
                self.process: subprocess.Popen[bytes] = subprocess.Popen(
                    [*guard, *command],
                    cwd=cwd,
                    env=env,
                    stdin=stdin,
                    stdout=stdout,
                    stderr=stderr,
                    pass_fds=(*pass_fds, theirs.fileno()),
                    start_new_session=True,
                )
        except BaseException:
            self._control.close()
            raise
        try:
            self._check_start(command[0])
        except BaseException:
            self.end()
            raise

    def _check_start(self, program: str) -> None:
        """Waits until the command has started. Raises OSError if it has not."""
        self._control.settimeout(_START_S)
        said = self._control.recv(4096)  # TimeoutError is an OSError
        if said == b"\n":
            return
        number, _, name = said.decode("utf-8", "surrogateescape").partition(" ")
        if number.isdigit():
            raise OSError(int(number), os.strerror(int(number)), name)
        raise ChildProcessError(0, "its guard did not start", program)

    def end(self) -> None:
        """Ends the command and all its descendants, and waits for their end. May be called more than once."""
        self._control.close()
        try:
            self.process.wait(self._grace_s + _MARGIN_S)
        except subprocess.TimeoutExpired:  # the guard was stopped, or hangs in the kernel
            tree = [*descendants(self.process.pid), self.process.pid]
            send(tree, signal.SIGKILL)
            self.process.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream is not None:
                with contextlib.suppress(OSError):  # input that the command did not read is lost
                    stream.close()

    def memory_bytes(self) -> int:
        """Private memory of the command and all its descendants, bytes (Linux; elsewhere 0).

        Memory that a process shares with others (files, libraries) is not counted.
        """
        return sum(map(_private_bytes, descendants(self.process.pid)))


def open_standard_streams() -> None:
    """Opens /dev/null for a standard stream that is closed, because a pipe or socket would get its number."""
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)


def _private_bytes(pid: int) -> int:
    try:
        fields = Path(f"/proc/{pid}/statm").read_text().split()  # pages: total, resident, shared, ...
    except OSError:
        return 0  # the process has ended
    return (int(fields[1]) - int(fields[2])) * os.sysconf("SC_PAGE_SIZE") if len(fields) > 2 else 0
