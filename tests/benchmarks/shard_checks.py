"""What the checks of checksums cost when clips are read from shards.

    python tests/benchmarks/shard_checks.py SHARDS [--clips 64] [--repeats 7]

reads whole clips as a loader of training reads them (every array and every frame), as scoring reads them (frames and
sound), and without frames (every other array). Each repeat reads every clip by a new ShardSet with the checks, and by
another one without. Prints the sums over clips of the shortest CPU times, because other processes on the machine only
add time. With the checks, every column of a clip is checked at its first reading; a second reading by the same ShardSet
checks nothing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow.parquet as pq

from cmet_pipelines import shards as module
from cmet_pipelines.shards import ShardSet
from talking_face.threads import limit_threads

_ParquetFile = pq.ParquetFile


def arrays(shards: ShardSet, clip_id: str) -> None:
    """Everything but the frames."""
    for reader in (shards.audio, shards.landmarks, shards.blendshapes, shards.valid, shards.crop_transform):
        reader(clip_id)
    shards.landmarks(clip_id, smoothed=True)


def training(shards: ShardSet, clip_id: str) -> None:
    """Every array and every frame."""
    arrays(shards, clip_id)
    shards.frames(clip_id)


def scoring(shards: ShardSet, clip_id: str) -> None:
    """Frames and sound."""
    shards.frames(clip_id)
    shards.audio(clip_id)


@contextmanager
def unchecked() -> Iterator[None]:
    """Reads without checksums of columns, digests of footers, and without checksums of pages."""

    def plain(*args: Any, page_checksum_verification: bool = False, **options: Any) -> pq.ParquetFile:
        return _ParquetFile(*args, **options)

    with ExitStack() as stack:
        stack.enter_context(mock.patch.object(module, "column_checksum", lambda _: mock.ANY))
        stack.enter_context(mock.patch.object(module, "shard_problem", lambda *_: ""))
        stack.enter_context(mock.patch.object(module.pq, "ParquetFile", plain))
        yield


def seconds(shards: ShardSet, clip_id: str, read: Callable[[ShardSet, str], None]) -> float:
    """CPU time for reading one clip."""
    began = time.process_time()
    read(shards, clip_id)
    return time.process_time() - began


def compare(folder: Path, clip_ids: Sequence[str], read: Callable[[ShardSet, str], None], repeats: int) -> list[float]:
    """The times for reading all clips with and without the checks, s: for each clip the shortest of all repeats."""
    shortest = np.full((2, len(clip_ids)), np.inf)
    for repeat in range(repeats):
        shards = ShardSet(folder), ShardSet(folder)
        for i, clip_id in enumerate(clip_ids):
            for way in (0, 1) if repeat % 2 else (1, 0):  # the first reading finds colder caches
                with unchecked() if way else nullcontext():
                    shortest[way, i] = min(shortest[way, i], seconds(shards[way], clip_id, read))
    return [float(total) for total in shortest.sum(1)]


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("shards", type=Path)
    given.add_argument("--clips", type=int, default=64)
    given.add_argument("--repeats", type=int, default=7)
    args = given.parse_args()
    limit_threads(1)
    clip_ids = list(ShardSet(args.shards).clips["clip_id"])[: args.clips]
    print("| reading | with checks, ms a clip | without | cost |\n|---|--:|--:|--:|")
    for read in (training, scoring, arrays):
        checked, plain = compare(args.shards, clip_ids, read, args.repeats)
        each = [1000 * total / len(clip_ids) for total in (checked, plain)]
        print(f"| {read.__name__} | {each[0]:.2f} | {each[1]:.2f} | {checked / plain - 1:+.1%} |", flush=True)


if __name__ == "__main__":
    main()
