"""Runs tasks on a running Dask cluster (`--scheduler`). Each thread of a Dask worker keeps a child process.

The connection is encrypted for an address tls://HOST:PORT. The certificates are taken from Dask's own configuration;
docs/reference/shards.md lists the keys. Anyone who can connect to a scheduler without TLS can run code on its workers.
"""

from __future__ import annotations

import ipaddress
import logging
import socket
import threading
import time
import uuid
import warnings
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from talking_face.execution.calls import error_line
from talking_face.execution.child_process import ChildNotStarted, Keeper
from talking_face.execution.memory import default_limit
from talking_face.execution.messages import Report
from talking_face.execution.task import Task
from talking_face.packages import require
from talking_face.reasons import Reason, UserError

if TYPE_CHECKING:
    from distributed import Client, Future

# Tasks per worker: one task runs and two tasks wait. With two waiting tasks a worker is never idle, and the scheduler's
# list of tasks stays short.
_QUEUED_PER_WORKER = 3
_CONNECT_S = 10.0
_LOGGERS = ("distributed", "distributed.worker", "distributed.scheduler", "distributed.core", "distributed.client")


def run_on_cluster(
    function: str, tasks: Sequence[Task], scheduler: str, memory_bytes: int | None, note: Callable[[str], None]
) -> Generator[tuple[str, Report], None, None]:
    """Yields the key and the report of each task, in order of completion.

    Args:
        function, tasks: as in `run_tasks`.
        scheduler: address of the scheduler.
        memory_bytes: memory of each child process; None: an equal part of the memory of its Dask worker.
        note: receives one line if the connection is not encrypted.

    Raises UserError if Dask is not installed, or if the scheduler cannot be reached, has no worker, or is lost during
    the run.
    """
    _check_address(scheduler, note)
    require("distributed", "--scheduler", "cluster")
    with _quiet_dask():
        client = _connect(scheduler)
        try:
            yield from _run(client, function, tasks, memory_bytes)
        except (UserError, GeneratorExit, KeyboardInterrupt):
            raise
        except Exception as error:
            raise UserError(
                f"the connection to the Dask scheduler at {scheduler} was lost ({error_line(error)}); "
                "run the same command again: finished work is kept"
            ) from None
        finally:
            client.close(timeout=_CONNECT_S)


def _run(
    client: Client, function: str, tasks: Sequence[Task], memory_bytes: int | None
) -> Generator[tuple[str, Report], None, None]:
    """Submits `_QUEUED_PER_WORKER` tasks per worker thread to Dask, and then one more task per finished task."""
    from distributed import as_completed

    run = uuid.uuid4().hex[:12]
    names: dict[str, str] = {}  # Dask's key -> key of the task
    todo = iter(tasks)
    pending = as_completed([], loop=client.loop)

    def submit() -> None:
        if (task := next(todo, None)) is not None:
            key = f"{run}-{len(names)}"
            names[key] = task.key
            call = (function, task.args, task.deadline_s, memory_bytes)
            pending.add(client.submit(_on_worker, *call, key=key, pure=False))

    for _ in range(_QUEUED_PER_WORKER * sum(client.nthreads().values())):
        submit()
    for future in pending:
        report = _report_of(future)
        future.release()
        submit()
        yield names[future.key], report
    client.run(close_keepers, on_error="ignore")


def _report_of(future: Future) -> Report:
    """The report of a finished Dask future. If the Dask worker was lost, the report has the reason CRASHED.

    Raises UserError if the scheduler is lost.
    """
    if future.status in ("cancelled", "lost"):
        raise UserError("the Dask scheduler ended; run the same command again: finished work is kept")
    try:
        report: Report = future.result()
    except Exception as lost:  # only Dask's own errors: `_on_worker` never raises
        return Report(None, (Reason.CRASHED.value, f"the worker was lost with it ({type(lost).__name__})"), 0.0)
    return report


# -- on the worker -----------------------------------------------------------------------------------------------------

