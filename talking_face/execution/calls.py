"""Calls the function of a task and converts an exception to a reason code and one line of detail."""

from __future__ import annotations

import errno
import importlib
import logging
from collections.abc import Callable

from talking_face.execution.messages import DAMAGED, Outcome
from talking_face.lines import one_line
from talking_face.reasons import ClipError, Reason
from talking_face.sealed import Damaged

log = logging.getLogger(__name__)


def load(function: str) -> Callable[..., object]:
    """Imports a function that is named as "package.module:name"."""
    module, _, name = function.partition(":")
    found: Callable[..., object] = getattr(importlib.import_module(module), name)
    return found


def call_guarded(call: Callable[..., object], args: tuple[object, ...]) -> Outcome:
    """Calls `call(*args)`. An exception is converted to a reason code and one line of detail.

    `sys.exit` in the function is converted too. The traceback is logged, except for a ClipError or a MemoryError.
    """
    try:
        return call(*args), None
    except ClipError as error:
        return None, (error.reason.value, error.detail)
    except Damaged as error:
        return None, (DAMAGED, str(error))
    except OSError as error:
        log.debug("task failed", exc_info=True)
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            detail = f"no space left on the disk of {error.filename or 'the output folder'}"
            return None, (Reason.NO_SPACE.value, detail)
        return None, (Reason.UNREADABLE.value, error_line(error))
    except MemoryError:
        return None, (Reason.OUT_OF_MEMORY.value, "the memory of the machine was not enough")
    except (Exception, SystemExit) as error:
        log.debug("task failed", exc_info=True)
        return None, (Reason.CRASHED.value, error_line(error))


def error_line(error: BaseException) -> str:
    """The type and the text of an exception, at most 300 characters of it, in one line."""
    try:
        text = one_line(error, 300)
    except Exception:  # an exception of others, whose text cannot be made
        text = ""
    return f"{type(error).__name__}: {text}" if text else type(error).__name__
