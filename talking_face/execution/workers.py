"""Runs one function over many tasks on Dask workers, each with a persistent child that can be killed at a deadline.

A decoder can hang for ever, and native code can crash: neither may take the run along. So a Dask worker never runs the
function itself. It owns one child process (a thread of a worker with several threads, one each), which imports the
function once, and is killed and replaced when a task passes its deadline or the child dies.
    main process -> Dask scheduler -> worker process (1 thread) -> child process (runs the function)
Knows nothing of datasets: preprocessing and scoring both use it.
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
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import resource_tracker
from typing import Any

from talking_face.execution import child_process
from talking_face.progress import Progress
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.threads import limit_threads

_QUEUED_PER_WORKER = 3  # one running and two waiting: a worker never idles, and the scheduler holds no long list
_LOGGERS = ("distributed", "distributed.worker", "distributed.nanny", "distributed.scheduler", "distributed.core")


@dataclass(frozen=True)
class Task:
    """One call: `key` names it in results, `args` are pickled, `deadline_s` counts from the call's start."""

    key: str
    args: tuple[Any, ...]
    deadline_s: float = 600.0


@dataclass(frozen=True)
class TaskResult:
    """What came of one task: `value`, or `error` with its reason. `seconds` of wall time, as the worker saw it.

    `stage` is the last one that the function entered (`child_process.enter_stage`) before it died or was stopped.
    """

    key: str
    value: Any
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
        function: "package.module:callable". Arguments and results must pickle; a result should be small (write what is
            large to a file that every machine sees).
        tasks: keys must be unique.
        workers: local worker processes; 0 runs everything in this process, without deadlines, for debugging.
        scheduler: address of a running Dask scheduler, tcp://host:8786; `workers` is then ignored.
        progress: advanced by one at each result.

    A ClipError raised by the function is the result's error. Any other exception, a child that dies twice, or a lost
    worker gives Reason.CRASHED; a task past its deadline Reason.DEADLINE. Raises UserError where no cluster starts.
    Leaving the iterator early stops the workers.
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
    call = child_process.load(function)
    for task in tasks:
        started = time.perf_counter()
        value, error = child_process.call_guarded(call, task.args)
        yield _result(task.key, value, error, time.perf_counter() - started)


def _run_on_dask(function: str, tasks: Sequence[Task], workers: int, scheduler: str | None) -> Iterator[TaskResult]:
    from distributed import as_completed

    with _client(workers, scheduler) as client:
        run = uuid.uuid4().hex[:12]
        names: dict[str, str] = {}  # Dask's key -> ours
        todo = iter(tasks)
        pending = as_completed([], loop=client.loop)
        local = workers if scheduler is None else 0

        def submit() -> bool:
            task = next(todo, None)
            if task is None:
                return False
            key = f"{run}-{len(names)}"
            names[key] = task.key
            future = client.submit(_on_worker, function, task.args, task.deadline_s, key=key, pure=False)
            pending.add(future)
            return True

        threads = local or sum(client.nthreads().values())
        for _ in range(_QUEUED_PER_WORKER * max(1, threads)):
            if not submit():
                break
        for future in pending:
            key = names[future.key]
            try:
                value, error, seconds, stage = future.result()
            except Exception as lost:
                # Only Dask's own trouble ends here: _on_worker never raises.
                value, seconds, stage = None, 0.0, ""
                error = (Reason.CRASHED.value, f"the worker was lost with it ({type(lost).__name__})")
            future.release()
            submit()
            yield _result(key, value, error, seconds, stage)
        if scheduler is not None:
            client.run(child_process.close_children)


def _result(key: str, value: Any, error: tuple[str, str] | None, seconds: float, stage: str = "") -> TaskResult:
    return TaskResult(key, value, ClipError(Reason(error[0]), error[1]) if error else None, seconds, stage)


_Report = tuple[Any, tuple[str, str] | None, float, str]  # value, (reason, detail), seconds, stage


def _on_worker(function: str, args: tuple[Any, ...], deadline_s: float) -> _Report:
    """Runs in a thread of a Dask worker: passes the call to this thread's child. Never raises."""
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
def _client(workers: int, scheduler: str | None) -> Iterator[Any]:
    """A Dask client on `scheduler`, or on a local cluster of single-threaded processes without a dashboard."""
    if scheduler is not None and "://" not in scheduler:  # Dask would try for half a minute, and end with a traceback
        raise UserError(f"{scheduler!r} is no address of a Dask scheduler; it looks like tcp://HOST:8786")
    import dask
    from distributed import Client, LocalCluster

    # Dask warns and logs about what is normal here: long tasks, a worker that a kill took away, closing comms.
    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = {
        "distributed.admin.tick.limit": "1h",
        "distributed.comm.timeouts.connect": "10s" if scheduler else "60s",
        "distributed.scheduler.worker-ttl": None,
        "distributed.worker.profile.enabled": False,
        "distributed.scheduler.worker-saturation": float(_QUEUED_PER_WORKER),
        "distributed.logging": {"distributed": "critical"},
    }
    with warnings.catch_warnings(), dask.config.set(settings), tempfile.TemporaryDirectory() as scratch:
        warnings.simplefilter("ignore")
        cluster: Any = None
        client: Any = None
        try:
            if scheduler is None:
                with _interrupt_later():
                    cluster = LocalCluster(
                        n_workers=workers,
                        threads_per_worker=1,
                        processes=True,
                        dashboard_address=None,
                        memory_limit=0,  # the memory is the child's, not the worker's
                        local_directory=scratch,
                        silence_logs=logging.CRITICAL,
                    )
            client = Client(
                cluster if cluster is not None else scheduler, timeout=10 if scheduler else 60, set_as_default=False
            )
            if scheduler is not None and not client.nthreads():
                raise UserError(
                    f"the Dask scheduler at {scheduler} has no worker; start some with `dask worker {scheduler}`"
                )
        except (OSError, TimeoutError, ValueError) as error:
            where = f"the Dask scheduler at {scheduler}" if scheduler else "local Dask workers"
            if cluster is not None:
                cluster.close()
            raise UserError(f"cannot reach {where}: {type(error).__name__}: {error}") from None
        try:
            yield client
        finally:
            with _interrupt_later():
                client.close()
                if cluster is not None:
                    cluster.close()


@contextmanager
def _interrupt_later() -> Iterator[None]:
    """Holds Ctrl-C back until the block is done: a half-started cluster cannot be closed without a traceback.

    Processes started inside never see Ctrl-C, which a terminal sends to all of them: this process stops them.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    resource_tracker.ensure_running()  # it unblocks SIGINT when it starts, which would be inside
    pressed: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, _: pressed.append(number))
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # threads and processes inherit it
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, mask)
        signal.signal(signal.SIGINT, before)
    if pressed:
        raise KeyboardInterrupt
