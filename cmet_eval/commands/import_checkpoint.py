"""Turn a checkpoint that the authors of C-MET released into a checkpoint of this suite, and say what the file holds.

Only tensors and plain values are read; no code in the file runs. Without --out and --data, nothing is written. The
codec is a checkout of EDTalk or C-MET with the authors' weights. `stored:FOLDER` holds vectors of emotion2vec by clip
id, see docs/reference/cmet.md.

Examples:
    cmet-eval import cmet _epoch_2105_checkpoint_step000200000.pth
    cmet-eval import cmet a.pth --codec edtalk:C-MET --speech stored:v --data work
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from cmet_eval.checks import check_out, check_shards
from talking_face.pretrained.model_files import CHECKPOINTS_FOLDER, ModelFiles
from talking_face.reasons import UserError


class What(StrEnum):
    """The model of the checkpoint."""

    CMET = "cmet"


def import_checkpoint(
    what: What = typer.Argument(..., metavar="WHAT", help="cmet"),
    checkpoint: Path = typer.Argument(..., metavar="CHECKPOINT", help="the authors' file, .pth"),
    codec: str = typer.Option(None, "--codec", metavar="CODEC", help="edtalk:CHECKOUT"),
    speech: str = typer.Option(None, "--speech", metavar="SPEECH", help="emotion2vec:FOLDER or stored:FOLDER"),
    data: Path = typer.Option(
        None,
        "--data",
        metavar="FOLDER",
        help="store the checkpoint in this shard set, where `run` finds it",
    ),
    out: Path = typer.Option(
        None, "--out", metavar="FOLDER", help="folder for the checkpoint; default: DATA/reference"
    ),
) -> None:
    if data is not None:
        check_shards(data)
    where = out or (data / CHECKPOINTS_FOLDER if data else None)
    if where is None and (codec or speech):
        raise UserError("--codec and --speech are for a checkpoint that is written; name --data or --out")
    if where is not None and not (codec and speech):
        raise UserError("name the codec and the speech vectors: --codec edtalk:CHECKOUT --speech stored:FOLDER")
    if where is not None:
        check_out(where, "--out", {"--data": data})
    from cmet_reference.cmet import released

    found = released.read(checkpoint)
    print(f"{checkpoint}:", *found.report(), sep="\n    ")
    if where is not None:
        path = released.save(found, where, str(codec), str(speech), ModelFiles.from_environment(data))
        print(f"checkpoint: {path}")
    elif not found.fits:
        raise typer.Exit(1)
