"""Score a random share of a submission again: the videos' SHA-256 against its rows, and every value to 1e-6.

Examples:
    cmet-eval verify
    cmet-eval verify --run work/demo --method cmet --share 0.2
    cmet-eval verify --run theirs --data work/demo/shards --pairs pairs.parquet
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_eval.checks import check_choice, check_file, check_folder, check_shards
from cmet_eval.commands.options import Memory, OwnMetrics, Pattern, Quiet, RunToRead, WorkersOrNone, above_zero
from cmet_eval.run_folder import run_folder
from talking_face.execution.options import RunOptions


# long: typer turns each parameter into a command-line option
def verify(
    run: RunToRead = None,
    videos: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="the videos, or METHOD/SETTING/ with them; default: RUN/videos"),
    ] = None,
    data: Annotated[Path | None, typer.Option(metavar="FOLDER", help="the shard set; default: RUN/shards")] = None,
    pairs: Annotated[
        list[Path] | None, typer.Option(metavar="FILE", help="pair list; repeatable; default: those in RUN/pairs")
    ] = None,
    method: Annotated[
        str | None, typer.Option(metavar="NAME", autocompletion=completion.methods_of_run, help="only this method")
    ] = None,
    share: Annotated[
        float,
        typer.Option(
            max=1.0,
            callback=above_zero,
            metavar="SHARE",
            help="part of the videos of each method and setting that is scored again",
        ),
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="seed of the draw of videos")] = 0,
    pattern: Pattern = "{pair}.mp4",
    workers: WorkersOrNone = 2,
    memory: Memory = None,
    quiet: Quiet = False,
    metrics: OwnMetrics = None,
) -> None:
    from cmet_eval.runs.submissions import check_video_pattern
    from cmet_eval.runs.verification import Sampling
    from cmet_eval.runs.verification import verify as verify_results
    from cmet_leaderboards.results import read_results
    from cmet_metrics.registry import get_metric

    for key in metrics or ():
        get_metric(key)
    folder, results = run_folder(run)
    check_video_pattern(pattern)
    videos, data = videos or folder / "videos", data or folder / "shards"
    lists = pairs or sorted((folder / "pairs").rglob("*.parquet"))
    check_folder(videos, "--videos")
    check_shards(data)
    for path in pairs or ():
        check_file(path, "--pairs")
    rows = read_results(results)
    if method is not None:
        check_choice(method, rows.methods, "--method")
    found = verify_results(
        rows,
        videos,
        data,
        lists,
        sampling=Sampling(method, share, seed),
        pattern=pattern,
        options=RunOptions(workers, quiet=quiet, memory_gb=memory),
    )
    for fault in found.faults:
        print(fault)
    print(
        f"{found.drawn} of {found.videos} videos drawn with seed {seed}; {found.values} values scored again, "
        f"{found.exact} the same to the bit; " + (f"{len(found.faults)} differences" if found.faults else "all agree")
    )
    if found.faults:
        raise typer.Exit(1)
