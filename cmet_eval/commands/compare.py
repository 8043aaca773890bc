"""Two methods on the pairs that both have: differences, intervals, p-values, and the clips where they differ most."""

from __future__ import annotations

from pathlib import Path

import typer


def compare(
    a: str = typer.Argument(..., help="a method of the result rows, or METHOD@REVISION"),
    b: str = typer.Argument(..., help="the other"),
    results: Path = typer.Option(Path("work/run/results"), "--results", help="folder of result rows"),
    setting: str = typer.Option(None, "--setting", help="default: every setting that has both"),
    videos: list[str] = typer.Option(
        None, "--videos", help="DIR with METHOD/SETTING/, or METHOD=DIR with its videos; default: beside the results"
    ),
    data: Path = typer.Option(None, "--data", help="shard set, for the ground truth; default: beside the results"),
    clips: int = typer.Option(8, "--clips", min=1, help="pairs on the contact sheet"),
    out: Path = typer.Option(None, "--out", help="default: compare/A-B beside the results"),
    bands: Path = typer.Option(None, "--bands", help="noise bands; default: those of docs/calibration"),
    bands_of: str = typer.Option(None, "--bands-of", help="the calibration's clips to take them from"),
) -> None:
    from cmet_eval.reports import comparison
    from cmet_leaderboards.bands import known_bands, read_bands
    from cmet_leaderboards.compare import compare as compare_methods
    from cmet_leaderboards.compare import to_markdown
    from cmet_leaderboards.results import read_results

    path = bands or known_bands()
    known = read_bands(path, bands_of) if path else None
    out = out or results.parent / "compare" / f"{a}-{b}".replace("/", "_")
    for found in compare_methods(read_results(results), a, b, setting=setting, bands=known):
        text = to_markdown(found)
        sheet = comparison.sheet(found, comparison.folders(videos or [], results.parent / "videos", (a, b)),
                                 data or results.parent / "shards", clips)  # fmt: skip
        print(text)
        for file in comparison.write(found, text, sheet, out):
            print(file)
