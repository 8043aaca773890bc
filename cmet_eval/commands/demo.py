"""The whole job on the embedded corpus: write it, preprocess it, train on it, run every method, build the board.

The board is built twice: first with the trivial methods, which need no training, then with all methods. Everything is
written into the run's folder, and the same command finishes an interrupted demo. The last line is the board's path.

Examples:
    cmet-eval demo
    cmet-eval demo --run work/small --max-pairs 8
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from cmet_eval.checks import check_out
from cmet_eval.commands.options import Quiet, Workers
from talking_face.execution.options import RunOptions
from talking_face.logs import write_log_into
from talking_face.threads import limit_threads

FIRST = ("ground-truth", "source-video", "static-reference")  # need no training, and take the least time
OTHERS = ("ground-truth-face", "label-lookup", "cmet", "cem-net")
SETTING = "cross-emotion"


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
    max_pairs: Annotated[int, typer.Option(min=4, metavar="N", help="pairs; a balanced subset")] = 32,
    workers: Workers = 2,
    quiet: Quiet = False,
) -> None:
    check_out(out, "--run")
    write_log_into(out)
    limit_threads(1)  # as in `train`, so that all commands train the same networks
    from cmet_eval import demo as embedded
    from cmet_eval.protocol.draw import Draw
    from cmet_eval.reports import fingerprint
    from cmet_eval.runs import evaluate
    from cmet_eval.runs.metrics import Scoring

    started = time.monotonic()
    options = RunOptions(workers, quiet=quiet)

    def step(title: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {title}", flush=True)

    def run(methods: Sequence[str], metrics: Sequence[str]) -> None:
        # One seed keeps the demo short; the setting itself uses five.
        draw, scoring = Draw(max_pairs, seeds=1), Scoring(metrics)
        print(
            evaluate.run(methods, [SETTING], data=out / "shards", out=out, draw=draw, scoring=scoring, options=options)
        )

    step(f"1/6 the embedded corpus, in MEAD's folders and containers: {out / 'corpus'}")
    print(embedded.make_corpus(out, options))
    step(f"2/6 Parquet shards: {out / 'shards'}")
    print(embedded.make_shards(out, options))
    step(f"3/6 a first board, of the methods without training, in {SETTING}: {', '.join(FIRST)}")
    run(FIRST, embedded.FIRST_METRICS)
    first = embedded.build_board(out)
    step(f"open {first} now; the page is replaced at the end")
    step("4/6 C-MET, CEM-Net and the evaluators, trained on the training split")
    for line in embedded.train_networks(out, OTHERS, options):
        print(line)
    step(f"5/6 the other methods: {', '.join(OTHERS)}; the other metrics of all methods")
    run(FIRST, embedded.LATER_METRICS)  # their other scores are in the result rows already
    run(OTHERS, embedded.METRICS)
    step("6/6 the leaderboard")
    path = embedded.build_board(out)
    print(fingerprint.written(out))
    step("done")
    print(path)
