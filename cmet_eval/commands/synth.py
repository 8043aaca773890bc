"""Write the embedded corpus: deterministic talking faces with sound, in a dataset's own folders and containers.

LAYOUT is a dataset: mead, crema-d, lrs2, meld or clips. Nothing is downloaded. The folder `_truth/` holds the ground
truth.

Examples:
    cmet-eval synth mead work/corpus
    cmet-eval synth clips work/clips --speakers 2 --seconds 1
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import typer

from cmet_eval import completion
from cmet_eval.commands.options import MOST_WORKERS, finite, refuse_unused
from talking_face.files import check_writable


# long: typer turns each parameter into a command-line option
def synth(
    ctx: typer.Context,
    layout: str = typer.Argument(
        metavar="LAYOUT", autocompletion=completion.layouts, help="mead | crema-d | lrs2 | meld | clips"
    ),
    out: Path = typer.Argument(metavar="OUT", help="folder to write into"),
    speakers: int = typer.Option(8, min=1, max=10_000, metavar="N", help="number of speakers"),
    takes: int = typer.Option(1, min=1, max=1000, metavar="N", help="multiplies the clips of each speaker (32 at 1)"),
    size: str | None = typer.Option(
        None, metavar="SIZE", help="picture size: 640x360, 720p, 1080p or WIDTHxHEIGHT; else LAYOUT's own"
    ),
    seconds: float = typer.Option(2.0, min=0.4, max=600.0, callback=finite, metavar="SECONDS", help="length of a clip"),
    one_sentence: bool = typer.Option(
        False, "--one-sentence", help="8 clips of a speaker: each emotion once, at its highest level, with one sentence"
    ),
    seed: int = typer.Option(0, metavar="N", help="another seed gives other speech and motion"),
    defects: bool = typer.Option(False, "--defects", help="also write the dataset's known defects and damaged files"),
    workers: int = typer.Option(2, min=1, max=MOST_WORKERS, metavar="N", help="worker processes"),
    quiet: bool = typer.Option(False, "--quiet", help="no progress"),
) -> None:
    if one_sentence:
        refuse_unused(ctx, ("takes",), "synth --one-sentence")
    check_writable(out)
    from embedded_corpus.plan import CorpusPlan
    from embedded_corpus.writing import write_corpus

    clips: Literal["all", "one-sentence"] = "one-sentence" if one_sentence else "all"
    plan = CorpusPlan(layout, speakers, takes, size, seconds, seed, defects, clips)
    print(write_corpus(plan, out, workers=workers, quiet=quiet))
