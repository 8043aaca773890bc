"""Runs one function over many tasks on Dask workers. Each worker keeps a child process, which can be killed.

A video decoder can hang forever, and native code can crash its process. In both situations the remaining tasks must
still be run. Therefore a Dask worker does not run the function itself. Each thread of a worker has one child process,
which imports the function once. If a task passes its deadline, the child process is killed. A child process that was
killed or that crashed is replaced by a new child process.
    main process -> Dask scheduler -> worker process (1 thread) -> child process (runs the function)
Preprocessing and scoring use this module. The module contains nothing that is specific to a dataset.
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

# Tasks per worker: one task runs and two tasks wait. With two waiting tasks a worker is never idle, and the scheduler's
# list of tasks stays short.
_QUEUED_PER_WORKER = 3
_LOGGERS = ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler", "distributed.core")


@dataclass(frozen=True)
class Task:
    """One call of the function: a unique key of the task, the picklable arguments, and the time limit in seconds."""

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
        stage: last stage that the function entered (`stage.enter_stage`) before its process died or was killed; empty
            in all other cases.
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
        function: name of the function, "package.module:callable". The function's arguments and return values must be
            picklable. Return values should be small; the function should write large data to a file that every machine
            can read.
        tasks: the tasks; each task must have a different key.
        workers: number of local worker processes. With 0, all tasks run in the calling process without deadlines,
            which helps in debugging.
        scheduler: address of a running Dask scheduler, tcp://host:8786. If it is given, `workers` is ignored.
        progress: the progress display, which is advanced by one per result.

    An error of a task is returned in the result of the task:
        - The function raises a ClipError: the result contains the same ClipError.
        - The function raises an OSError: the reason is NO_SPACE if the disk is full, else UNREADABLE.
        - The function raises any other exception: the reason is CRASHED.
        - The child process dies twice in the same task, or the Dask worker is lost: the reason is CRASHED.
        - The task passes its deadline: the reason is DEADLINE.

    Raises UserError if no cluster can be started or reached. If the caller closes the iterator early, the workers are
    stopped.
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
    """Submits `_QUEUED_PER_WORKER` tasks per worker thread to Dask, and then one more task per finished task."""
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
    """The report of a finished Dask future. If the Dask worker was lost, the report has the reason CRASHED."""
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
    """Runs in a thread of a Dask worker: passes the call to the child process of the thread. Never raises."""
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
    """A Dask client of `scheduler`, or of a new local cluster of single-threaded processes without a dashboard."""
    # Check the address here, because Dask would try a wrong address for half a minute and then print a traceback.
    if scheduler is not None and "://" not in scheduler:
        raise UserError(f"{scheduler!r} is not the address of a Dask scheduler; it looks like tcp://HOST:8786")
    import dask

    # Silence Dask's log messages, because Dask also warns about events that are normal in this module: long tasks, a
    # killed worker, closed connections.
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
    """Connects a client to `scheduler`. Without `scheduler`, starts a local cluster and connects the client to it.

    Closing `opened` closes the client and the local cluster. Raises UserError if the scheduler has no worker.
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
            memory_limit=0,  # no limit, because Dask would count the worker's memory, not the child process's memory
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

    A terminal sends Ctrl-C to all processes of a command. In processes that are started inside the block, Ctrl-C stays
    blocked; the main process stops these processes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    # Start Python's resource tracker before SIGINT is blocked, because the tracker's start would unblock SIGINT again.
    resource_tracker.ensure_running()
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
