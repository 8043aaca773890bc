"""Options of a command: how the command distributes its work, and whether the command prints progress."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Options for the workers and the printed output of one command. Results do not depend on these options."""

    workers: int = 2  # local worker processes; 0 runs everything in this process, without deadlines
    scheduler: str | None = None  # address of a running Dask scheduler, tcp://host:8786; if given, `workers` is ignored
    quiet: bool = False  # True: print no progress lines
