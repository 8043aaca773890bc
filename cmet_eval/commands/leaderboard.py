"""Build every board (HTML, Markdown, CSV, Parquet, JSON) from the result rows of a run.

Examples:
    cmet-eval leaderboard
    cmet-eval leaderboard --run work/demo --videos cmet=my-videos --out board
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval.checks import check_file, check_out
from cmet_eval.commands.options import BandsFile, BandsSource, MethodFolders, OwnMetrics, RunToRead
from cmet_eval.run_folder import run_folder


def leaderboard(
    run: RunToRead = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="FOLDER", help="folder for the boards; default: RUN/leaderboard")
    ] = None,
    bands: BandsFile = None,
    bands_of: BandsSource = None,
    cases: Annotated[
        int,
        typer.Option("--gallery", min=0, metavar="N", help="pairs of a setting whose videos the page plays; 0: none"),
    ] = 4,
    videos: MethodFolders = None,
    metrics: OwnMetrics = None,
) -> None:
    found = run_folder(run)
    out = out or found.folder / "leaderboard"
    check_out(out, "--out", {"--run": found.folder})
    if bands is not None:
        check_file(bands, "--bands")
    from cmet_baselines.published import published_rows
    from cmet_eval.reports.gallery import gallery
    from cmet_eval.reports.method_videos import MethodVideos
    from cmet_leaderboards.bands import load_bands
    from cmet_leaderboards.board import build
    from cmet_leaderboards.results import read_results
    from cmet_metrics.registry import get_metric

    for key in metrics or ():
        get_metric(key)
    noise = load_bands(bands, bands_of)
    rows = read_results(found.results)
    folders = MethodVideos.of(videos or [], found.folder / "videos", rows.methods)
    shown = gallery(rows, folders, cases) if cases else None
    print(build(rows, out, noise, shown, published_rows()))
