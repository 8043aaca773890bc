"""Tables beside the boards, as Markdown, CSV and pictures: emotion-proportion of a data set (CEM-Net's Fig. 2),
identity-deterioration (its Table I), confusion of the emotion classifiers, fid over a set, aitv by machine."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer


class Kind(StrEnum):
    """What to report."""

    EMOTION_PROPORTION = "emotion-proportion"
    IDENTITY_DETERIORATION = "identity-deterioration"
    CONFUSION = "confusion"
    FID = "fid"
    AITV = "aitv"


def report(
    kind: Kind = typer.Argument(...),
    run: Path = typer.Option(Path("work/run"), "--run", help="folder of a run: result rows, videos, records"),
    data: Path = typer.Option(None, "--data", help="folder of shards, for emotion-proportion and fid; default: RUN's"),
    out: Path = typer.Option(None, "--out", help="where the files go; default: RUN/reports"),
    classifier: str = typer.Option("fer", "--classifier", help="for emotion-proportion: fer, deepface, ..."),
    split: str = typer.Option("all", "--split", help="for emotion-proportion: clips of this split only"),
    clips: int = typer.Option(None, "--clips", min=1, help="for emotion-proportion: at most so many a label"),
    workers: int = typer.Option(2, "--workers", min=1),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    from cmet_eval.reports import reports
    from cmet_leaderboards.results import read_results
    from talking_face.reasons import UserError

    out = out or run / "reports"
    if kind in (Kind.EMOTION_PROPORTION, Kind.FID):
        data = data or run / "shards"
        if not data.is_dir():
            raise UserError(f"no folder {data}; give the shard set with --data")
    if kind is Kind.EMOTION_PROPORTION:
        found = reports.emotion_proportion(
            data, classifier, out, split=split, clips=clips, workers=workers, quiet=quiet
        )
    elif kind is Kind.FID:
        found = reports.dataset_fid(run, data, workers=workers, quiet=quiet)
    elif kind is Kind.AITV:
        found = reports.aitv(run)
    elif kind is Kind.CONFUSION:
        found = reports.confusion_tables(read_results(run / "results"))
    else:
        found = reports.identity_deterioration(read_results(run / "results"))
    path = reports.write(found, out)
    print(found.markdown)
    print(path)
