"""Rebuild every board (HTML, Markdown, CSV, Parquet, JSON) from the result rows in a folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval.commands.options import BandsFile, BandsSource, MethodFolders, OwnMetrics, ResultRows
from talking_face.files import check_writable


def leaderboard(
    results: ResultRows = Path("work/run/results"),
    out: Annotated[Path, typer.Option("--out", help="folder for the boards")] = Path("work/run/leaderboard"),
    bands: BandsFile = None,
    bands_of: BandsSource = None,
    cases: Annotated[
        int, typer.Option("--gallery", min=0, help="pairs of a setting whose videos the page plays; 0: none")
    ] = 4,
    run: Annotated[
        Path | None, typer.Option("--run", help="folder of the run whose videos are played; default: next to RESULTS")
    ] = None,
    videos: MethodFolders = None,
    metrics: OwnMetrics = None,
) -> None:
    check_writable(out)
    from cmet_baselines.published import published_rows
    from cmet_eval.reports.gallery import gallery
    from cmet_eval.reports.method_videos import MethodVideos
    from cmet_leaderboards.bands import load_bands
    from cmet_leaderboards.board import build
    from cmet_leaderboards.results import read_results
    from cmet_metrics.registry import get_metric

    for key in metrics or ():
        get_metric(key)
    rows = read_results(results)
    folders = MethodVideos.of(videos or [], (run or results.parent) / "videos", rows.methods)
    shown = gallery(rows, folders, cases) if cases else None
    print(build(rows, out, load_bands(bands, bands_of), shown, published_rows()))
