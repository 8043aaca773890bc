"""Options of a command: how the command distributes its work, and whether the command prints progress."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Options for the workers and the printed output of one command. Results do not depend on these options.

    Only a clip or video that passes a limit gets a reason in place of a result.
    """

    workers: int = 2  # local worker processes; 0 runs everything in this process, without limits
    # Address of a running Dask scheduler, tls://HOST:8786 or tcp://HOST:8786; if given, `workers` is ignored.
    scheduler: str | None = None
    quiet: bool = False  # True: print no progress lines
    memory_gb: float | None = None  # memory that each worker process may take, GB; None: `memory.default_limit`
    # Seconds for one video in scoring; None: `runs.score.default_deadline`. Preprocessing has its own setting.
    deadline_s: float | None = None

    @property
    def memory_bytes(self) -> int | None:
        """`memory_gb` in bytes."""
        return None if self.memory_gb is None else int(self.memory_gb * 1e9)
