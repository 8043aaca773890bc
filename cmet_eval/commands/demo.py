"""The whole job on the embedded corpus: write it, preprocess it, run three methods in two settings, build the board.

Everything lies under --out, and the same command finishes an interrupted demo. The last line is the board's path.
"""

from __future__ import annotations

import time
from pathlib import Path

import typer

METHODS = ("ground-truth", "static-reference", "source-video")
SETTINGS = ("neutral-base", "cross-emotion")
# Landmark distances on MediaPipe's points: dlib's finder, which `eat` needs twice a frame, costs five times as much and
# loses a third of the drawn faces in its own tight 128 px crop (docs/embedded_corpus.md).
METRICS = ("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat-mp", "f_lmd:eat-mp")


def demo(
    out: Path = typer.Option(
        Path("work/demo"), "--out", help="folder for the corpus, the shards, the videos and the board"
    ),
    max_pairs: int = typer.Option(32, min=4, help="pairs of a setting; a balanced subset"),
    workers: int = typer.Option(2, min=1, help="processes"),
    quiet: bool = typer.Option(False, "--quiet", help="no progress"),
) -> None:
    from cmet_eval import embedded, evaluate
    from cmet_eval.gallery import gallery
    from leaderboards import board

    started = time.monotonic()

    def step(title: str) -> None:
        print(f"[{time.monotonic() - started:4.0f} s] {title}", flush=True)

    step(f"1/4 the embedded corpus, in MEAD's folders and containers: {out / 'corpus'}")
    print(embedded.embedded_corpus(out, workers, quiet))
    step(f"2/4 Parquet shards: {out / 'shards'}")
    print(embedded.embedded_shards(out, workers, quiet))
    step(f"3/4 {', '.join(METHODS)} in {' and '.join(SETTINGS)}")
    # One seed keeps the demo short; the settings' own number is five.
    print(
        evaluate.run(
            METHODS,
            SETTINGS,
            data=out / "shards",
            out=out,
            max_pairs=max_pairs,
            seeds=1,
            metrics=METRICS,
            workers=workers,
            quiet=quiet,
        )
    )
    step("4/4 the leaderboard")
    path = board.build(out / "results", out / "leaderboard", gallery=gallery(out))
    step("done")
    print(path)
