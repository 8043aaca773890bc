"""Runs one function over many tasks on Dask workers, each with a persistent child that can be killed at a deadline.

A decoder can hang forever, and native code can crash. The run must continue in both cases. Therefore a Dask worker
never runs the function itself. Each thread of a worker has one child process, which imports the function once. If a
child dies or its task passes the deadline, the child is killed and replaced.
    main process -> Dask scheduler -> worker process (1 thread) -> child process (runs the function)
This module knows nothing about datasets: preprocessing and scoring both use it.
"""

from __future__ import annotations

import logging
import signal
import tempfile
import threading
import time
import uuid
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import TYPE_CHECKING, Any

from talking_face.execution import child_process
from talking_face.execution.calls import call_guarded, load
from talking_face.execution.messages import Failure
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.threads import limit_threads

if TYPE_CHECKING:
    from distributed import Client, Future

_QUEUED_PER_WORKER = 3  # one runs and two wait, so that a worker is never idle and the scheduler's list stays short
_LOGGERS = ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler", "distributed.core")


@dataclass(frozen=True)
class Task:
    """One call. `key` names it in results, `args` are pickled, and `deadline_s` is the time limit of the call."""

    key: str
    args: tuple[object, ...]
    deadline_s: float = 600.0


@dataclass(frozen=True)
class TaskResult:
    """Result of one task: `value`, or `error` with its reason. `seconds` is the wall time on the worker.

    `stage` is the last stage that the function entered (`stage.enter_stage`) before its process died or was killed.
    """

    key: str
    value: Any  # return value of the function; the caller knows its type
    error: ClipError | None
    seconds: float
    stage: str = ""


def run_tasks(
    function: str,
    tasks: Sequence[Task],
    *,
    workers: int = 2,
    scheduler: str | None = None,
    progress: Progress | None = None,
) -> Iterator[TaskResult]:
    """Calls `function` for every task and yields results in order of completion.

    Args:
        function: "package.module:callable". Arguments and results must be picklable. Results should be small; write
            large data to a file that every machine can read.
        tasks: keys must be unique.
        workers: local worker processes; 0 runs everything in this process, without deadlines, for debugging.
        scheduler: address of a running Dask scheduler, tcp://host:8786; `workers` is then ignored.
        progress: it is advanced by one per result.

    A ClipError raised by the function becomes the error of the result. The reason is CRASHED after another exception,
    if a child dies twice, or if a worker is lost; OSErrors can also have the reasons NO_SPACE and UNREADABLE. The
    reason is DEADLINE if a task passes its deadline. Raises UserError if no cluster can be started or reached. Closing
    the iterator early stops the workers.
    """
    if len({task.key for task in tasks}) != len(tasks):
        raise ValueError("task keys must be unique")
    if not tasks:
        return
    results = _run_here(function, tasks) if workers == 0 and scheduler is None else None
    if results is None:
        results = _run_on_dask(function, tasks, min(workers, len(tasks)), scheduler)
    for result in results:
        if progress is not None:
            progress.advance()
        yield result


def _run_here(function: str, tasks: Sequence[Task]) -> Iterator[TaskResult]:
    limit_threads(1)
    call = load(function)
    for task in tasks:
        started = time.perf_counter()
        value, failure = call_guarded(call, task.args)
        yield _result(task.key, (value, failure, time.perf_counter() - started, ""))


def _run_on_dask(function: str, tasks: Sequence[Task], workers: int, scheduler: str | None) -> Iterator[TaskResult]:
    """Submits a few tasks per worker thread to Dask, and one more task whenever a task is finished."""
    from distributed import as_completed

    with _client(workers, scheduler) as client:
        run = uuid.uuid4().hex[:12]
        names: dict[str, str] = {}  # Dask's key -> key of the task
        todo = iter(tasks)
        pending = as_completed([], loop=client.loop)

        def submit() -> None:
            if (task := next(todo, None)) is not None:
                key = f"{run}-{len(names)}"
                names[key] = task.key
                pending.add(client.submit(_on_worker, function, task.args, task.deadline_s, key=key, pure=False))

        threads = workers if scheduler is None else sum(client.nthreads().values())
        for _ in range(_QUEUED_PER_WORKER * max(1, threads)):
            submit()
        for future in pending:
            report = _report_of(future)
            future.release()
            submit()
            yield _result(names[future.key], report)
        if scheduler is not None:
            client.run(child_process.close_children)


