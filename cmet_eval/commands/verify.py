"""Score a random share of a submission again: the videos' SHA-256 against its rows, and every value to 1e-6."""

from __future__ import annotations

from pathlib import Path

import typer


def verify(
    results: Path = typer.Argument(..., help="folder of result rows, or one file"),
    videos: Path = typer.Option(
        ..., "--videos", help="folder of the videos, or of METHOD/SETTING/ as a run writes them"
    ),
    data: Path = typer.Option(None, "--data", help="the shard set; default: shards beside the results"),
    pairs: list[Path] = typer.Option(None, "--pairs", help="pair lists; default: those in pairs/ beside the results"),
    method: str = typer.Option(None, "--method", help="only this one"),
    share: float = typer.Option(0.05, "--share", min=0.0, max=1.0, help="of each method's videos in each setting"),
    seed: int = typer.Option(0, "--seed", help="which videos"),
    pattern: str = typer.Option("{pair}.mp4", "--pattern", help="file name of a pair"),
    workers: int = typer.Option(2, "--workers", min=0, help="processes; 0: in this one, without deadlines"),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    from cmet_eval.runs import verification
    from cmet_leaderboards.results import read_results
    from talking_face.reasons import UserError

    if not results.exists():
        raise UserError(f"no result rows at {results}")
    run = _run_of(results)
    data, lists = data or run / "shards", pairs or sorted((run / "pairs").rglob("*.parquet"))
    for place, what in ((data, "--data"), (videos, "--videos")):
        if not place.is_dir():
            raise UserError(f"no folder {place}; give it with {what}")
    found = verification.verify(
        read_results(results),
        videos,
        data,
        lists,
        method=method,
        share=share,
        seed=seed,
        pattern=pattern,
        workers=workers,
        quiet=quiet,
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
    """The run's folder, where `results` is RUN/results, below it, or a file in it."""
    return next((place.parent for place in (results, *results.parents) if place.name == "results"), results.parent)
