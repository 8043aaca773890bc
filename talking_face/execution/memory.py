"""Computes how much memory the child process of a worker may take by default."""

from __future__ import annotations

import os
from pathlib import Path

SHARE = 0.8  # of the machine's memory, for all workers together; the rest is for this process and other programs
LEAST_BYTES = 2 * 10**9  # of one worker: one clip can take 1 GB, and rarely all workers need much at the same time
_CGROUPS = Path("/sys/fs/cgroup")


def default_limit(workers: int) -> int:
    """The default limit of memory for each of so many workers, bytes: an equal part of 80% of the machine's memory.

    The limit is at least 2 GB, or 80% of a machine with less memory.
    """
    usable = int(SHARE * machine_memory())
    return min(usable, max(LEAST_BYTES, usable // max(1, workers)))


def machine_memory(cgroups: Path = _CGROUPS, own: Path = Path("/proc/self/cgroup")) -> int:
    """Memory that this process can use, bytes: that of the machine, or of the smallest control group above the process.

    Containers and cluster jobs are control groups (https://docs.kernel.org/admin-guide/cgroup-v2.html).
    """
    smallest = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    try:
        lines = own.read_text().splitlines()
    except OSError:
        return smallest
    for line in lines:
        _, controllers, path = line.split(":", 2)
        if controllers == "":  # version 2
            root, name = cgroups, "memory.max"
        elif "memory" in controllers.split(","):
            root, name = cgroups / "memory", "memory.limit_in_bytes"
        else:
            continue
        group = root / path.lstrip("/")
        for folder in (group, *(above for above in group.parents if above == root or root in above.parents)):
            smallest = min(smallest, _limit(folder / name, smallest))
    return smallest


def _limit(file: Path, otherwise: int) -> int:
    """The limit in the file. `otherwise` if there is no file or the file states no limit."""
    try:
        return int(file.read_text())
    except (OSError, ValueError):  # "max"
        return otherwise
