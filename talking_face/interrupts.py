"""Ends a command on Ctrl-C, SIGTERM and SIGHUP with one line, after its files and processes are cleaned up.

The first signal raises `Interrupted` in the main thread, so that `finally` blocks and context managers clean up. Later
signals are ignored, because an exception in the middle of cleaning would leave files and processes behind. If cleaning
takes over `HARD_AFTER_S`, the process ends without it.

This module is imported before the signal handlers are set. Therefore it imports only small modules.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
import sys
import threading
import time

TYPE_CHECKING = False  # the module typing is not imported, because this takes 10 ms
if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

SIGNALS = tuple(getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name))
LINE = "cmet-eval: stopped; the same command resumes the work"
HARD_AFTER_S = 20.0  # s; closing the workers takes below 1 s on a free machine
_IMPORT_S = 3.0  # s that an import gets to finish; importing torch takes 2 s, and more on a busy machine
_AGAIN_S = 0.02  # s between two tries to raise the exception
_IMPORT = "<frozen importlib._bootstrap>"


class Interrupted(KeyboardInterrupt):
    """The process received one of the signals."""


class Interrupts:
    """Receives the signals of one command. Use one object per process, in the main thread.

    Until `begin` is called, nothing needs cleaning, so that a signal ends the process at once. Afterwards a signal
    raises `Interrupted`, if possible not inside an import: a library that is half imported can hide the exception.
    """

    def __init__(self) -> None:
        self._begun = False
        self._received = 0  # number of the first signal; 0: none
        self._import_ends = 0.0  # time at which the exception is raised even inside an import

    @contextlib.contextmanager
    def listening(self) -> Iterator[Interrupts]:
        """Handles the signals until the block ends. A signal that the caller ignores (as with nohup) stays ignored."""
        numbers = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
        before = {number: signal.signal(number, self._receive) for number in numbers}
        if timer := getattr(signal, "SIGALRM", None):
            before[timer] = signal.signal(timer, self._raise)
        hook = sys.unraisablehook
        sys.unraisablehook = self._unraisable
        try:
            yield self
        finally:
            if not self._received:  # after a signal, later ones are ignored until the process has ended
                sys.unraisablehook = hook
                for number, handler in before.items():
                    signal.signal(number, handler)
                # While Python ends, its own handler of Ctrl-C would print a traceback.
                atexit.register(signal.signal, signal.SIGINT, signal.SIG_DFL)

    @property
    def status(self) -> int:
        """The exit status, 128 and the signal's number as in a shell; 0 if there was no signal."""
        return 128 + self._received if self._received else 0

    def begin(self) -> None:
        """From now on the process may hold files and processes that need cleaning."""
        self._begun = True

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self._received:
            return
        self._received = number
        if not self._begun:
            stop_at_once(self.status)
        watch = threading.Timer(HARD_AFTER_S, stop_at_once, (self.status,))
        watch.daemon = True
        watch.start()
        self._import_ends = time.monotonic() + _IMPORT_S
        self._raise(number, frame)

    def _raise(self, _: int, frame: FrameType | None) -> None:
        if _in_import(frame) and time.monotonic() < self._import_ends and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        else:
            raise Interrupted

    def _unraisable(self, args: sys.UnraisableHookArgs) -> None:
        """Raises the exception again if it came inside a destructor or a callback, where Python drops exceptions."""
        if isinstance(args.exc_value, Interrupted) and hasattr(signal, "setitimer"):
            signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)
        elif not self._received:  # while the process stops, objects are destroyed in any order
            sys.__unraisablehook__(args)


def stop_at_once(status: int) -> None:
    """Prints the line and ends the process without cleaning. The processes that it started end with it."""
    with contextlib.suppress(OSError):  # after SIGHUP there is no terminal
        os.write(2, f"{LINE}\n".encode())
    os._exit(status)


def _in_import(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename == _IMPORT:
            return True
        frame = frame.f_back
    return False
