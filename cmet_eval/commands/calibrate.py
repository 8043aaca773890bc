"""Spoil videos in known steps and see what every metric answers: noise bands, tables and a plot a metric."""

from __future__ import annotations

from pathlib import Path

import typer


def calibrate(
    data: list[Path] = typer.Option(None, "--data", help="a shard set; repeatable"),
    values: list[Path] = typer.Option(
        None, "--values", help="a values.csv, repeatable: bands, tables and plots again, without videos"
    ),
    out: Path = typer.Option(
        Path("work/calibration"), "--out", help="values.csv, bands.csv, noise.csv, tables.md, plots"
    ),
    clips: int = typer.Option(4, "--clips", min=1, help="clips of each shard set"),
    frames: int = typer.Option(50, "--frames", min=2, help="frames of a clip; lip_energy needs 35"),
    metrics: list[str] = typer.Option(None, "--metrics", help="name:variant; repeatable"),
    evaluators: list[Path] = typer.Option(
        None, "--evaluators", help="folder of `train evaluators`; repeatable: the first judges, other seeds are noise"
    ),
    sounds: int = typer.Option(0, "--sounds", min=0, help="clips more of each set whose sound alone is moved"),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    from cmet_eval.calibration.calibrate import again, run
    from talking_face.reasons import UserError

    if bool(data) == bool(values):
        raise UserError("give --data, or the --values of an earlier run")
    for path in (
        again(values, out, evaluators or ())
        if values
        else run(data, out, clips, frames, metrics or (), evaluators or (), sounds, quiet)
    ):
        print(path)
