"""The whole job on the embedded corpus: write it, preprocess it, train on it, run every method in two settings, build
the board.

Everything is written into the run's folder, and the same command finishes an interrupted demo. The last line is the
board's path.

Examples:
    cmet-eval demo
    cmet-eval demo --run work/small --max-pairs 4
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from cmet_eval.checks import check_out
from cmet_eval.commands.options import Quiet, Workers
from talking_face.execution.options import RunOptions
from talking_face.logs import write_log_into
from talking_face.threads import limit_threads

METHODS = (
    *("ground-truth", "ground-truth-face", "source-video", "static-reference", "shuffled-audio", "retrieval"),
    *("label-lookup", "cmet", "cem-net"),
)
SETTINGS = ("neutral-base", "cross-emotion")


def demo(
    out: Annotated[
        Path,
        typer.Option(
            "--run",
            "--out",
            metavar="FOLDER",
            help="the run's folder: the corpus, the shards, the models, the videos and the board are written here",
        ),
    ] = Path("work/demo"),
    max_pairs: Annotated[int, typer.Option(min=4, metavar="N", help="pairs of a setting; a balanced subset")] = 16,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    check_out(out, "--run")
    write_log_into(out)
    limit_threads(1)  # as in `train`, so that all commands train the same networks
    from cmet_baselines.published import published_rows
    from cmet_eval import demo as embedded
    from cmet_eval.protocol.draw import Draw
    from cmet_eval.reports.gallery import gallery
    from cmet_eval.reports.method_videos import MethodVideos
    from cmet_eval.runs import evaluate
    from cmet_eval.runs.metrics import Scoring
    from cmet_leaderboards.bands import load_bands
    from cmet_leaderboards.board import build
    from cmet_leaderboards.results import read_results

    started = time.monotonic()
    options = RunOptions(workers, quiet=quiet)

    def step(title: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {title}", flush=True)

    step(f"1/5 the embedded corpus, in MEAD's folders and containers: {out / 'corpus'}")
    print(embedded.make_corpus(out, options))
    step(f"2/5 Parquet shards: {out / 'shards'}")
    print(embedded.make_shards(out, options))
    step("3/5 C-MET, CEM-Net and the evaluators, trained on the training split")
    for line in embedded.train_networks(out, METHODS, options):
        print(line)
    step(f"4/5 {len(METHODS)} methods in {' and '.join(SETTINGS)}: {', '.join(METHODS)}")
    # One seed keeps the demo short; the settings themselves use five.
    draw, scoring = Draw(max_pairs, seeds=1), Scoring(embedded.METRICS)
    print(evaluate.run(METHODS, SETTINGS, data=out / "shards", out=out, draw=draw, scoring=scoring, options=options))
    step("5/5 the leaderboard")
    rows = read_results(out / "results")
    path = build(
        rows,
        out / "leaderboard",
        load_bands(),
        gallery=gallery(rows, MethodVideos(out / "videos")),
        published=published_rows(),
    )
    step("done")
    print(path)
