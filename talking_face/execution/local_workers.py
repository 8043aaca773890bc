"""Runs tasks on this machine, in threads of this process. Each thread has a child process, which runs the function.

The threads wait for their child most of the time. No port is opened: each thread and its child have a channel that no
other process can reach. The main script needs no `if __name__ == "__main__"`, because no process imports it again.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from talking_face.execution.calls import error_line
from talking_face.execution.child_process import ChildNotStarted, Keeper, Stopped
from talking_face.execution.messages import Report
from talking_face.execution.task import Task
from talking_face.reasons import UserError

_REMEDY = "give fewer --workers, see the limits of this shell (ulimit -n, ulimit -u), or run cmet-eval doctor"
_PAUSE_S = 1.0  # s between two attempts to start a child process


@dataclass(frozen=True)
class _GivenUp:
    """A worker that ended early, mostly because its child process cannot be started. Another worker runs its task."""

    why: str


class _Pool:
    """The worker threads, the tasks that wait, and the finished tasks."""

    def __init__(self, function: str, memory_bytes: int | None) -> None:
        self._function, self._memory_bytes = function, memory_bytes
        self.waiting: queue.SimpleQueue[Task | None] = queue.SimpleQueue()  # None ends a worker
        self.finished: queue.SimpleQueue[tuple[Task, Report] | _GivenUp] = queue.SimpleQueue()
        self.stop = threading.Event()

    def work(self) -> None:
        """Runs in a thread: runs waiting tasks until the pool stops. Never raises."""
        keeper = Keeper(self._function, self._memory_bytes, self.stop)
        task: Task | None = None
        try:
            while (task := self.waiting.get()) is not None and not self.stop.is_set():
                self.finished.put((task, self._report(keeper, task)))
        except Stopped:
            pass
        except BaseException as error:  # if this thread ended without a report, the run would wait for ever
            self.waiting.put(task)
            self.finished.put(_GivenUp(str(error) if isinstance(error, ChildNotStarted) else error_line(error)))
        finally:
            # An error is harmless here: the guard ends the child when this process ends.
            with contextlib.suppress(Exception):
                keeper.close()

    def _report(self, keeper: Keeper, task: Task) -> Report:
        """Runs a task. Raises ChildNotStarted if the child process cannot be started in two attempts."""
        try:
            return keeper.report(task.args, task.deadline_s)
        except ChildNotStarted:  # possibly another program uses all memory or all processes for a moment
            if self.stop.wait(_PAUSE_S):
                raise Stopped from None
        return keeper.report(task.args, task.deadline_s)

    def start(self, workers: int) -> list[threading.Thread]:
        """Starts `workers` threads, or as many as the machine allows. Raises UserError if no thread can be started."""
        threads: list[threading.Thread] = []
        for number in range(workers):
            thread = threading.Thread(target=self.work, name=f"worker-{number}", daemon=True)
            try:
                thread.start()
            except (RuntimeError, MemoryError) as error:
                if not threads:
                    raise UserError(f"no thread can be started ({error_line(error)}); {_REMEDY}") from None
                break
            threads.append(thread)
        return threads


def run_locally(
    function: str,
    tasks: Sequence[Task],
    workers: int,
    memory_bytes: int | None,
    note: Callable[[str], None],
) -> Generator[tuple[str, Report], None, None]:
    """Yields the key and the report of each task, in order of completion.

    If the child process of a worker cannot be started, the worker ends with a note, and the other workers run its task.
    When the iterator is closed, all child processes are ended.

    Raises UserError if no worker is left.
    """
    pool = _Pool(function, memory_bytes)
    for task in tasks:
        pool.waiting.put(task)
    threads: list[threading.Thread] = []
    try:
        threads = pool.start(workers)
        left, running = len(tasks), len(threads)
        while left:
            item = pool.finished.get()
            if isinstance(item, _GivenUp):
                running -= 1
                if not running:
                    raise UserError(f"no worker process can be started ({item.why}); {_REMEDY}")
                note(f"a worker process cannot be started ({item.why}); {running} workers go on")
                continue
            left -= 1
            yield item[0].key, item[1]
    finally:
        pool.stop.set()
        for _ in threads:
            pool.waiting.put(None)
        for thread in threads:
            thread.join()
