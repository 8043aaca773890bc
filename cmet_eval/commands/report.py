"""Write a table in addition to the boards, as Markdown, CSV and pictures.

KIND is emotion-proportion (of a data set, as in CEM-Net's Fig. 2), identity-deterioration (CEM-Net's Table I),
confusion (of the emotion classifiers), fid (over a whole set) or aitv (inference times by machine).

Examples:
    cmet-eval report confusion
    cmet-eval report fid --run work/demo
    cmet-eval report emotion-proportion --data work/demo/shards --clips 8
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cmet_eval.checks import ALL, check_choice, check_out, check_shards, check_split
from cmet_eval.commands.options import Memory, Quiet, RunToRead, Workers, refuse_unused
from cmet_eval.run_folder import RESULTS, WORK, FoundRun, run_folder
from talking_face.execution.options import RunOptions

if TYPE_CHECKING:
    from cmet_eval.reports.report import Report


class Kind(StrEnum):
    """What to report."""

    EMOTION_PROPORTION = "emotion-proportion"
    IDENTITY_DETERIORATION = "identity-deterioration"
    CONFUSION = "confusion"
    FID = "fid"
    AITV = "aitv"


_OF_CLIPS = ("data", "classifier", "split", "clips")  # options about the clips of a shard set
_UNUSED: dict[Kind, tuple[str, ...]] = {Kind.EMOTION_PROPORTION: (), Kind.FID: _OF_CLIPS[1:]}


# long: typer turns each parameter into a command-line option
def report(
    ctx: typer.Context,
    kind: Annotated[Kind, typer.Argument(metavar="KIND", help=", ".join(Kind))],
    run: RunToRead = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="the shard set, for emotion-proportion and fid; default: RUN/shards"),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER", help="where the files go; default: RUN/reports, or work/reports with --data alone"
        ),
    ] = None,
    classifier: Annotated[str, typer.Option(metavar="NAME", help="for emotion-proportion: fer, deepface, ...")] = "fer",
    split: Annotated[str, typer.Option(metavar="NAME", help="for emotion-proportion: clips of this split only")] = ALL,
    clips: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="for emotion-proportion: at most so many of each label")
    ] = None,
    workers: Workers = 2,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    from cmet_eval.reports.emotion_proportion import Selection, classifiers, emotion_proportion
    from cmet_eval.reports.report import write
    from cmet_leaderboards.terminal import terminal

    refuse_unused(ctx, _UNUSED.get(kind, _OF_CLIPS), f"report {kind}")
    of_data = kind is Kind.EMOTION_PROPORTION and data is not None and run is None
    place = FoundRun(WORK, WORK / RESULTS) if of_data else run_folder(run)
    out, options = out or place.folder / "reports", RunOptions(workers, quiet=quiet, memory_gb=memory)
    check_out(out, "--out", {"--data": data, "--run": place.folder})
    if kind is Kind.EMOTION_PROPORTION:
        check_choice(classifier, classifiers(), "--classifier")
        shards = _shards(place, data)
        check_split(split, shards)
        found = emotion_proportion(shards, classifier, out, Selection(split, clips), options)
    else:
        found = _of_run(kind, place, data, options)
    path = write(found, out)
    print(terminal(found.markdown))
    print(path)


def _of_run(kind: Kind, run: FoundRun, data: Path | None, options: RunOptions) -> Report:
    from cmet_eval.reports.confusion import confusion_tables
    from cmet_eval.reports.identity_deterioration import identity_deterioration
    from cmet_eval.reports.set_fid import dataset_fid
    from cmet_eval.reports.times import aitv
    from cmet_leaderboards.results import read_results

    if kind is Kind.FID:
        return dataset_fid(run.folder, _shards(run, data), options)
    if kind is Kind.AITV:
        return aitv(run.folder)
    results = read_results(run.results)
    return confusion_tables(results) if kind is Kind.CONFUSION else identity_deterioration(results)


def _shards(run: FoundRun, data: Path | None) -> Path:
    data = data or run.folder / "shards"
    check_shards(data)
    return data
