"""Rebuild every board (HTML, Markdown, CSV) from the result rows in a folder."""

from __future__ import annotations

from pathlib import Path

import typer


def leaderboard(
    results: Path = typer.Option(
        Path("work/run/results"), "--results", help="folder of result rows; searched in depth"
    ),
    out: Path = typer.Option(Path("work/run/leaderboard"), "--out", help="where the boards go"),
) -> None:
    from leaderboards.board import build

    print(build(results, out))
