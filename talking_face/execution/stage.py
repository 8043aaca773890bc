"""Reports the current stage of a task, so that the report of a crash or a passed deadline can name the stage."""

from __future__ import annotations

from typing import BinaryIO

from talking_face.execution.messages import STAGE, write_message

_answers: BinaryIO | None = None  # in a child process: the pipe to the worker; in any other process: None


def report_stages_to(file: BinaryIO) -> None:
    """Sets the file to which this process reports its stages. A child process calls this function at its start."""
    global _answers
    _answers = file


def enter_stage(name: str) -> None:
    """Reports that the stage `name` of a task begins. The function of the task calls `enter_stage`.

    Outside a child process, `enter_stage` does nothing.
    """
    if _answers is not None:
        write_message(_answers, (STAGE, name))