_keepers: dict[int, tuple[str, Keeper]] = {}  # by thread of the Dask worker: the function of the keeper, the keeper
_never = threading.Event()  # a call on a cluster cannot be stopped


def _on_worker(function: str, args: tuple[object, ...], deadline_s: float, memory_bytes: int | None) -> Report:
    """Runs in a thread of a Dask worker: passes the call to the child process of the thread. Never raises."""
    started = time.perf_counter()
    me = threading.get_ident()
    try:
        if me not in _keepers or _keepers[me][0] != function:
            if me in _keepers:
                _keepers.pop(me)[1].close()
            _keepers[me] = function, Keeper(function, memory_bytes or _own_share(), _never)
        return _keepers[me][1].report(args, deadline_s)
    except ChildNotStarted as error:
        detail = f"its process cannot be started ({error})"
    except Exception as error:
        detail = error_line(error)
    return Report(None, (Reason.CRASHED.value, detail), time.perf_counter() - started)


def _own_share() -> int:
    """Memory of one thread of this Dask worker, bytes. Dask's worker has its own limit, unless it was switched off."""
    from distributed import get_worker

    worker = get_worker()
    limit = worker.memory_manager.memory_limit
    threads = max(1, worker.state.nthreads)
    return int(limit) // threads if limit else default_limit(threads)


def close_keepers() -> None:
    """Ends every child process of this Dask worker."""
    while _keepers:
        _keepers.popitem()[1][1].close()


# -- the connection ----------------------------------------------------------------------------------------------------


def _check_address(scheduler: str, note: Callable[[str], None]) -> None:
    """Raises UserError for a text that is not an address: Dask would try for half a minute and print a traceback."""
    try:
        parts = urlsplit(scheduler)
        host = parts.hostname if parts.scheme in ("tcp", "tls", "ws", "wss") and parts.port != 0 else None
    except ValueError:  # the port is not a number
        host = None
    if host is None:
        raise UserError(
            f"{scheduler!r} is not the address of a Dask scheduler; it looks like tls://HOST:8786 or tcp://HOST:8786"
        )
    if parts.scheme in ("tcp", "ws") and not _is_loopback(host):
        note(
            f"warning: the connection to {scheduler} is not encrypted: anyone on that network can run code on its "
            "workers; docs/reference/shards.md tells how to use tls://"
        )


def _is_loopback(host: str) -> bool:
    try:
        addresses = {found[4][0] for found in socket.getaddrinfo(host, None)}
        return all(ipaddress.ip_address(str(address).partition("%")[0]).is_loopback for address in addresses)
    except (OSError, ValueError):
        return False


@contextmanager
def _quiet_dask() -> Generator[None, None, None]:
    """Silences Dask, because Dask also warns about normal events: long tasks, a lost worker, closed connections."""
    import dask

    # distributed adds its defaults to the configuration when it is imported. If this happened inside the block below,
    # the end of the block would remove the defaults, and a second run in this process would fail.
    import distributed  # noqa: F401

    for name in _LOGGERS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    settings = {"distributed.comm.timeouts.connect": f"{_CONNECT_S:g}s", "distributed.admin.tick.limit": "1h"}
    with warnings.catch_warnings(), dask.config.set(settings):
        warnings.simplefilter("ignore")
        yield


def _connect(scheduler: str) -> Client:
    """A client of the scheduler, with the certificates of Dask's configuration. Raises UserError."""
    from distributed import Client, Security

    try:
        client = Client(scheduler, security=Security(), timeout=_CONNECT_S, set_as_default=False)
    except Exception as error:  # OSError, TimeoutError, ValueError, TypeError and RuntimeError were seen
        raise UserError(f"cannot reach the Dask scheduler at {scheduler}: {error_line(error)}") from None
    if not client.nthreads():
        client.close()
        raise UserError(f"the Dask scheduler at {scheduler} has no worker; start some with `dask worker {scheduler}`")
    return client
