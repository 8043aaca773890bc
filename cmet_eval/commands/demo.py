"""The whole job on the embedded corpus: write it, preprocess it, train on it, run every method in two settings, build
the board.

Everything lies under --out, and the same command finishes an interrupted demo. The last line is the board's path.
"""

from __future__ import annotations

import time
from pathlib import Path

import typer

from talking_face.threads import limit_threads

METHODS = (
    *("ground-truth", "ground-truth-face", "source-video", "static-reference", "shuffled-audio", "retrieval"),
    *("cmet", "cem-net"),
)
SETTINGS = ("neutral-base", "cross-emotion")


def demo(
    out: Path = typer.Option(
        Path("work/demo"), "--out", help="folder for the corpus, the shards, the models, the videos and the board"
    ),
    max_pairs: int = typer.Option(16, min=4, help="pairs of a setting; a balanced subset"),
    workers: int = typer.Option(2, min=1, help="processes"),
    quiet: bool = typer.Option(False, "--quiet", help="no progress"),
) -> None:
    limit_threads(1)  # as `train`: the same networks, whichever command trained them
    from cmet_baselines.published import published_rows
    from cmet_eval import demo as embedded
    from cmet_eval.reports.gallery import gallery
    from cmet_eval.runs import evaluate
    from cmet_leaderboards import bands, board

    started = time.monotonic()

    def step(title: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {title}", flush=True)

    step(f"1/5 the embedded corpus, in MEAD's folders and containers: {out / 'corpus'}")
    print(embedded.embedded_corpus(out, workers, quiet))
    step(f"2/5 Parquet shards: {out / 'shards'}")
    print(embedded.embedded_shards(out, workers, quiet))
    step("3/5 C-MET and CEM-Net, and beside them the evaluators, trained on the training split")
    for told in embedded.embedded_networks(out, METHODS, workers, quiet):
        print(told)
    step(f"4/5 {len(METHODS)} methods in {' and '.join(SETTINGS)}: {', '.join(METHODS)}")
    # One seed keeps the demo short; the settings' own number is five.
    print(
        evaluate.run(
            METHODS,
            SETTINGS,
            data=out / "shards",
            out=out,
            max_pairs=max_pairs,
            seeds=1,
            metrics=embedded.METRICS,
            workers=workers,
            quiet=quiet,
        )
    )
    step("5/5 the leaderboard")
    known = bands.known_bands()
    path = board.build(
        out / "results",
        out / "leaderboard",
        bands.read_bands(known) if known else None,
        gallery=gallery(out),
        published=published_rows(),
    )
    step("done")
    print(path)
