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
) -> None:
    from leaderboards.bands import known_bands, read_bands
    from leaderboards.board import build

    path = bands or known_bands()
    print(build(results, out, read_bands(path, bands_of) if path else None))
