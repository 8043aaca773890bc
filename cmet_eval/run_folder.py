"""Finds the folder of a run that a command reads: the folder that the user named, or the newest one below `work/`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from cmet_eval.checks import check_file, similar_path
from talking_face.names import printable
from talking_face.reasons import UserError

WORK = Path("work")  # below the current folder; `demo`, `run` and `score` write there by default
RESULTS = "results"


class FoundRun(NamedTuple):
    """The folder of a run, and the result rows in it."""

    folder: Path
    results: Path  # a folder, or one file

    def pair_lists(self, given: list[Path] | None) -> list[Path]:
        """The files of pair lists: those that the user gave with --pairs, or all in the run's folder.

        Raises UserError if a given file does not exist.
        """
        for path in given or ():
            check_file(path, "--pairs")
        return given or sorted((self.folder / "pairs").rglob("*.parquet"))


def run_folder(given: Path | None) -> FoundRun:
    """The run that the user named with --run; None: the newest run below `work/`, printed in a line on standard error.

    Args:
        given: a folder with a folder `results`, or any folder or file of result rows. For RUN/results and what is below
            it, the run's folder is RUN. For other result rows, it is the folder that holds them.

    Raises:
        UserError: the folder does not exist, or `work/` contains no run.
    """
    if given is None:
        folder = newest_run()
        if folder is None:
            raise UserError(
                f"no run below {WORK}/ here; name its folder with --run, or make one: `cmet-eval demo` takes minutes"
            )
        print(f"run: {printable(str(folder))} (the newest; --run names another)", file=sys.stderr)
        return FoundRun(folder, folder / RESULTS)
    if (given / RESULTS).is_dir():
        return FoundRun(given, given / RESULTS)
    if not given.exists():
        raise UserError(f"no folder {given}{similar_path(given)}; name the folder of a run with --run")
    above = next((place.parent for place in (given, *given.parents) if place.name == RESULTS), None)
    return FoundRun(above or (given if given.is_dir() else given.parent), given)


def newest_run(work: Path = WORK) -> Path | None:
    """The folder below `work` with the most recently written result file; None if no folder has results."""
    times = {results.parent: time for results in _results(work) if (time := _newest_file(results)) is not None}
    return max(times, key=lambda folder: (times[folder], str(folder)), default=None)


def _results(work: Path) -> Iterator[Path]:
    """The folders `results` one or two levels below `work`. Deeper folders hold datasets and shards."""
    for pattern in (f"*/{RESULTS}", f"*/*/{RESULTS}"):
        yield from (path for path in work.glob(pattern) if path.is_dir())


def _newest_file(folder: Path) -> float | None:
    return max((path.stat().st_mtime for path in folder.rglob("*.parquet")), default=None)
