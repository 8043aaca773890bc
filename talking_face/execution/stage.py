"""Reports to the worker in which stage a task is, and how much more time the task needs.

The functions of tasks call this module in a child process. Outside a child process, the calls do nothing.
"""

from __future__ import annotations

from typing import BinaryIO

from talking_face.execution.messages import LIMIT, STAGE, write_message

_answers: BinaryIO | None = None  # in a child process: the channel to the worker; in any other process: None


def report_to(file: BinaryIO) -> None:
    """Sets the file to which this process reports. A child process calls this function at its start."""
    global _answers
    _answers = file


def enter_stage(name: str) -> None:
    """Reports that the stage `name` begins, so that the report of a crash or a passed deadline can name the stage."""
    if _answers is not None:
        write_message(_answers, (STAGE, name))


def allow_seconds(seconds: float) -> None:
    """Replaces the deadline of the task: from now on, the task may take so many seconds.

    A task calls this function when it knows the length of its input, or when it begins the next of several inputs.
    """
    if _answers is not None:
        write_message(_answers, (LIMIT, float(seconds)))
