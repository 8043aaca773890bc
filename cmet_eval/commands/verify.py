"""Check a bundle of `cmet-eval submit`, or score a random share of a run again.

A bundle: its forms, its hashes, its signatures and its pairs. With --data, its videos are scored again. A run: the
videos' SHA-256 against the rows, and every value to 1e-6.

Examples:
    cmet-eval verify mine.zip
    cmet-eval verify mine --data shards --board leaderboards/results --merge
    cmet-eval verify --run work/demo --method cmet --share 0.2
    cmet-eval verify --run theirs --data work/demo/shards --pairs pairs.parquet
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmet_eval import completion
from cmet_eval.checks import check_choice, check_folder, check_shards
from cmet_eval.commands.options import (
    Memory,
    OwnMetrics,
    Pattern,
    Quiet,
    RunToRead,
    WorkersOrNone,
    above_zero,
    refuse_unused,
)
from cmet_eval.run_folder import FoundRun, run_folder
from talking_face.execution.options import RunOptions
from talking_face.names import printable
from talking_face.reasons import UserError

if TYPE_CHECKING:  # imports PyArrow
    from cmet_eval.bundles.verification import Against
    from cmet_eval.runs.verification import DrawnVideos

# Options without effect on a bundle, and on a run.
_OF_RUN = ("run", "pairs", "method", "metrics")
_OF_BUNDLE = ("board", "merge")
_OF_DRAW = ("share", "seed", "pattern")  # of a bundle, only with --videos


# long: typer turns each parameter into a command-line option
def verify(
    ctx: typer.Context,
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", help="a folder or .zip file of cmet-eval submit")
    ] = None,
    run: RunToRead = None,
    videos: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="the videos, or METHOD/SETTING/ with them; default: RUN/videos. With BUNDLE: all "
            "videos of the submitter, of which --share and --seed choose some more",
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="the shard set; default: RUN/shards, of a BUNDLE: none")
    ] = None,
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
    board: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="the standing leaderboard, leaderboards/results, to compare with BUNDLE"),
    ] = None,
    merge: Annotated[bool, typer.Option("--merge", help="add the rows of BUNDLE to --board; needs --data")] = False,
    workers: WorkersOrNone = 2,
    memory: Memory = None,
    quiet: Quiet = False,
    metrics: OwnMetrics = None,
) -> None:
    from cmet_eval.runs.submissions import check_video_pattern
    from cmet_eval.runs.verification import DrawnVideos, Sampling
    from cmet_metrics.registry import get_metric

    options = RunOptions(workers, quiet=quiet, memory_gb=memory)
    check_video_pattern(pattern)
    if bundle is not None:
        refuse_unused(ctx, (*_OF_RUN, *(() if videos else _OF_DRAW)), "verify BUNDLE")
        more = None if videos is None else DrawnVideos(videos, Sampling(None, share, seed), pattern)
        _verify_bundle(bundle, _against(data, board, merge, more), options)
        return
    refuse_unused(ctx, _OF_BUNDLE, "verify` without a BUNDLE, such as `cmet-eval verify mine.zip")
    for key in metrics or ():
        get_metric(key)
    found = run_folder(run)
    data = data or found.folder / "shards"
    drawn = DrawnVideos(videos or found.folder / "videos", Sampling(method, share, seed), pattern)
    _verify_run(found, data, found.pair_lists(pairs), drawn, options)


def _verify_run(run: FoundRun, data: Path, lists: list[Path], videos: DrawnVideos, options: RunOptions) -> None:
    """Prints the differences between rows and new scores. The exit status is 1 if there is one."""
    from cmet_eval.runs.verification import verify as verify_results
    from cmet_leaderboards.results import read_results

    check_folder(videos.folder, "--videos")
    check_shards(data)
    rows = read_results(run.results)
    method, seed = videos.sampling.method, videos.sampling.seed
    if method is not None:
        check_choice(method, rows.methods, "--method")
    found = verify_results(rows, videos, data, lists, options)
    for fault in found.faults:
        print(fault)
    print(
        f"{found.drawn} of {found.videos} videos drawn with seed {seed}; {found.values} values scored again, "
        f"{found.exact} the same to the bit; " + (f"{len(found.faults)} differences" if found.faults else "all agree")
    )
    if found.faults:
        raise typer.Exit(1)


def _against(data: Path | None, board: Path | None, merge: bool, more: DrawnVideos | None) -> Against:
    """What the bundle is compared with. Raises UserError if an option needs another one, or names no folder."""
    from cmet_eval.bundles.verification import Against

    if merge and (data is None or board is None):
        raise UserError("--merge needs --data and --board: rows are added only after their videos were scored again")
    if more is not None and data is None:
        raise UserError("--videos needs --data: the videos are scored again")
    if data is not None:
        check_shards(data)
    if board is not None:
        check_folder(board, "--board")
    if more is not None:
        check_folder(more.folder, "--videos")
    return Against(data, board, more, merge)


def _verify_bundle(path: Path, against: Against, options: RunOptions) -> None:
    """Prints what was checked. A fault is printed in one line with its name, and the exit status is 1."""
    from cmet_eval.bundles.form import Refused
    from cmet_eval.bundles.verification import verify_bundle

    if not path.exists():
        check_folder(path, "BUNDLE")
    try:
        for line in verify_bundle(path, against, options):
            print(line)
    except Refused as refused:
        print(f"{printable(str(path))} is refused, {refused}", file=sys.stderr)
        raise typer.Exit(1) from None
    print(f"{printable(str(path))} has no fault that was looked for")
