"""Generate every pair of a setting with a method, then score what it wrote. Run again, it takes up where it was."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from talking_face.threads import limit_threads


def run(
    method: list[str] = typer.Option(
        ..., "--method", help="a name of the catalogue, a .toml of yours, or module:Class; repeatable"
    ),
    setting: list[str] = typer.Option(None, "--setting", help="default: neutral-base and cross-emotion; repeatable"),
    data: Path = typer.Option(None, "--data", help="folder of shards; default: the embedded corpus, made if absent"),
    out: Path = typer.Option(Path("work/run"), "--out", help="videos, scores and result rows go here"),
    max_pairs: int = typer.Option(
        None, "--max-pairs", min=1, help="a balanced subset of this size, for each setting; 64 without --data"
    ),
    seeds: int = typer.Option(None, "--seeds", min=1, help="number of seeds; default: the setting's, 1 without --data"),
    split: str = typer.Option(None, "--split", help="draw from this split; 'all' takes every clip"),
    metrics: list[str] = typer.Option(
        None,
        "--metrics",
        help="name:variant; repeatable; default: psnr, ssim, m_lmd:eat, f_lmd:eat; the demo's without --data",
    ),
    profile: Literal["embedded", "paper"] = typer.Option(
        None, "--profile", help="all metrics of that evaluator profile"
    ),
    workers: int = typer.Option(2, "--workers", min=1),
    scheduler: str = typer.Option(None, "--scheduler", help="address of a running Dask scheduler"),
    fresh: bool = typer.Option(False, "--fresh", help="generate again what is there already"),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    if data is None:
        limit_threads(1)  # as `train`: the same networks, whichever command trained them
    from cmet_eval import demo as embedded
    from cmet_eval.runs import evaluate

    if data is None:
        data = embedded.FOLDER / "shards"
        print(f"no --data: using the embedded corpus in {embedded.FOLDER}, made first where it is not there")
        print(embedded.embedded_corpus(workers=workers, quiet=quiet))
        print(embedded.embedded_shards(workers=workers, quiet=quiet))
        for told in embedded.embedded_networks(methods=method, workers=workers, quiet=quiet):
            print(told)
        max_pairs, seeds = max_pairs or embedded.PAIRS, seeds or 1
        print(f"{max_pairs} pairs of each setting, seeds: {seeds}; --max-pairs and --seeds take others")
        if not metrics and not profile:
            metrics = list(embedded.METRICS)
    summary = evaluate.run(
        method,
        setting or evaluate.DEFAULT_SETTINGS,
        data=data,
        out=out,
        max_pairs=max_pairs,
        seeds=seeds,
        metrics=metrics or None,
        profile=profile,
        split=split,
        workers=workers,
        scheduler=scheduler,
        fresh=fresh,
        quiet=quiet,
    )
    print(summary)
    rows = out / "results"
    print(f"result rows: {rows}; board: cmet-eval leaderboard --results {rows} --out {out / 'leaderboard'}")
    if summary.lost:
        raise typer.Exit(1)