_Report = tuple[object, Failure | None, float, str]  # value, failure, seconds, stage


def _report_of(future: Future) -> _Report:
    """The report of a finished future. A lost worker is reported as a crash."""
    try:
        report: _Report = future.result()
    except Exception as lost:  # only Dask's own errors: `_on_worker` never raises
        return None, (Reason.CRASHED.value, f"the worker was lost with it ({type(lost).__name__})"), 0.0, ""
    return report


def _result(key: str, report: _Report) -> TaskResult:
    value, failure, seconds, stage = report
    error = ClipError(Reason(failure[0]), failure[1]) if failure else None
    return TaskResult(key, value, error, seconds, stage)


def _on_worker(function: str, args: tuple[object, ...], deadline_s: float) -> _Report:
    """Passes the call to the child of this thread of a Dask worker. Never raises."""
    started = time.perf_counter()
    for attempt in (1, 2):
        try:
            value, error = child_process.child_of_this_thread(function).call(args, deadline_s)
            return value, error, time.perf_counter() - started, ""
        except child_process.DeadlinePassed as end:
            detail = f"not done after {deadline_s:g} s; its process was stopped (a longer limit: --deadline)"
            return None, (Reason.DEADLINE.value, detail), time.perf_counter() - started, end.stage
        except child_process.ChildDied as died:
            if attempt == 2:
                detail = f"its process died twice ({died})"
                return None, (Reason.CRASHED.value, detail), time.perf_counter() - started, died.stage
    raise AssertionError("unreachable")


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    """A Dask client on `scheduler`, or on a local cluster of single-threaded processes without a dashboard."""
    # Check this first, because Dask would try for half a minute and end with a traceback.
    if scheduler is not None and "://" not in scheduler:
        raise UserError(f"{scheduler!r} is not the address of a Dask scheduler; it looks like tcp://HOST:8786")
    import dask

    # Silence Dask, which reports normal events of this module: long tasks, a killed worker, closed connections.
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    with (
        warnings.catch_warnings(),
        dask.config.set(_dask_settings(scheduler)),
        tempfile.TemporaryDirectory() as scratch,
    ):
        warnings.simplefilter("ignore")
        with ExitStack() as opened:
            try:
                client = _connect(workers, scheduler, scratch, opened)
            except (OSError, TimeoutError, ValueError) as error:
                where = f"the Dask scheduler at {scheduler}" if scheduler else "local Dask workers"
                raise UserError(f"cannot reach {where}: {type(error).__name__}: {error}") from None
            try:
                yield client
            finally:
                with _interrupt_later():
                    opened.close()


def _dask_settings(scheduler: str | None) -> dict[str, object]:
    return {
        "distributed.admin.tick.limit": "1h",
        "distributed.comm.timeouts.connect": "10s" if scheduler else "60s",
        "distributed.scheduler.worker-ttl": None,
        "distributed.worker.profile.enabled": False,
        "distributed.scheduler.worker-saturation": float(_QUEUED_PER_WORKER),
        "distributed.logging": {"distributed": "critical"},
    }


def _connect(workers: int, scheduler: str | None, scratch: str, opened: ExitStack) -> Client:
    """Connects a client to `scheduler`, or to a local cluster that it starts. `opened` closes client and cluster.

    Raises UserError if the scheduler has no worker.
    """
    from distributed import Client, LocalCluster

    if scheduler is not None:
        client = Client(scheduler, timeout=10, set_as_default=False)
        opened.callback(client.close)
        if not client.nthreads():
            raise UserError(
                f"the Dask scheduler at {scheduler} has no worker; start some with `dask worker {scheduler}`"
            )
        return client
    with _interrupt_later():
        cluster = LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=0,  # no limit: the child uses the memory, not the worker
            local_directory=scratch,
            silence_logs=logging.CRITICAL,
        )
    opened.callback(cluster.close)
    client = Client(cluster, timeout=60, set_as_default=False)
    opened.callback(client.close)
    return client


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Delays Ctrl-C until the block ends, because a half-started cluster cannot be closed without a traceback.

    A terminal sends Ctrl-C to all processes, but processes that are started inside the block never receive it. This
    process stops them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # start it here, because it unblocks SIGINT when it starts
    received: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: received.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # new threads and processes inherit the mask
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if received:
        raise KeyboardInterrupt
