"""Degrade videos in known steps and compute every metric on each: noise bands, tables and a plot for each metric.

Examples:
    cmet-eval calibrate --data work/demo/shards --metrics psnr --metrics ssim
    cmet-eval calibrate --values work/calibration/values.csv --out work/again
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_eval.checks import (
    absent_model_files,
    check_file,
    check_folder,
    check_metrics,
    check_out,
    check_shards,
    tell_absent,
)
from cmet_eval.commands.options import Quiet, refuse_unused
from talking_face.logs import write_log_into
from talking_face.reasons import UserError


# long: typer turns each parameter into a command-line option
def calibrate(
    ctx: typer.Context,
    data: Annotated[list[Path] | None, typer.Option(metavar="FOLDER", help="a shard set; repeatable")] = None,
    values: Annotated[
        list[Path] | None,
        typer.Option(metavar="FILE", help="a values.csv, repeatable: bands, tables and plots again, without videos"),
    ] = None,
    out: Annotated[
        Path,
        typer.Option(metavar="FOLDER", help="values.csv, bands.csv, noise.csv, tables.md and plots are written here"),
    ] = Path("work/calibration"),
    clips: Annotated[int, typer.Option(min=1, metavar="N", help="clips of each shard set")] = 4,
    frames: Annotated[int, typer.Option(min=2, metavar="N", help="frames of a clip; lip_energy needs 35")] = 50,
    metrics: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY", autocompletion=completion.metrics, help="name:variant or your own module:Class; repeatable"
        ),
    ] = None,
    evaluators: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FOLDER", help="folder of `train evaluators`; repeatable: the first is used, other seeds are noise"
        ),
    ] = None,
    sounds: Annotated[
        int, typer.Option(min=0, metavar="N", help="further clips of each set whose sound alone is shifted")
    ] = 0,
    quiet: Quiet = False,
) -> None:
    if bool(data) == bool(values):
        raise UserError("give --data, or the --values of an earlier run")
    if values:
        refuse_unused(ctx, ("clips", "frames", "sounds", "metrics"), "calibrate --values")
    for folder in data or ():
        check_shards(folder)
    for file in values or ():
        check_file(file, "--values")
    judges = evaluators or ()
    for folder in judges:
        check_folder(folder, "--evaluators")
    check_out(out, "--out")
    from talking_face.pretrained.model_files import ModelFiles

    files = ModelFiles.from_environment()
    tell_absent(absent_model_files(check_metrics(metrics or (), files), files, trained_later=bool(judges)))
    from cmet_eval.calibration.calibrate import Extent, again, run

    write_log_into(out)
    if data:
        extent = Extent(clips, frames, sounds)
        paths = run(data, out, extent, metric_keys=metrics or (), evaluators=judges, quiet=quiet)
    else:
        paths = again(values or (), out, judges)
    for path in paths:
        print(path)
