"""A user study: `study make` writes a static, blind and balanced page; `study analyse` reads what the raters saved.

`make` takes the videos of a run (--run OUT, --setting S, --method repeated) and the shards that it used (--data).
`analyse` takes the study's folder (--out) and the raters' files (--answers, a folder).
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Literal

import typer

from talking_face.reasons import UserError


class Action(StrEnum):
    """What to do."""

    MAKE = "make"
    ANALYSE = "analyse"


def study(
    action: Action = typer.Argument(...),
    out: Path = typer.Option(Path("work/study"), "--out", help="the study's folder"),
    run: Path = typer.Option(Path("work/run"), "--run", help="make: the folder that `cmet-eval run --out` wrote"),
    setting: str = typer.Option("cross-emotion", "--setting", help="make: whose pairs are shown"),
    data: Path = typer.Option(None, "--data", help="make: the shard set of the run, for the reference pictures"),
    method: list[str] = typer.Option(None, "--method", help="make: repeatable; `ground-truth` anchors the scale"),
    design: Literal["rating", "pairwise"] = typer.Option("rating", "--design", help="make: 1 to 5, or which of two"),
    raters: int = typer.Option(30, "--raters", min=1, help="make: their numbers are 1 to this"),
    per_rater: int = typer.Option(64, "--per-rater", min=1, help="make: videos (or pairs of videos) a rater sees"),
    pairs: int = typer.Option(16, "--pairs", min=1, help="make: cases shown, at most"),
    seed: int = typer.Option(0, "--seed", min=0),
    answers: Path = typer.Option(None, "--answers", help="analyse: folder of the raters' .json files"),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    if action is Action.ANALYSE:
        from cmet_eval.study import analysis as kit

        if answers is None or not answers.is_dir():
            raise UserError("name the folder of the raters' files with --answers")
        key, records = kit.read_answers(out, answers.glob("*.json"))
        analyse = kit.analyse_ratings if key["design"] == "rating" else kit.analyse_preferences
        print(kit.to_markdown(analyse(records, key["methods"])), end="")
        return
    from cmet_eval.protocol.pair_files import read_pairs
    from cmet_eval.study.make import make_study
    from cmet_pipelines.shards import ShardSet

    if data is None:
        raise UserError("name the shard set of the run with --data: the reference pictures are in it")
    page = make_study(
        run,
        read_pairs(run / "pairs" / f"{setting}.parquet"),
        method or [],
        ShardSet(data),
        out,
        design=design,
        raters=raters,
        per_rater=per_rater,
        max_pairs=pairs,
        seed=seed,
        quiet=quiet,
    )
    print(f"{page}: give raters 1 to {raters} a link each (index.html?rater=N); keep key.json from them")
