"""Options that several commands share."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

import typer

MOST_WORKERS = 1024  # processes


def finite(value: float | None) -> float | None:
    """The value of an option. Raises BadParameter for NaN and infinity: every comparison with NaN is false."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it should be a finite number")
    return value


Workers = Annotated[int, typer.Option("--workers", min=1, max=MOST_WORKERS, help="worker processes")]
WorkersOrNone = Annotated[
    int, typer.Option("--workers", min=0, max=MOST_WORKERS, help="processes; 0: in this one, without limits")
]
Scheduler = Annotated[
    str | None, typer.Option("--scheduler", help="a running Dask scheduler, tls://HOST:PORT or tcp://HOST:PORT")
]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        min=0.1,
        callback=finite,
        help="GB of memory that each worker process may take; default: 80% of the machine's, for all workers",
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline", min=0.1, callback=finite, help="seconds for one video; default: follows from its length"
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
ShardSetFolder = Annotated[Path, typer.Option("--data", help="folder that cmet-eval preprocess wrote")]
RunFolder = Annotated[Path, typer.Option("--out", help="videos, scores and result rows go here")]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        help="name:variant, name:variant,option=value, or your own module:Class; repeatable; default: psnr, ssim, "
        "m_lmd:eat, f_lmd:eat",
    ),
]
OwnMetrics = Annotated[
    list[str] | None,
    typer.Option("--metrics", help="your own metric class in the rows, module:Class, to be imported; repeatable"),
]
Profile = Annotated[
    Literal["embedded", "paper"] | None,
    typer.Option("--profile", help="all metrics of that evaluator profile; not with --metrics"),
]
MaxPairs = Annotated[
    int | None, typer.Option("--max-pairs", min=1, help="a balanced subset of this size, for each setting")
]
Seeds = Annotated[int | None, typer.Option("--seeds", min=1, max=1000, help="number of seeds; default: the setting's")]
Split = Annotated[str | None, typer.Option("--split", help="draw from this split; 'all' takes every clip")]
ResultRows = Annotated[Path, typer.Option("--results", help="folder of result rows; searched in depth")]
MethodFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--videos",
        metavar="METHOD=DIR",
        help="the folder of a method's videos, repeatable; the names of the files do not matter; or DIR with "
        "METHOD/SETTING/; default: videos/ next to the results",
    ),
]
BandsFile = Annotated[
    Path | None,
    typer.Option(
        "--bands", help="noise bands, bands.csv of cmet-eval calibrate; default: docs/experiments/calibration"
    ),
]
BandsSource = Annotated[
    str | None,
    typer.Option("--bands-of", help="the clips of the calibration, such as embedded; default: the largest band"),
]
Pattern = Annotated[str, typer.Option("--pattern", help="file name of a pair, with {pair} or {pair_id}")]
