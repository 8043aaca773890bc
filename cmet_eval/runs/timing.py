"""AITV, the average inference time per video: measured around `generate`, kept in the generation records, and averaged.

Two numbers, because the field's is hard to compare. `cmet` is the wall clock from the case to the frames, as C-MET's
evaluation README states it: reading and preprocessing included, writing the file not; the first video of a process
counts with its loading of weights. `warm` leaves out each process's first video and the time in which the suite reads
the method's inputs from its shards; an accelerator is waited for before the clock starts and before it stops.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from talking_face.threads import VARIABLES


class Stopwatch:
    """The time that one video takes, and how much of it the suite spent on reading inputs."""

    def __init__(self) -> None:
        self.seconds = self.reading = 0.0

    def reads(self, loader: Callable[[], np.ndarray]) -> Callable[[], np.ndarray]:
        """`loader`, its time counted as reading."""

        def load() -> np.ndarray:
            started = time.perf_counter()
            try:
                return loader()
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
    """Wait for what an accelerator of this process still has to do. Only where torch uses one already."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def hardware() -> str:
    """The machine that this process computes on: accelerator where torch uses one, processor, cores, threads."""
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
    """Times of one method in one setting on one kind of machine. Seconds a video."""

    method: str
    revision: str
    setting: str
    hardware: str
    workers: int  # processes that may have run at the same time; 0: not known
    n: int
    frames: float  # mean frames a video
    cmet: float  # mean over all n
    n_warm: int
    warm: float | None  # mean over the warm ones, without reading
    warm_median: float | None
    warm_per_frame: float | None

    def __str__(self) -> str:
        warm = "no warm one" if self.warm is None else f"{self.warm:.3g} s over {self.n_warm} warm ones, reading apart"
        return (
            f"AITV of {self.method} in {self.setting}: {self.cmet:.3g} s a video over {self.n}; {warm}; "
            f"{self.hardware}, {self.workers or 'unknown'} beside one another"
        )


def summarize(records: Path, method: str | None = None) -> list[Aitv]:
    """From the generation records below a folder, METHOD/SETTING/*.json; sorted, one entry a method, revision, setting
    and machine. Records without a time (written by other versions, or elsewhere) are left out."""
    groups: dict[tuple[str, str, str, str, int], list[dict[str, Any]]] = {}
    for path in sorted(records.glob(f"{method or '*'}/*/*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        if timing := record.get("timing"):
            head = (record["method"], str(record["revision"]), path.parent.name)
            key = (*head, timing["hardware"], timing["workers"])
            groups.setdefault(key, []).append({**timing, "frames": record["n_frames"]})
    out = []
    for key, times in sorted(groups.items()):
        warm = [t["seconds"] - t["reading"] for t in times if t["warm"]]
        frames = sum(t["frames"] for t in times if t["warm"])
        out.append(
            Aitv(
                *key,
                n=len(times),
                frames=sum(t["frames"] for t in times) / len(times),
                cmet=sum(t["seconds"] for t in times) / len(times),
                n_warm=len(warm),
                warm=sum(warm) / len(warm) if warm else None,
                warm_median=median(warm) if warm else None,
                warm_per_frame=sum(warm) / frames if frames else None,
            )
        )
    return out
