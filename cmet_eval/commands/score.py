"""Score a folder of videos that were generated elsewhere from a pair list."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal

import typer

from talking_face.reasons import UserError


def score(
    videos: Path = typer.Option(..., "--videos", help="folder with one video a pair"),
    pairs: Path = typer.Option(..., "--pairs", help="the list that cmet-eval pairs wrote"),
    data: Path = typer.Option(..., "--data", help="the shard set that the pairs were drawn from"),
    method_name: str = typer.Option(..., "--method-name", help="the row of the board: a-z 0-9 . -"),
    revision: str = typer.Option("unversioned", "--revision", help="version, commit or checkpoint of the method"),
    title: str = typer.Option(None, "--title", help="how the board writes the method's name"),
    pattern: str = typer.Option("{pair}.mp4", "--pattern", help="file name of a pair"),
    setting: str = typer.Option(None, "--setting", help="path of the setting's .toml where it is your own"),
    out: Path = typer.Option(Path("work/run"), "--out", help="scores and result rows go here"),
    metrics: list[str] = typer.Option(
        None, "--metrics", help="name:variant; repeatable; default: psnr, ssim, m_lmd:eat, f_lmd:eat"
    ),
    profile: Literal["embedded", "paper"] = typer.Option(
        None, "--profile", help="all metrics of that evaluator profile"
    ),
    workers: int = typer.Option(2, "--workers", min=1),
    scheduler: str = typer.Option(None, "--scheduler", help="address of a running Dask scheduler"),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    from cmet_eval.protocol.pairs import read_pairs
    from cmet_eval.protocol.setting import get_setting
    from cmet_eval.runs import evaluate

    if not re.fullmatch(r"[a-z0-9][a-z0-9.-]*", method_name):
        raise UserError(f"--method-name {method_name!r} may hold a-z, 0-9, '.' and '-' only; --title takes any text")
    summary = evaluate.score(
        videos,
        read_pairs(pairs),
        method={
            "name": method_name,
            "revision": revision,
            "title": title or method_name,
            "role": "method",
            "summary": "Scored from videos made elsewhere.",
            "sees": [],
        },
        data=data,
        out=out,
        setting=get_setting(setting) if setting else None,
        metrics=metrics or None,
        profile=profile,
        pattern=pattern,
        workers=workers,
        scheduler=scheduler,
        quiet=quiet,
    )
    print(summary)
    print(f"result rows: {out / 'results'}; board: cmet-eval leaderboard --results {out / 'results'} --out DIR")
    if summary.lost:
        raise typer.Exit(1)
