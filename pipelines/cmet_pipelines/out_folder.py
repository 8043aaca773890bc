"""Locks the output folder of a run, and replaces errors of the disk by one-line messages."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from talking_face.names import printable
from talking_face.reasons import NoSpace, UserError

LOCK = ".lock"
FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})  # the disk, the user's share of it, or a file is full
# flock on a network disk without a lock server, or on a disk that has no locks.
_NO_LOCKS = frozenset({errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL})


@contextmanager
def output_folder(out: Path) -> Iterator[None]:
    """Creates the folder and locks it, so that a second run cannot write to it.

    The kernel releases the lock when this process ends, also if the process is killed. On a disk without locks, the run
    continues with a warning: a lock file would remain after a kill, and would then stop the next run.

    Raises UserError if another run has the lock, and, here or inside the block, in place of any OSError.
    """
    lock = out / LOCK
    made: list[Path] = []
    try:
        made += [path for path in (lock, out) if not path.exists()]
        out.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if not os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                    raise BlockingIOError  # a run that was refused removed this lock file
            except (BlockingIOError, FileNotFoundError):
                made.clear()
                raise UserError(f"another run is writing to {out}; wait for it, or give another folder") from None
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                print(
                    f"the disk of {out} has no locks ({error.strerror}); run only one command at a time on this folder",
                    file=sys.stderr,
                )
            try:
                yield
            except UserError:
                _remove_empty(made)
                raise
    except OSError as error:
        raise disk_error(out, error) from None


def _remove_empty(made: Iterable[Path]) -> None:
    """Removes the lock file and the folder that a refused run made, unless the folder has files."""
    for path in made:
        with suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()


def disk_error(out: Path, error: OSError) -> UserError:
    """The message for an error of the disk while a run writes to `out`."""
    where = printable(str(error.filename or out))
    if error.errno in FULL:
        return NoSpace(
            f"the disk of {out} is full, or its limit is reached ({error.strerror}; {_free(out)} free). "
            "No half-written file is left. Free some space and run the same command again: it resumes where it stopped"
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return UserError(f"{error.strerror}; raise the limit (`ulimit -n 1024`) and run the same command again")
    return UserError(f"cannot use {where}: {error.strerror or error}; repair it, or give another folder")


def _free(out: Path) -> str:
    try:
        return f"{shutil.disk_usage(out).free / 1e6:.1f} MB"
    except OSError:
        return "unknown space"
