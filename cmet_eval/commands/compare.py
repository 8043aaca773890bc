"""Compare two methods on their common pairs: differences, intervals, p-values, and the clips that differ most.

Examples:
    cmet-eval compare cmet cem-net
    cmet-eval compare cmet source-video --run work/demo --setting cross-emotion
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_eval.checks import check_file, check_out, check_shards
from cmet_eval.commands.options import BandsFile, BandsSource, MethodFolders, OwnMetrics, RunToRead
from cmet_eval.run_folder import run_folder


# long: typer turns each parameter into a command-line option
def compare(
    a: Annotated[
        str,
        typer.Argument(
            metavar="METHOD",
            autocompletion=completion.methods_of_run,
            help="a method of the result rows, or METHOD@REVISION",
        ),
    ],
    b: Annotated[
        str, typer.Argument(metavar="OTHER", autocompletion=completion.methods_of_run, help="the other method")
    ],
    run: RunToRead = None,
    setting: Annotated[
        str | None,
        typer.Option(
            "--setting",
            metavar="NAME",
            autocompletion=completion.settings,
            help="the setting; default: every setting that has both",
        ),
    ] = None,
    videos: MethodFolders = None,
    data: Annotated[
        Path | None,
        typer.Option("--data", metavar="FOLDER", help="the shard set, for the ground truth; default: RUN/shards"),
    ] = None,
    clips: Annotated[int, typer.Option("--clips", min=1, metavar="N", help="pairs on the contact sheet")] = 8,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            metavar="FOLDER",
            help="folder for tables and contact sheet; default: RUN/compare/METHOD-OTHER",
        ),
    ] = None,
    bands: BandsFile = None,
    bands_of: BandsSource = None,
    metrics: OwnMetrics = None,
) -> None:
    from cmet_eval.reports import comparison
    from cmet_eval.reports.method_videos import MethodVideos
    from cmet_leaderboards.bands import load_bands
    from cmet_leaderboards.compare import compare as compare_methods
    from cmet_leaderboards.compare import to_markdown
    from cmet_leaderboards.results import read_results
    from cmet_leaderboards.terminal import terminal
    from cmet_metrics.registry import get_metric
    from talking_face.names import file_name_of, inside

    for key in metrics or ():
        get_metric(key)
    found_run = run_folder(run)
    names = "-".join(file_name_of(*name.split("@", 1)) for name in (a, b))
    out = out or inside(found_run.folder / "compare", names)
    check_out(out, "--out", {"--run": found_run.folder})
    if bands is not None:
        check_file(bands, "--bands")
    if data is not None:
        check_shards(data)
    methods = {name.split("@", 1)[0] for name in (a, b)}
    folders = MethodVideos.of(videos or [], found_run.folder / "videos", methods)
    known = load_bands(bands, bands_of)
    for found in compare_methods(read_results(found_run.results), a, b, setting=setting, bands=known):
        text = to_markdown(found)
        sheet = comparison.sheet(found, folders, data or found_run.folder / "shards", clips)
        print(terminal(text))
        for file in comparison.write(found, text, sheet, out):
            print(file)
