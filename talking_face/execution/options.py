"""Options of a command: how it distributes its work, and whether it prints progress."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class RunOptions:
    """Workers and output of one command. Results do not depend on these options."""

    workers: int = 2  # local worker processes; 0 runs everything in this process, without deadlines
    scheduler: str | None = None  # address of a running Dask scheduler, tcp://host:8786; `workers` is then ignored
    quiet: bool = False  # no progress lines
