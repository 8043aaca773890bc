"""Draw a setting's pairs from a shard set, and export them as png, mp4 and wav for methods that run elsewhere."""

from __future__ import annotations

from pathlib import Path

import typer

from cmet_eval.protocol.pairs import draw_pairs, write_pairs
from cmet_eval.protocol.setting import get_setting, setting_names
from talking_face.reasons import UserError


def pairs(
    setting: str = typer.Argument(..., help=f"{', '.join(setting_names())}, or a path to a setting's .toml"),
    data: Path = typer.Option(..., "--data", help="folder that cmet-eval preprocess wrote"),
    output: Path = typer.Option(..., "--output", "-o", help="pair list to write: .parquet or .csv"),
    export: Path = typer.Option(None, "--export", help="folder for reference images, source videos and driving audio"),
    max_pairs: int = typer.Option(None, "--max-pairs", min=1, help="a balanced subset of this size"),
    seeds: int = typer.Option(None, "--seeds", min=1, help="number of seeds; default: the setting's"),
    split: str = typer.Option(None, "--split", help="draw from this split; 'all' takes every clip"),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    from cmet_pipelines.shards import ShardSet

    if output.suffix not in (".parquet", ".csv"):
        raise UserError(f"{output} should end in .parquet or .csv")
    rules = get_setting(setting)
    shards = ShardSet(data)
    drawn = draw_pairs(
        shards.clips,
        rules,
        data_digest=shards.digest,
        seeds=seeds,
        max_pairs=max_pairs,
        split=split,
        valid=shards.valid,
    )
    write_pairs(drawn, output)
    for cell in drawn.missing:
        print(f"no pair: {cell}")
    for note in drawn.notes:
        print(note)
    subset = f" of {drawn.drawn} drawn" if drawn.drawn > len(drawn.pairs) else ""
    print(f"{len(drawn.pairs)} pairs{subset}, digest {drawn.digest}: {output}")
    if export is not None:
        from cmet_eval.runs.export import export_pairs

        print(f"inputs of every pair: {export_pairs(drawn, shards, export, quiet=quiet)}")
