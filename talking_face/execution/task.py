"""Defines a task of `run_tasks` and its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from talking_face.reasons import ClipError


@dataclass(frozen=True)
class Task:
    """One call of the function: a unique key of the task, the picklable arguments, and the time limit in seconds.

    The function can replace the time limit by `stage.allow_seconds`.
    """

    key: str
    args: tuple[object, ...]
    deadline_s: float = 600.0


@dataclass(frozen=True)
class TaskResult:
    """Result of one task: a value, or an error with its reason.

    Attributes:
        key: key of the task.
        value: return value of the function; None if there is an error.
        error: None if the function returned a value.
        seconds: wall time on the worker.
        stage: last stage that the function entered (`stage.enter_stage`) before its process died or was ended; empty
            in all other cases.
    """

    key: str
    value: Any  # return value of the function; the caller knows its type
    error: ClipError | None
    seconds: float
    stage: str = ""
