"""Measure videos against real videos, or videos alone: files, folders or a CSV list. No shards and no pair list.

Examples:
    cmet-eval measure mine.mp4 real.mp4
    cmet-eval measure mine/ real/ --metrics psnr --metrics ssim --per-clip
    cmet-eval measure mine/ real/ --protocol vico
    cmet-eval measure pairs.csv --length shorter --run work/mine
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from cmet_eval import completion
from cmet_eval.commands.options import Deadline, Memory, Profile, Quiet, Workers
from cmet_eval.measuring.treatment import LengthRule, RateRule, SizeRule
from talking_face.execution.options import RunOptions
from talking_face.logs import write_log_into


# long: typer turns each parameter into a command-line option
def measure(
    pred: Annotated[Path, typer.Argument(metavar="PRED", help="a video, a folder of videos, or a .csv list")],
    target: Annotated[
        Path | None, typer.Argument(metavar="TARGET", help="the real video, or the folder with the real videos")
    ] = None,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            "--metrics",
            metavar="KEY",
            autocompletion=completion.metrics,
            help="a metric of `cmet-eval metrics`; repeatable",
        ),
    ] = None,
    profile: Profile = None,
    protocol: Annotated[
        str | None,
        typer.Option(
            "--protocol",
            metavar="NAME",
            autocompletion=completion.protocols,
            help="treat and score as a published evaluation does: a name of `cmet-eval protocols`, or a TOML file",
        ),
    ] = None,
    rate: Annotated[
        RateRule | None,
        typer.Option(
            "--rate",
            metavar="as-is|25|ffmpeg-25|ffmpeg-25-h264|ffmpeg|by-frame",
            help="frames as stored (default), nearest at 25/s, of ffmpeg -r 25, of the H.264 file that it writes, of "
            "ffmpeg at the file's own rate, or stored at any two rates",
        ),
    ] = None,
    size: Annotated[
        SizeRule | None,
        typer.Option(
            "--size", metavar="as-is|resize|face-crop|by-metric", help="what to do with another size; default: as-is"
        ),
    ] = None,
    length: Annotated[
        LengthRule | None,
        typer.Option(
            "--length", metavar="exact|shorter|linspace", help="what to do with another length; default: exact"
        ),
    ] = None,
    start: Annotated[
        int | None, typer.Option("--start", min=0, metavar="N", help="frame of TARGET that belongs to frame 0 of PRED")
    ] = None,
    audio: Annotated[
        Path | None, typer.Option("--audio", metavar="FILE", help="sound for videos without sound; a file or a folder")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="NAME", help="name of the method; default: that of PRED")
    ] = None,
    revision: Annotated[str, typer.Option("--revision", metavar="TEXT", help="version of the method")] = "unversioned",
    per_clip: Annotated[bool, typer.Option("--per-clip", help="print the values of each video too")] = False,
    form: Annotated[
        Literal["table", "json", "csv", "markdown", "latex"],
        typer.Option("--format", metavar="NAME", help="form of the output: table, json, csv, markdown or latex"),
    ] = "table",
    out: Annotated[
        Path | None,
        typer.Option("--run", "--out", metavar="FOLDER", help="keep result rows, scores and the board in this folder"),
    ] = None,
    workers: Workers = 2,
    deadline: Deadline = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    from cmet_eval.measuring import saving
    from cmet_eval.measuring.measure import Given, measure_files, plan
    from cmet_eval.measuring.printing import formatted, reasons

    request = Given(metrics, profile, rate, size, length, start).request(protocol, name, revision)
    options = RunOptions(workers, None, quiet, memory, deadline)
    if out is not None:
        saving.check(out, pred, target)
    work = plan(pred, target, audio, request=request)
    if out is not None:
        write_log_into(out)
    result = measure_files(work, out=out, options=options)
    print(formatted(result, form, per_clip))
    # The next lines are not for stdout, which holds JSON, CSV or LaTeX if --format asks for it.
    if form in ("csv", "markdown", "latex"):  # tables without a place for reasons
        print(*reasons(result), sep="\n", end="\n" if result.lost else "", file=sys.stderr)
    if out is not None:
        print(f"result rows: {out / 'results'}; board: {saving.save(result, out)}", file=sys.stderr)
    if result.lost:
        raise typer.Exit(1)
