"""Turns an exception that ends a command into one line for the user and an exit status."""

from __future__ import annotations

import errno
import os
import sys
from typing import NamedTuple

from cmet_eval.help_pages import WRONG_USE, wrong_use
from talking_face.lines import one_line
from talking_face.names import printable
from talking_face.packages import how_to_install, is_of_an_extra
from talking_face.reasons import ClipError, NoSpace, UserError

# Errors of a path that the user gave: wrong use, exit status 2.
_WRONG_PATH = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EEXIST}
_WRONG_PATH |= {errno.ELOOP, errno.ENAMETOOLONG}
_LOOP = "Symlink loop from "  # pathlib of Python 3.11 and 3.12 raises a RuntimeError
_LONGEST = 600  # characters of a line


class Failure(NamedTuple):
    """How a command ends: the text for the user, the exit status, and whether the error is a fault of the suite."""

    text: str
    status: int
    unexpected: bool = False


def failure_of(error: Exception) -> Failure:
    """The failure that an exception means. Only the text of a UserError can have several lines."""
    if isinstance(error, UserError):
        return Failure("\n".join(map(printable, str(error).split("\n"))), 1 if isinstance(error, NoSpace) else 2)
    if isinstance(error, WRONG_USE):
        return Failure(wrong_use(error), 2)
    if isinstance(error, ClipError):
        return Failure(f"{_short_line(error.detail)} ({error.reason.value})", 1)
    if isinstance(error, OSError):
        return _of_the_system(error)
    if isinstance(error, ModuleNotFoundError) and error.name and is_of_an_extra(error.name):
        return Failure(f"this needs {error.name}; run `{how_to_install(error.name)}`", 2)
    if isinstance(error, ImportError):
        return Failure(f"a package cannot be imported: {_short_line(error)}", 1, unexpected=True)
    if isinstance(error, MemoryError):
        return Failure("not enough memory; close other programs or use fewer --workers", 1, unexpected=True)
    if isinstance(error, RuntimeError) and str(error).startswith(_LOOP):
        return Failure(_short_line(error), 2)
    if _is_validation_error(error):
        fields = (f"{'.'.join(map(str, item['loc'])) or 'value'}: {item['msg']}" for item in error.errors())  # type: ignore[attr-defined]
        return Failure("\n".join(map(_short_line, fields)), 2, unexpected=True)
    return Failure(f"unexpected {type(error).__name__}: {_short_line(error)}", 1, unexpected=True)


def _of_the_system(error: OSError) -> Failure:
    """The failure of an OSError: the system's words, and the file."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Failure("no space left on the disk; free some and run the same command again: finished work is kept", 1)
    if error.errno is None or not error.strerror:
        return Failure(_short_line(error) or type(error).__name__, 1, unexpected=True)
    names = [name for name in (error.filename, error.filename2) if name is not None]
    where = "".join(f": {printable(os.fsdecode(name) if isinstance(name, bytes) else str(name))}" for name in names)
    status = 2 if error.errno in _WRONG_PATH and names else 1
    return Failure(f"{_short_line(error.strerror)}{where}", status, unexpected=not names)


def _short_line(text: object) -> str:
    """The text on one line of at most 600 printable characters."""
    line = printable(one_line(text))
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 4]} ..."


def _is_validation_error(error: Exception) -> bool:
    """True for an error of pydantic, which is not imported for this question."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(error, pydantic.ValidationError)
