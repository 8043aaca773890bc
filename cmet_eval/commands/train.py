"""Train on a shard set's training split. `train evaluators`: a small SyncNet and an emotion classifier, for scoring.

The files and their cards go to DATA/evaluators, where `run` and `score` on that data find them for the metrics called
`:corpus`. The same data, settings and seed give the same files on the CPU.
"""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

import typer

from talking_face.reasons import UserError


class What(StrEnum):
    """What to train."""

    EVALUATORS = "evaluators"


def train(
    what: What = typer.Argument(...),
    data: Path = typer.Option(..., "--data", help="shard set that `cmet-eval preprocess` wrote"),
    out: Path = typer.Option(None, "--out", help="folder for the files; default: DATA/evaluators"),
    seed: int = typer.Option(0, "--seed", min=0),
    steps: int = typer.Option(None, "--steps", min=2, help="of the lip-sync network; default 300"),
    max_clips: int = typer.Option(None, "--max-clips", min=2, help="clips to train on; default 384"),
    device: str = typer.Option("cpu", "--device", help="cpu, or cuda: faster, and not the same bytes each time"),
    quiet: bool = typer.Option(False, "--quiet"),
) -> None:
    from dataclasses import replace

    try:
        import torch

        from cmet_reference.evaluators.train import Settings, train_evaluators
    except ImportError as error:
        raise UserError(f"training needs {error.name}; run `pip install 'cmet-eval[reference]'`") from None
    if not device.startswith(("cpu", "cuda")) or (device.startswith("cuda") and not torch.cuda.is_available()):
        raise UserError(f"no device {device!r} here; use --device cpu")
    settings = Settings(seed=seed)
    if steps:
        settings = replace(settings, syncnet_steps=steps)
    if max_clips:
        settings = replace(settings, max_clips=max_clips)
    for kind, card in train_evaluators(data, out, settings, device, quiet).items():
        held_out = card["held_out"]
        figures = ", ".join(f"{name} {value:.3f}" for name, value in held_out.items() if isinstance(value, float))
        clips, people = held_out["clips"], len(held_out["speakers"])
        print(
            f"{kind}: {card['parameters']} parameters, {card['seconds']:.0f} s on {len(card['trained_on']['clips'])} "
            f"clips; held out, {clips} clips of {people} other speakers: {figures or '-'}"
        )
    print(f"files and cards: {out or data / 'evaluators'}")
