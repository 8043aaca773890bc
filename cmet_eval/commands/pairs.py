"""Draw a setting's pairs from a shard set, and export them as png, mp4 and wav for methods that run elsewhere.

Examples:
    cmet-eval pairs cross-emotion --data work/demo/shards -o pairs.parquet
    cmet-eval pairs neutral-base --data work/demo/shards -o p.csv --export inputs
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from cmet_eval import completion
from cmet_eval.checks import check_out, check_shards, check_split
from cmet_eval.commands.options import MaxPairs, Quiet, Seeds, ShardSetFolder, Split
from cmet_eval.protocol.setting import get_setting, setting_names
from talking_face.names import counted
from talking_face.reasons import UserError


def pairs(
    setting: Annotated[
        str,
        typer.Argument(
            metavar="SETTING",
            autocompletion=completion.settings,
            help=f"{', '.join(setting_names())}, or a path to a setting's .toml",
        ),
    ],
    data: ShardSetFolder,
    output: Annotated[
        Path, typer.Option("--output", "-o", metavar="FILE", help="pair list to write: .parquet or .csv")
    ],
    export: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="folder for reference images, source videos and driving audio")
    ] = None,
    max_pairs: MaxPairs = None,
    seeds: Seeds = None,
    split: Split = None,
    quiet: Quiet = False,
) -> None:
    from cmet_eval.protocol.draw import Draw, draw_from_shards
    from cmet_eval.protocol.pair_files import write_pairs
    from cmet_pipelines.shards import ShardSet

    if output.suffix not in (".parquet", ".csv"):
        raise UserError(f"{output} should end in .parquet or .csv")
    rules = get_setting(setting)
    check_shards(data)
    check_split(split, data)
    check_out(output.parent, "--output")
    if export is not None:
        check_out(export, "--export")
    shards = ShardSet(data)
    drawn = draw_from_shards(shards, rules, Draw(max_pairs, seeds, split))
    write_pairs(drawn, output)
    for cell in drawn.missing:
        print(f"no pair: {cell}")
    for note in drawn.notes:
        print(note)
    subset = f" of {drawn.drawn} drawn" if drawn.drawn > len(drawn.pairs) else ""
    print(f"{counted(len(drawn.pairs), 'pair')}{subset}, digest {drawn.digest}: {output}")
    if export is not None:
        from cmet_eval.runs.export import export_pairs

        print(f"inputs of every pair: {export_pairs(drawn, shards, export, quiet=quiet)}")
