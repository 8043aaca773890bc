"""Rebuild every board (HTML, Markdown, CSV, Parquet, JSON) from the result rows in a folder."""

from __future__ import annotations

from pathlib import Path

import typer


def leaderboard(
    results: Path = typer.Option(
        Path("work/run/results"), "--results", help="folder of result rows; searched in depth"
    ),
    out: Path = typer.Option(Path("work/run/leaderboard"), "--out", help="where the boards go"),
    bands: Path = typer.Option(
        None, "--bands", help="noise bands (bands.csv of cmet-eval calibrate); default: those of docs/calibration"
    ),
    bands_of: str = typer.Option(
        None, "--bands-of", help="the calibration's clips to take them from, such as embedded; default: the largest"
    ),
    cases: int = typer.Option(4, "--gallery", min=0, help="pairs of a setting whose videos the page plays; 0: none"),
    run: Path = typer.Option(None, "--run", help="folder with the pairs and videos to play; default: beside RESULTS"),
) -> None:
    from cmet_baselines.published import published_rows
    from cmet_eval.reports.gallery import gallery
    from cmet_leaderboards.bands import known_bands, read_bands
    from cmet_leaderboards.board import build

    path = bands or known_bands()
    shown = gallery(run or results.parent, cases) if cases else None
    print(build(results, out, read_bands(path, bands_of) if path else None, shown, published_rows()))
