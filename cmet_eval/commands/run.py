"""Generate every pair of a setting with a method, then score the videos. The same command finishes a stopped run.

Examples:
    cmet-eval run --method source-video
    cmet-eval run --method my-method.toml --data work/demo/shards
    cmet-eval run --method cmet --setting cross-emotion --max-pairs 16
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_eval.checks import check_out, check_run, check_shards
from cmet_eval.commands.options import (
    AllowMisregistered,
    Deadline,
    MaxPairs,
    Memory,
    Metrics,
    Profile,
    Quiet,
    RunFolder,
    Scheduler,
    Seeds,
    Split,
    Workers,
)
from talking_face.execution.options import RunOptions
from talking_face.logs import write_log_into
from talking_face.threads import limit_threads


# long: typer turns each parameter into a command-line option
def run(
    method: Annotated[
        list[str],
        typer.Option(
            metavar="NAME",
            autocompletion=completion.methods,
            help="a name of the catalogue, a .toml of yours, or module:Class; repeatable",
        ),
    ],
    setting: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            autocompletion=completion.settings,
            help="a setting, or a .toml of yours; repeatable; default: neutral-base and cross-emotion",
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(
            metavar="FOLDER",
            help="the shard set; default: the embedded corpus, made if absent, with 64 pairs of each setting, one "
            "seed and the demo's metrics",
        ),
    ] = None,
    out: RunFolder = Path("work/run"),
    max_pairs: MaxPairs = None,
    seeds: Seeds = None,
    split: Split = None,
    metrics: Metrics = None,
    profile: Profile = None,
    workers: Workers = 2,
    scheduler: Scheduler = None,
    deadline: Deadline = None,
    memory: Memory = None,
    allow_misregistered: AllowMisregistered = False,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="generate every video again (scores of equal videos are kept)")
    ] = False,
    quiet: Quiet = False,
) -> None:
    check_out(out, "--run", {"--data": data})
    if data is not None:
        check_shards(data)
    if data is None:
        limit_threads(1)  # as in `train`, so that all commands train the same networks
    check_run(method, setting, metrics, profile, data, split)
    write_log_into(out)
    from cmet_eval import demo
    from cmet_eval.protocol.draw import Draw
    from cmet_eval.runs import evaluate
    from cmet_eval.runs.metrics import Scoring

    draw, scoring = Draw(max_pairs, seeds, split), Scoring(metrics, profile, None, allow_misregistered)
    options = RunOptions(workers, scheduler, quiet, memory, deadline)
    if data is None:
        data, draw, scoring = demo.default_run(method, draw, scoring, options)
    summary = evaluate.run(
        method,
        setting or evaluate.DEFAULT_SETTINGS,
        data=data,
        out=out,
        draw=draw,
        scoring=scoring,
        options=options,
        fresh=fresh,
    )
    print(summary)
    print(f"result rows: {out / 'results'}; board: cmet-eval leaderboard --run {out}")
    if summary.lost:
        raise typer.Exit(1)
