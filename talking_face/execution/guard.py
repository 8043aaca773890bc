"""Runs a command, and ends its process tree when the command or the calling process ends.

    PYTHON -I -S guard.py CONTROL_FD CALLER_PID GRACE_S COMMAND...

The process tree is the command and all its descendants. This program is the guard of the tree.
`processes.GuardedProcess` starts the guard and holds the other end of the socket CONTROL_FD. The guard ends the tree
when the other end is closed. The kernel closes it when the caller ends in any way, also by SIGKILL.

A separate program is needed for two reasons. A killed process cannot end its own descendants. And the signal that the
kernel sends when a process dies reaches only direct children, not the processes that these children start. The guard
runs only the code of this file, so a hang or crash of other code does not affect the guard.

On Linux, the guard is the subreaper of the tree: when a process in the tree ends, its children become children of the
guard, even if they are in another session. Therefore `descendants` finds every process of the tree. On systems other
than Linux, only the process group of the command is ended.

This file imports only a few modules of the standard library, so that the guard starts in 20 ms and takes 8 MB.
"""

from __future__ import annotations

import ctypes
import os
import resource
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

_PR_SET_PDEATHSIG, _PR_SET_CHILD_SUBREAPER = 1, 36  # linux/prctl.h
_POLL_S = 1.0  # s between two checks of the caller; needed only if a fork of the caller holds the socket open
# s; the guard waits at most so long after SIGKILL, because a process that waits for a disk does not end before the disk
# answers.
_KILL_S = 10.0
_HAS_CHILDREN_FILE = Path(f"/proc/self/task/{os.getpid()}/children").exists()


def descendants(pid: int) -> list[int]:
    """The processes below `pid`, parents before their children, without `pid` itself (Linux; elsewhere empty).

    Processes that have ended and whose parent has not read their status are included.
    """
    found, parents = [], _parents() if not _HAS_CHILDREN_FILE else {}
    queue = [pid]
    while queue:
        parent = queue.pop(0)
        below = _children(parent) if _HAS_CHILDREN_FILE else [p for p, above in parents.items() if above == parent]
        found += below
        queue += below
    return found


def _children(pid: int) -> list[int]:
    """The children of a process. The kernel lists the children of each thread separately."""
    found: list[int] = []
    try:
        for thread in Path(f"/proc/{pid}/task").iterdir():
            found += map(int, (thread / "children").read_text().split())
    except OSError:
        pass  # the process or the thread has ended
    return found


def _parents() -> dict[int, int]:
    """The parent of every process, for kernels that do not list children. Takes 15 us per process."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            found[int(entry.name)] = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
        except OSError:
            continue
    return found


def send(pids: list[int], number: int) -> None:
    """Sends a signal to processes. A process that has ended, or that belongs to another user, is left out."""
    for pid in pids:
        try:
            os.kill(pid, number)
        except (ProcessLookupError, PermissionError):
            continue


def prctl(option: int, value: int) -> None:
    """Calls the kernel's `prctl`. On other systems than Linux, nothing happens."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value)


class Guard:
    """The command's process and its descendants."""

    def __init__(self, command: list[str], grace_s: float) -> None:
        self._grace_s = grace_s
        self.status: int | None = None  # of the command, as `os.waitpid` returns it; None while the command runs
        prctl(_PR_SET_CHILD_SUBREAPER, 1)
        me = os.getpid()

        def in_child() -> None:
            prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)  # ends the command if the guard itself is killed
            if os.getppid() != me:
                os._exit(1)

        process = subprocess.Popen(command, close_fds=False, start_new_session=True, preexec_fn=in_child)
        self._pid = process.pid
        process.returncode = 0  # stops the destructor from reading the exit status, which `reap` reads

    def reap(self) -> None:
        """Reads the status of every ended child; keeps the status of the command."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._pid:
                self.status = status

    def end(self) -> None:
        """Ends all processes of the tree: SIGTERM, then SIGKILL for those that run after `grace_s`."""
        self.reap()
        send(self._tree(), signal.SIGTERM)
        self._wait(self._grace_s)
        # A stopped process cannot start another process. So the loop ends when every process of the tree is stopped,
        # and no process can escape the SIGKILL.
        stopped: list[int] = []
        while new := [pid for pid in self._tree() if pid not in stopped]:
            send(new, signal.SIGSTOP)
            stopped += new
        send(stopped, signal.SIGKILL)
        self._wait(_KILL_S)

    def _tree(self) -> list[int]:
        """All processes of the tree. On other systems than Linux, only the command."""
        if sys.platform == "linux":
            return descendants(os.getpid())
        try:
            os.killpg(self._pid, 0)
        except (ProcessLookupError, PermissionError):
            return []
        return [-self._pid]  # for `os.kill`, a negative number means a process group

    def _wait(self, seconds: float) -> None:
        """Waits until the tree is empty, but at most `seconds`."""
        end = time.monotonic() + seconds
        pause = 0.001
        while self._tree() and time.monotonic() < end:
            time.sleep(pause)
            pause = min(2 * pause, 0.05)
            self.reap()


def main(control: int, caller: int, grace_s: float, command: list[str]) -> None:
    """Runs the command until it ends, the caller ends, or a signal to stop arrives. Then ends the tree and exits.

    If the command starts, an empty line is written to the socket. Otherwise, the error number and the file are written.
    The guard exits with the status of the command.
    """
    os.set_inheritable(control, False)
    wake, woken = os.pipe()  # receives one byte for each signal
    os.set_blocking(woken, False)
    stops: list[int] = []
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
        signal.signal(number, lambda got, _: stops.append(got))
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.set_wakeup_fd(woken, warn_on_full_buffer=False)
    try:
        guard = Guard(command, grace_s)
    except OSError as error:
        os.write(control, f"{error.errno} {error.filename or command[0]}".encode("utf-8", "surrogateescape"))
        os._exit(127)
    os.write(control, b"\n")
    while guard.status is None:
        ready, _, _ = select.select([control, wake], [], [], _POLL_S)
        if wake in ready:
            os.read(wake, 4096)
        guard.reap()
        if control in ready or stops or os.getppid() != caller:
            break
    guard.end()
    _exit_as(guard.status)


def _exit_as(status: int | None) -> None:
    """Ends this process as the command ended: with the same exit status, or by the same signal."""
    code = -signal.SIGKILL if status is None else os.waitstatus_to_exitcode(status)
    if code < 0:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        if -code not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(-code, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_UNBLOCK, {-code})
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4:])
