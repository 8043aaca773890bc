"""Measures AITV, the average inference time per video, and averages the times in the generation records.

There are two numbers, `cmet` and `warm`, because the number in papers is hard to compare. `cmet` is the wall-clock time
from the case to the frames, as C-MET's evaluation README defines it. `cmet` includes reading and preprocessing. For the
first video of a process, `cmet` also includes loading the weights. `cmet` does not include writing the file. `warm`
leaves out the first video of each process, and the time in which the suite reads the inputs from its shards. Before the
start and before the end of each measurement, the process waits until the accelerator has finished its work.
"""

from __future__ import annotations

import os
import platform
import sys
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import ParamSpec, TypeVar

from cmet_eval.runs.records import Timing, read_generation
from talking_face.names import file_name_of
from talking_face.threads import VARIABLES

P = ParamSpec("P")
T = TypeVar("T")


class Stopwatch:
    """Measures the time for generating one video, and the part of this time in which the suite reads inputs."""

    def __init__(self) -> None:
        self.seconds = self.reading = 0.0

    def reads(self, loader: Callable[P, T]) -> Callable[P, T]:
        """A function that calls `loader` and adds the time of the call to `reading`."""

        def load(*args: P.args, **kwargs: P.kwargs) -> T:
            started = time.perf_counter()
            try:
                return loader(*args, **kwargs)
            finally:
                self.reading += time.perf_counter() - started

        return load

    def __enter__(self) -> Stopwatch:
        synchronize()
        self._started = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        synchronize()
        self.seconds = time.perf_counter() - self._started


def synchronize() -> None:
    """Waits until an accelerator of this process has finished its work. Does nothing if torch uses no accelerator."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def hardware() -> str:
    """Description of the machine: accelerator (only if torch uses it in this process), processor, cores, threads."""
    torch = sys.modules.get("torch")
    parts = []
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        parts.append(str(torch.cuda.get_device_name()))
    threads = os.environ.get(VARIABLES[0], "all")
    return ", ".join([*parts, _processor(), f"{os.cpu_count()} cores", f"{threads} thread(s) a process"])


@cache
def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names and names[0] else platform.processor() or platform.machine() or "unknown processor"


@dataclass(frozen=True)
class Aitv:
    """Times of one method in one setting on one kind of machine, in seconds per video."""

    method: str
    revision: str
    setting: str
    hardware: str
    workers: int  # number of processes that could run at the same time; 0: unknown
    n: int  # number of videos
    frames: float  # mean number of frames per video
    cmet: float  # mean over all n videos
    n_warm: int  # number of warm videos
    warm: float | None  # mean over the warm videos, without reading
    warm_median: float | None  # median over the warm videos, without reading
    warm_per_frame: float | None  # mean over the warm videos, without reading, in seconds per frame

    def __str__(self) -> str:
        warm = "none warm" if self.warm is None else f"{self.warm:.3g} s over {self.n_warm} warm ones without reading"
        return (
            f"AITV of {self.method} in {self.setting}: {self.cmet:.3g} s a video over {self.n}; {warm}; "
            f"{self.hardware}, {self.workers or 'unknown number of'} side by side"
        )


def summarize(records: Path, method: str = "", settings: Collection[str] = ()) -> list[Aitv]:
    """Averages the times in the generation records METHOD/SETTING/*.json of the folder `records`.

    Args:
        records: the folder of the records.
        method: only this method; "": every method.
        settings: only these settings; (): every setting.

    Returns:
        one entry per method, revision, setting, machine and number of workers, sorted. Records without times are left
        out.

    Raises:
        Damaged: a record is not what was written.
    """
    groups: dict[tuple[str, str, str, str, int], list[tuple[Timing, int]]] = {}
    folders = {file_name_of(setting) for setting in settings}
    for path in sorted(records.glob(f"{file_name_of(method) or '*'}/*/*.json")):
        if folders and path.parent.name not in folders:
            continue
        record = read_generation(path)
        if record is not None and (timing := record.timing) is not None:
            key = (record.method, record.revision, path.parent.name, timing.hardware, timing.workers)
            groups.setdefault(key, []).append((timing, record.n_frames))
    out = []
    for key, times in sorted(groups.items()):
        warm = [t.seconds - t.reading for t, _ in times if t.warm]
        frames = sum(n for t, n in times if t.warm)
        out.append(
            Aitv(
                *key,
                n=len(times),
                frames=sum(n for _, n in times) / len(times),
                cmet=sum(t.seconds for t, _ in times) / len(times),
                n_warm=len(warm),
                warm=sum(warm) / len(warm) if warm else None,
                warm_median=median(warm) if warm else None,
                warm_per_frame=sum(warm) / frames if frames else None,
            )
        )
    return out
