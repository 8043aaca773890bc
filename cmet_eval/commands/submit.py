"""Write a bundle for the standing leaderboard: the rows of a method, their record, and 5% of the videos.

The digest of the pair list chooses the videos. `cmet-eval verify BUNDLE` checks a bundle.

Examples:
    cmet-eval submit work/run --method mine --out mine
    cmet-eval submit work/demo --method cmet --out cmet.zip
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_eval.checks import check_folder
from cmet_eval.commands.options import Pattern
from cmet_eval.run_folder import run_folder
from talking_face.names import file_name_of


def submit(
    results: Annotated[
        Path | None,
        typer.Argument(
            metavar="RESULTS",
            help="the run's folder, or any folder of result rows; default: the newest run below work/",
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completion.methods_of_run,
            help="the method, or NAME@REVISION; default: the only method of the rows",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="BUNDLE", help="a new folder, or a new .zip file; default: bundle-METHOD")
    ] = None,
    videos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="the scored videos, or METHOD/SETTING/ with them; default: RESULTS/videos"),
    ] = None,
    pairs: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="pair list; repeatable; default: those in RESULTS/pairs")
    ] = None,
    pattern: Pattern = "{pair}.mp4",
    training_seed: Annotated[
        int | None,
        typer.Option(min=0, metavar="N", help="the seed of the training; the leaderboard shows the mean over seeds"),
    ] = None,
) -> None:
    from cmet_eval.bundles.writing import Source, check_new, find_method, write_bundle
    from cmet_eval.runs.submissions import check_video_pattern
    from cmet_leaderboards.results import read_results
    from talking_face.pretrained.model_files import ModelFiles

    check_video_pattern(pattern)
    if out is not None:
        check_new(out)
    run = run_folder(results)
    videos = videos or run.folder / "videos"
    check_folder(videos, "--videos")
    lists = run.pair_lists(pairs)
    read = read_results(run.results)
    name, revision = find_method(read, method)
    out = out or Path(f"bundle-{file_name_of(name)}")
    check_new(out)
    files = ModelFiles.from_environment(run.folder / "shards")
    print(write_bundle(Source(read, lists, videos, files, pattern), (name, revision), out, training_seed))
    print(f"check it: cmet-eval verify {out}")
