"""Score a folder of videos that were generated elsewhere from a pair list.

Examples:
    cmet-eval pairs cross-emotion --data work/demo/shards -o pairs.parquet
    cmet-eval score --videos my-videos --pairs pairs.parquet \\
        --data work/demo/shards --method-name mine
    cmet-eval score --videos my-videos --names names.csv --size resize \\
        --pairs pairs.parquet --data work/demo/shards --method-name mine
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from cmet_eval.checks import (
    absent_model_files,
    check_choice,
    check_file,
    check_folder,
    check_out,
    check_score,
    tell_absent,
)
from cmet_eval.commands.options import (
    AllowMisregistered,
    Deadline,
    Memory,
    Metrics,
    Pattern,
    Profile,
    Quiet,
    RunFolder,
    Scheduler,
    Workers,
)
from talking_face.execution.options import RunOptions
from talking_face.logs import write_log_into
from talking_face.reasons import UserError


# long: typer turns each parameter into a command-line option
def score(
    videos: Annotated[Path, typer.Option(metavar="FOLDER", help="folder with one video for each pair")],
    pairs: Annotated[Path, typer.Option(metavar="FILE", help="the list that cmet-eval pairs wrote")],
    data: Annotated[Path, typer.Option(metavar="FOLDER", help="the shard set that the pairs were drawn from")],
    method_name: Annotated[str, typer.Option(metavar="NAME", help="the row of the board: a-z 0-9 . -")],
    revision: Annotated[
        str, typer.Option(metavar="TEXT", help="version, commit or checkpoint of the method")
    ] = "unversioned",
    title: Annotated[str | None, typer.Option(metavar="TEXT", help="how the board writes the method's name")] = None,
    pattern: Pattern = "{pair}.mp4",
    names: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="CSV with the columns pair,file: the file of each pair in VIDEOS"),
    ] = None,
    sees: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="an input of the method, such as driving-audio; repeatable"),
    ] = None,
    size: Annotated[
        Literal["as-is", "resize", "face-crop"],
        typer.Option(metavar="as-is|resize|face-crop", help="what to do with another size"),
    ] = "as-is",
    length: Annotated[
        Literal["exact", "shorter", "linspace"],
        typer.Option(metavar="exact|shorter|linspace", help="what to do with another length"),
    ] = "exact",
    allow_misregistered: AllowMisregistered = False,
    setting: Annotated[str | None, typer.Option(metavar="FILE", help="the setting's .toml, if it is your own")] = None,
    out: RunFolder = Path("work/run"),
    metrics: Metrics = None,
    profile: Profile = None,
    workers: Workers = 2,
    scheduler: Scheduler = None,
    deadline: Deadline = None,
    memory: Memory = None,
    quiet: Quiet = False,
) -> None:
    from cmet_baselines.method import INPUTS
    from cmet_eval.measuring.treatment import Treatment
    from cmet_eval.protocol.pair_files import read_pairs
    from cmet_eval.protocol.setting import get_setting
    from cmet_eval.runs import evaluate
    from cmet_eval.runs.metrics import Scoring
    from cmet_eval.runs.submissions import DEFAULT_PATTERN, RULES, from_elsewhere
    from cmet_pipelines.shards import ShardSet

    scoring = Scoring(metrics, profile, allow_misregistered=allow_misregistered)
    options = RunOptions(workers, scheduler, quiet, memory, deadline)
    check_score(method_name, pattern, scoring, data)
    if names and pattern != DEFAULT_PATTERN:
        raise UserError("--names and --pattern exclude each other: a file has a name in the table, or by the pattern")
    for name in sees or ():
        check_choice(name, INPUTS, "--sees")
    check_folder(videos, "--videos")
    check_file(pairs, "--pairs")
    if names:
        check_file(names, "--names")
    check_out(out, "--run", {"--data": data, "--videos": videos})
    method = {
        "name": method_name,
        "revision": revision,
        "title": title or method_name,
        "role": "method",
        "summary": "Scored from videos made elsewhere.",
        "sees": sorted(set(sees or [])),
    }
    own_setting = get_setting(setting) if setting else None
    submission = from_elsewhere(
        videos,
        read_pairs(pairs),
        method,
        own_setting,
        pattern,
        names=names,
        rules=Treatment(RULES.rate, size, length),
    )
    wanted = evaluate.check_submission(submission, ShardSet(data), scoring)
    tell_absent(absent_model_files(wanted, scoring.model_files(data)))
    write_log_into(out)
    summary = evaluate.score(submission, data=data, out=out, scoring=scoring, options=options)
    print(summary)
    print(f"result rows: {out / 'results'}; board: cmet-eval leaderboard --run {out}")
    if summary.lost:
        raise typer.Exit(1)
