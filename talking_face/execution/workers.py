"""Runs one function over many tasks on workers. Each worker keeps a child process, which can be ended at a limit.

A video decoder can hang forever, take all memory, or crash its process. In each situation the remaining tasks must
still be run. Therefore a worker does not run the function itself. It has one child process, which imports the function
once. If a task passes its deadline or its limit of memory, the child process is ended. A child process that was ended
or that crashed is replaced by a new child process.
    this process -> worker: a thread here, or a thread of a Dask cluster -> guard -> child process (runs the function)
Preprocessing and scoring use this module. The module contains nothing that is specific to a dataset.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import closing

from talking_face.execution.calls import call_guarded, load
from talking_face.execution.dask_workers import run_on_cluster
from talking_face.execution.local_workers import run_locally
from talking_face.execution.memory import default_limit
from talking_face.execution.messages import DAMAGED, Report
from talking_face.execution.task import Task, TaskResult
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.threads import limit_threads

__all__ = ["Task", "TaskResult", "run_tasks"]


def run_tasks(
    function: str,
    tasks: Sequence[Task],
    *,
    workers: int = 2,
    scheduler: str | None = None,
    memory_bytes: int | None = None,
    progress: Progress | None = None,
) -> Generator[TaskResult, None, None]:
    """Calls `function` for every task and yields results in order of completion.

    Args:
        function: name of the function, "package.module:callable". The function's arguments and return values must be
            picklable and at most `messages.LARGEST` bytes long; the function should write large data to a file that
            every machine can read.
        tasks: the tasks; each task must have a different key.
        workers: number of local workers. With 0, all tasks run in the calling process without limits, which helps in
            debugging.
        scheduler: address of a running Dask scheduler, tls://HOST:8786 or tcp://HOST:8786. If it is given, `workers` is
            ignored. Without it, no network is used.
        memory_bytes: memory that the child process of a worker may take, with the processes that it starts; None:
            `memory.default_limit`.
        progress: the progress display, which is advanced by one per result.

    An error of a task is returned in the result of the task:
        - The function raises a ClipError: the result contains the same ClipError.
        - The function raises an OSError: the reason is NO_SPACE if the disk is full, else UNREADABLE.
        - The function raises a MemoryError, or passes the limit of memory: the reason is OUT_OF_MEMORY.
        - The function raises any other exception: the reason is CRASHED.
        - The child process dies twice in the same task, the Dask worker is lost, or arguments or value cannot be sent:
          the reason is CRASHED.
        - The task passes its deadline: the reason is DEADLINE.

    Raises UserError if no worker can be started, if the cluster cannot be reached or is lost, or if a task finds that a
    stored file is damaged (`sealed.Damaged`). If the caller closes the iterator early, the workers are stopped.
    """
    if len({task.key for task in tasks}) != len(tasks):
        raise ValueError("task keys must be unique")
    if workers < 0:
        raise ValueError(f"{workers} workers")
    if not tasks:
        return
    if scheduler is not None:
        reports = run_on_cluster(function, tasks, scheduler, memory_bytes, _noting(progress))
    elif workers == 0:
        reports = _run_here(function, tasks)
    else:
        workers = min(workers, len(tasks))
        memory_bytes = memory_bytes or default_limit(workers)
        reports = run_locally(function, tasks, workers, memory_bytes, _noting(progress))
    with closing(reports):  # at once, also if a traceback still refers to this iterator
        for key, report in reports:
            if progress is not None:
                progress.advance()
            if report.failure and report.failure[0] == DAMAGED:
                raise UserError(report.failure[1])
            error = ClipError(Reason(report.failure[0]), report.failure[1]) if report.failure else None
            yield TaskResult(key, report.value, error, report.seconds, report.stage)


def _noting(progress: Progress | None) -> Callable[[str], None]:
    return progress.note if progress is not None else lambda line: print(line, file=sys.stderr)


def _run_here(function: str, tasks: Sequence[Task]) -> Generator[tuple[str, Report], None, None]:
    limit_threads(1)
    call = load(function)
    for task in tasks:
        started = time.perf_counter()
        value, failure = call_guarded(call, task.args)
        yield task.key, Report(value, failure, time.perf_counter() - started)
