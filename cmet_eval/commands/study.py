"""A user study: `study make` writes a static, blind and balanced page; `study analyse` reads what the raters saved.

`make` takes the videos of a run (--run, --setting, and --method for each method) and the shards that it used (--data).
`analyse` takes the study's folder (--out) and the folder of the raters' files (--answers). With --run, it also prints
how far each metric of the run agrees with the raters.

Examples:
    cmet-eval study make --method cmet --method ground-truth --raters 12
    cmet-eval study analyse --answers answers --run work/run
"""

from __future__ import annotations

import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cmet_eval import completion
from cmet_eval.checks import check_folder, check_out, check_pairs_of, check_shards
from cmet_eval.commands.options import Quiet, RunToRead, refuse_unused
from cmet_eval.run_folder import run_folder
from talking_face.names import counted
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from cmet_eval.study.plan import Design


_SHOWN = 50  # refused answers that are named; the others are counted


class Action(StrEnum):
    """What to do."""

    MAKE = "make"
    ANALYSE = "analyse"


_OF_MAKE = ("setting", "data", "method", "design", "raters", "per_rater", "pairs", "seed")


# long: typer turns each parameter into a command-line option
def study(
    ctx: typer.Context,
    action: Annotated[Action, typer.Argument(metavar="ACTION", help="make or analyse")],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="the study's folder")] = Path("work/study"),
    run: RunToRead = None,
    setting: Annotated[
        str, typer.Option(metavar="NAME", autocompletion=completion.settings, help="make: whose pairs are shown")
    ] = "cross-emotion",
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="make: the shard set of the run, for the reference pictures; default: RUN/shards"
        ),
    ] = None,
    method: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completion.methods_of_run,
            help="make: a method; repeatable; `ground-truth` anchors the scale",
        ),
    ] = None,
    design: Annotated[
        Literal["rating", "pairwise"],
        typer.Option(metavar="rating|pairwise", help="make: 1 to 5, or which of two"),
    ] = "rating",
    raters: Annotated[int, typer.Option(min=1, max=10_000, metavar="N", help="make: number of raters")] = 30,
    per_rater: Annotated[
        int, typer.Option(min=1, max=10_000, metavar="N", help="make: videos (or pairs of videos) a rater sees")
    ] = 64,
    pairs: Annotated[int, typer.Option(min=1, metavar="N", help="make: pairs that are shown, at most")] = 16,
    seed: Annotated[int, typer.Option(min=0, metavar="N", help="make: seed of the order of the videos")] = 0,
    answers: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="analyse: folder of the raters' .json files")
    ] = None,
    quiet: Quiet = False,
) -> None:
    from cmet_eval.study.plan import Design

    refuse_unused(ctx, _OF_MAKE if action is Action.ANALYSE else ("answers",), f"study {action}")
    if action is Action.ANALYSE:
        _analyse(out, answers, run)
    else:
        check_out(out, "--out")
        _make(run, setting, method or [], data, out, Design(design, raters, per_rater, pairs, seed), quiet)


def _analyse(out: Path, answers: Path | None, run: Path | None) -> None:
    from cmet_eval.study.agreement import agreements
    from cmet_eval.study.agreement import to_markdown as agreement_table
    from cmet_eval.study.analysis import analyse, to_markdown
    from cmet_eval.study.answers import read_answers
    from cmet_leaderboards.results import read_results

    if answers is None:
        raise UserError("name the folder of the raters' files with --answers")
    check_folder(answers, "--answers")
    results = read_results(run_folder(run).results) if run else None
    found = read_answers(out, (path for path in answers.iterdir() if path.suffix == ".json"))
    _print_first("refused", found.refused)
    _print_first("missing", found.gaps)
    if found.silent:
        print(f"no answers of {counted(len(found.silent), 'rater')}: {_numbers(found.silent)}", file=sys.stderr)
    counts = f"{len(found.counted)} answers counted, {len(found.refused)} refused, {found.missing} missing"
    if not found.counted:
        raise UserError(f"{answers}: {counts}; name the folder of the JSON files that the raters saved")
    print(to_markdown(analyse(found.key, found.counted)), end="")
    print(counts, file=sys.stderr)
    if results is not None:
        print()
        print(agreement_table(agreements(found.key, found.counted, results), found.key.design), end="")
    else:
        print("name the run with --run to see how far its metrics agree with the raters", file=sys.stderr)
    raise typer.Exit(1 if found.refused else 0)


def _print_first(what: str, lines: list[str]) -> None:
    """Prints the first lines to stderr, and the number of the others."""
    for line in lines[:_SHOWN]:
        print(f"{what}: {line}", file=sys.stderr)
    if len(lines) > _SHOWN:
        print(f"{what}: {len(lines) - _SHOWN} more", file=sys.stderr)


def _numbers(numbers: list[int]) -> str:
    """Sorted numbers as text, in which three or more in a row become a range: `1, 3-5`."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = [f"{run[0]}-{run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs]
    return ", ".join(texts)


def _make(
    run: Path | None, setting: str, methods: list[str], data: Path | None, out: Path, design: Design, quiet: bool
) -> None:
    from cmet_eval.protocol.pair_files import read_pairs
    from cmet_eval.study.make import check_study_methods, make_study
    from cmet_pipelines.shards import ShardSet

    check_study_methods(methods, design)
    folder = run_folder(run).folder
    data = data or folder / "shards"
    check_shards(data)
    pair_list = read_pairs(check_pairs_of(folder, setting))
    page = make_study(folder, pair_list, methods, ShardSet(data), out, design=design, quiet=quiet)
    print(f"{page}: give raters 1 to {design.raters} a link each (index.html?rater=N); keep key.json from them")
