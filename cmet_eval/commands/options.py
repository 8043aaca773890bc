"""Options that several commands share."""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import typer

from cmet_eval import completion
from talking_face.packages import need_extras
from talking_face.reasons import UserError

MOST_WORKERS = 1024  # processes


def finite(value: float | None) -> float | None:
    """The value of an option. Raises BadParameter for NaN and infinity: every comparison with NaN is false."""
    if value is not None and not math.isfinite(value):
        raise typer.BadParameter("it should be a finite number")
    return value


def above_zero(value: float) -> float:
    """The value of an option. Raises BadParameter for 0, for negative numbers, and for NaN."""
    if not value > 0:
        raise typer.BadParameter("it should be more than 0")
    return value


def address(value: str | None) -> str | None:
    """The value of --scheduler.

    Raises:
        BadParameter: the address has another form, or nothing answers there within 3 s.
        UserError: Dask is not installed.
    """
    if value is not None and not re.fullmatch(r"(tls|tcp)://\S+:\d{1,5}", value):
        raise typer.BadParameter("it should be tls://HOST:PORT or tcp://HOST:PORT")
    if value is not None:
        need_extras("--scheduler", "cluster")
        place = urlsplit(value)
        try:
            socket.create_connection((place.hostname, place.port), timeout=3).close()  # s
        except (OSError, ValueError) as error:
            text = f"no Dask scheduler answers at {value} ({error}); start one with `dask scheduler`, or leave it out"
            raise typer.BadParameter(text) from None
    return value


def refuse_unused(ctx: typer.Context, unused: Iterable[str], where: str) -> None:
    """Raises UserError if the user gave an option that does nothing with the other words of the command line.

    Args:
        ctx: the command's context.
        unused: names of the parameters that do nothing.
        where: the words that make them do nothing, for example `report confusion`.
    """
    for name in unused:
        source = ctx.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            flag = next(param.opts[0] for param in ctx.command.params if param.name == name)
            raise UserError(f"{flag} is not an option of `cmet-eval {where}`; leave it out")


Workers = Annotated[int, typer.Option("--workers", min=1, max=MOST_WORKERS, metavar="N", help="worker processes")]
WorkersOrNone = Annotated[
    int,
    typer.Option(
        "--workers", min=0, max=MOST_WORKERS, metavar="N", help="worker processes; 0: in this process, without limits"
    ),
]
Scheduler = Annotated[
    str | None,
    typer.Option(
        "--scheduler",
        callback=address,
        metavar="ADDRESS",
        help="a running Dask scheduler, tls://HOST:PORT or tcp://HOST:PORT",
    ),
]
Memory = Annotated[
    float | None,
    typer.Option(
        "--memory",
        min=0.1,
        callback=finite,
        metavar="GB",
        help="memory that each worker process may take; default: 80% of the machine's, for all workers",
    ),
]
Deadline = Annotated[
    float | None,
    typer.Option(
        "--deadline",
        min=0.1,
        callback=finite,
        metavar="SECONDS",
        help="time for one video; default: follows from its length",
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="no progress")]
ShardSetFolder = Annotated[
    Path, typer.Option("--data", metavar="FOLDER", help="the shard set that cmet-eval preprocess wrote")
]
RunFolder = Annotated[
    Path,
    typer.Option(
        "--run", "--out", metavar="FOLDER", help="the run's folder, which receives videos, scores and result rows"
    ),
]
RunToRead = Annotated[
    Path | None,
    typer.Option(
        "--run",
        metavar="FOLDER",
        help="the run's folder, or any folder of result rows; default: the newest run below work/",
    ),
]
Metrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="KEY",
        autocompletion=completion.metrics,
        help="name:variant, name:variant,option=value, or your own module:Class; repeatable; default: psnr, ssim, "
        "m_lmd:eat, f_lmd:eat",
    ),
]
OwnMetrics = Annotated[
    list[str] | None,
    typer.Option(
        "--metrics",
        metavar="KEY",
        autocompletion=completion.metrics,
        help="your own metric class in the rows, module:Class, to be imported; repeatable",
    ),
]
Profile = Annotated[
    Literal["embedded", "paper"] | None,
    typer.Option(
        "--profile", metavar="embedded|paper", help="all metrics of that evaluator profile; not with --metrics"
    ),
]
MethodFolders = Annotated[
    list[str] | None,
    typer.Option(
        "--videos",
        metavar="METHOD=FOLDER",
        help="a method's videos, or FOLDER with METHOD/SETTING/; repeatable; default: videos/ in the run's folder",
    ),
]
MaxPairs = Annotated[
    int | None,
    typer.Option("--max-pairs", min=1, metavar="N", help="a balanced subset of this size, for each setting"),
]
Seeds = Annotated[
    int | None, typer.Option("--seeds", min=1, max=1000, metavar="N", help="number of seeds; default: the setting's")
]
Split = Annotated[
    str | None, typer.Option("--split", metavar="NAME", help="draw from this split; 'all' takes every clip")
]
BandsFile = Annotated[
    Path | None,
    typer.Option(
        "--bands",
        metavar="FILE",
        help="noise bands, bands.csv of cmet-eval calibrate; default: docs/experiments/calibration",
    ),
]
BandsSource = Annotated[
    str | None,
    typer.Option(
        "--bands-of",
        metavar="NAME",
        help="the clips of the calibration, such as embedded; default: those that are like the data",
    ),
]
AllowMisregistered = Annotated[
    bool,
    typer.Option(
        "--allow-misregistered",
        help="compare videos with the ground truth although the face has another place or size, and note it",
    ),
]
Pattern = Annotated[
    str, typer.Option("--pattern", metavar="TEXT", help="file name of a pair, with {pair} or {pair_id}")
]
