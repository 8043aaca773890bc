"""Trains variants of C-MET and prints how well each variant predicts the directions of held-out speakers.

`python -m cmet_reference.cmet.ablation DATA references` compares the three kinds of reference tokens: `released`,
`zero` and `predicted`. `python -m cmet_reference.cmet.ablation DATA losses` compares three losses, as Table 6 of the
paper does: the reconstruction loss alone, with the contrastive loss, and with the contrastive loss and the loss for
opposite directions. The columns are the figures of `figures.directions`, each as mean and standard deviation over the
seeds.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cmet_reference.clips import read_clips
from cmet_reference.cmet import speech
from cmet_reference.cmet.train import CMetSettings, CMetStage, codec_of, read_settings
from cmet_reference.training import checkpoints, config
from cmet_reference.training.loop import fit
from cmet_reference.training.options import Provenance, TrainOptions
from talking_face.files import write_text
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

Figures = dict[str, dict[str, list[float]]]  # keys: row, then column; each list has one value per seed


def variants(table: str, settings: CMetSettings) -> dict[str, CMetSettings]:
    """The settings of each row of a table, by the name of the row."""
    if table == "references":
        return {
            name: replace(settings, sampling=replace(settings.sampling, reference=name))
            for name in ("released", "zero", "predicted")
        }
    rows = {"reconstruction": (0.0, 0.0), "+ contrast": (0.1, 0.0), "+ contrast + direction": (0.1, 0.05)}
    return {
        name: replace(settings, losses=replace(settings.losses, contrast=contrast, direction=direction))
        for name, (contrast, direction) in rows.items()
    }


def run(table: str, data: Path, settings: CMetSettings, seeds: Sequence[int], out: Path, quiet: bool = True) -> Figures:
    """Train every row of a table with every seed, and store the trainings in folders below `out`.

    A finished training in such a folder is not repeated.

    Returns:
        one value per seed for each row and column.

    Raises:
        UserError: there is no test split, or no speaker of the test split shows neutral and other emotions.
    """
    train, test = read_clips([data], quiet=quiet), read_clips([data], "test", quiet=quiet)
    files = ModelFiles.from_environment(data)
    with checkpoints.record_loaded() as built_on:
        codec, encoder = codec_of(settings, train, files), speech.make_encoder(settings.speech, files=files)
    figures: Figures = {}
    for row, changed in variants(table, settings).items():
        for seed in seeds:
            stage = CMetStage(changed, codec, encoder, train, test, seed)
            folder = out / table / row.replace(" ", "") / str(seed)
            options = TrainOptions(seed, device="cpu", checkpoint_every=changed.steps, quiet=quiet)
            fit(stage, folder, options, Provenance(asdict(changed), {"main": data}, built_on))
            held_out = stage.held_out()
            if not held_out:
                raise UserError(f"{data}: the table needs held-out speakers who show neutral and other emotions")
            for name, value in held_out.items():
                figures.setdefault(row, {}).setdefault(name, []).append(round(value, 3))
    return figures


def table_of(figures: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The table in Markdown. A cell has the mean and the standard deviation over the seeds."""
    names = list(next(iter(figures.values())))
    lines = ["| | " + " | ".join(names) + " |", "|---|" + "---|" * len(names)]
    for row, values in figures.items():
        cells = [f"{np.mean(values[n]):.3f} ± {np.std(values[n]):.3f}" for n in names]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> Figures:
    """Train the rows of one table and print the table."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cmet.ablation", description=main.__doc__)
    parser.add_argument("data", type=Path, help="a shard set")
    parser.add_argument("table", choices=("references", "losses"))
    parser.add_argument("--config", default="demo", help="demo, adapted, or a TOML file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, help="default: those of the settings")
    parser.add_argument("--out", type=Path, default=Path("work/ablation"))
    args = parser.parse_args(argv)
    try:
        settings = read_settings(config.load("cmet_reference.cmet", args.config))
        settings = replace(settings, steps=args.steps or settings.steps)
        figures = run(args.table, args.data, settings, range(args.seeds), args.out, quiet=False)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(table_of(figures))
    write_text(args.out / f"{args.table}.json", json.dumps(figures, indent=1) + "\n")
    return figures


if __name__ == "__main__":
    main()
