"""Score a random share of a submission again: the videos' SHA-256 against its rows, and every value to 1e-6."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval.commands.options import Memory, OwnMetrics, Pattern, Quiet, WorkersOrNone, finite
from talking_face.execution.options import RunOptions


# long: typer turns each parameter into a command-line option
def verify(
    results: Annotated[Path, typer.Argument(help="folder of result rows, or one file")],
    videos: Annotated[Path, typer.Option(help="folder of the videos, or of METHOD/SETTING/ as a run writes them")],
    data: Annotated[
        Path | None, typer.Option(help="the shard set; default: shards in the folder that holds the results")
    ] = None,
    pairs: Annotated[
        list[Path] | None, typer.Option(help="pair lists; default: those in pairs/, in the same folder")
    ] = None,
    method: Annotated[str | None, typer.Option(help="only this one")] = None,
    share: Annotated[
        float, typer.Option(min=0.0, max=1.0, callback=finite, help="of each method's videos in each setting")
    ] = 0.05,
    seed: Annotated[int, typer.Option(min=0, help="of the draw of videos")] = 0,
    pattern: Pattern = "{pair}.mp4",
    workers: WorkersOrNone = 2,
    memory: Memory = None,
    quiet: Quiet = False,
    metrics: OwnMetrics = None,
) -> None:
    from cmet_eval.runs.verification import Sampling
    from cmet_eval.runs.verification import verify as verify_results
    from cmet_leaderboards.results import read_results
    from cmet_metrics.registry import get_metric
    from talking_face.reasons import UserError

    for key in metrics or ():
        get_metric(key)
    if not results.exists():
        raise UserError(f"no result rows at {results}")
    run = _run_of(results)
    data, lists = data or run / "shards", pairs or sorted((run / "pairs").rglob("*.parquet"))
    for place, what in ((data, "--data"), (videos, "--videos")):
        if not place.is_dir():
            raise UserError(f"no folder {place}; give it with {what}")
    found = verify_results(
        read_results(results),
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


def _run_of(results: Path) -> Path:
    """The run's folder, RUN. `results` is RUN/results, or a folder or file below RUN/results."""
    return next((place.parent for place in (results, *results.parents) if place.name == "results"), results.parent)
