"""Makes temporary folders that do not stay behind: a folder of a killed process is removed by a later process.

A folder is locked as long as its process runs. The kernel releases the lock when the process ends in any way. So a
folder without a lock belongs to a process that has ended, also if that process ran in another container.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

PREFIX = "cmet-eval-scratch-"
_LOCK = ".lock"


class Scratch:
    """A temporary folder, `path`, until `remove` is called or the process ends."""

    def __init__(self) -> None:
        remove_abandoned()
        # The folder gets its final name after it is locked, so that no other process removes it before.
        made = Path(tempfile.mkdtemp(prefix="cmet-eval-new-"))
        self._lock = os.open(made / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        with contextlib.suppress(OSError):  # ENOLCK of a network disk: then nobody else can lock the folder either
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.path = made.rename(made.with_name(made.name.replace("cmet-eval-new-", PREFIX)))

    def remove(self) -> None:
        """Removes the folder with its content. May be called more than once."""
        shutil.rmtree(self.path, ignore_errors=True)
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


@contextlib.contextmanager
def scratch_folder() -> Iterator[Path]:
    """An empty temporary folder, which is removed at the end of the block."""
    scratch = Scratch()
    try:
        yield scratch.path
    finally:
        scratch.remove()


def remove_abandoned() -> None:
    """Removes the folders of processes that have ended. Folders of other users are left alone."""
    for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError):
            lock = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(lock)
