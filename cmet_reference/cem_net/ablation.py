"""CEM-Net's Table IV in miniature: what AEE and the memory are for, on held-out speakers, from landmarks.

`python -m cmet_reference.cem_net.ablation DATA --seeds 3` trains the stages of each seed, and the memory twice: with
and without the sound's emotion. Without EBM is the emotion-agnostic face, for which nothing more is trained.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmet_reference.cem_net.train import stages
from cmet_reference.training import config
from cmet_reference.training.loop import fit, repeatable

FIGURES = ("M-LMD", "all points", "emotion")


def run(data: Path, settings: Mapping[str, Any], seeds: Sequence[int], out: Path, quiet: bool = True) -> dict[str, Any]:
    """Train every row with every seed, below `out`; what is finished there is not trained again.

    Returns:
        by row and name, one value a seed. `M-LMD` is the mean distance of lips and jaw and `all points` that of the
        face, in percent of the eyes' distance, pose aside; `emotion` the share of faces in whose mean shape a linear
        discriminant, fitted to the training split, reads the target's emotion.
    """
    deaf = {**settings, "ebm": {**settings["ebm"], "net": {**settings["ebm"].get("net", {}), "audio_emotion": 0}}}
    found: dict[str, dict[str, list[float]]] = {}

    def note(row: str, values: Sequence[float]) -> None:
        for name, value in zip(FIGURES, values, strict=True):
            found.setdefault(row, {}).setdefault(name, []).append(round(float(value), 5))

    for seed in seeds:
        folder = out / str(seed)
        for row, chosen, where, first in (
            ("full", settings, folder, 0),
            ("without AEE", deaf, folder / "without-aee", 2),
        ):
            for index, factory in enumerate(stages(chosen, {"main": data}, folder, seed, quiet)[first:3], start=first):
                assert factory is not None
                with repeatable():
                    stage = factory()
                fit(stage, where, seed=seed, device="cpu", every=stage.steps, quiet=quiet, config={"row": row})
                if index == 2:
                    got = stage.held_out()
                    note(row, [got["mouth"], got["error"], got["emotion"]])
                    if row == "full":
                        note("without EBM", [got["mouth_without"], got["error_without"], got["emotion_without"]])
                        note("source's face, still", [got["mouth_still"], got["error_still"], got["emotion_still"]])
                        note("truth", [0, 0, got["emotion_truth"]])
    return found


def table_of(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown: mean and deviation over the seeds."""
    lines = ["| | " + " | ".join(FIGURES) + " |", "|---|" + "---|" * len(FIGURES)]
    for row, values in found.items():
        digits = {name: 3 if name == "emotion" else 2 for name in FIGURES}
        cells = [f"{np.mean(values[n]):.{digits[n]}f} ± {np.std(values[n]):.{digits[n]}f}" for n in FIGURES]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train the table's rows and print it."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cem_net.ablation", description=main.__doc__)
    parser.add_argument("data", type=Path, help="a shard set")
    parser.add_argument("--config", default="demo", help="paper, demo, or a TOML file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("work/ablation-cem-net"))
    args = parser.parse_args(argv)
    found = run(args.data, config.load("cmet_reference.cem_net", args.config), range(args.seeds), args.out, quiet=False)
    print(table_of(found))
    (args.out / "table.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found


if __name__ == "__main__":
    main()
