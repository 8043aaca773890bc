"""CEM-Net's Table IV in miniature: what AEE and the memory are for, on held-out speakers.

`python -m cmet_reference.cem_net.ablation DATA --seeds 3` trains the stages of each seed, and the memory twice: with
and without the sound's emotion. Without EBM is the emotion-agnostic face, for which nothing more is trained. Figures
are of landmarks; with `--pictures N` also of N videos a row and seed, drawn by the mesh, by the metrics `m_lmd:eat-mp`
and `ea:corpus` (evaluators trained on DATA before: `cmet-eval train evaluators --data DATA`).
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from cmet_metrics.base import Labels, Sample
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import ShardSet
from cmet_reference.cem_net.ebm_stage import Pair
from cmet_reference.cem_net.generate import CemNetFace
from cmet_reference.cem_net.train import stages
from cmet_reference.render import appearance_stage, skin_stage
from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.training import checkpoints, config
from cmet_reference.training.loop import fit, repeatable
from talking_face.pretrained import corpus_nets
from talking_face.reasons import UserError

LANDMARKS = ("M-LMD", "all points", "emotion")
PICTURES = ("M-LMD, px", "EA")
REFERENCES = 5  # frames of the source clip, evenly spread


def run(
    data: Path, settings: Mapping[str, Any], seeds: Sequence[int], out: Path, pictures: int = 0, quiet: bool = True
) -> dict[str, Any]:
    """Train every row with every seed, below `out`; what is finished there is not trained again.

    Args:
        pictures: targets, of those held out, that are drawn for each row and seed.

    Returns:
        by row and name, one value a seed. `M-LMD` is the mean distance of lips and jaw and `all points` that of the
        face, in percent of the eyes' distance, pose aside; `emotion` the share of faces in whose mean shape a linear
        discriminant, fitted to the training split, reads the target's emotion. With `pictures`, `M-LMD, px` and `EA`
        are the metrics' means.

    Raises:
        MissingWeights: pictures are asked for, and there are no evaluators.
        UserError: no test split, or nobody in it who shows neutral and other emotions.
    """
    deaf = {**settings, "ebm": {**settings["ebm"], "net": {**settings["ebm"].get("net", {}), "audio_emotion": 0}}}
    found: dict[str, dict[str, list[float]]] = {}

    def note(row: str, values: Sequence[float], names: Sequence[str] = LANDMARKS) -> None:
        for name, value in zip(names, values, strict=True):
            found.setdefault(row, {}).setdefault(name, []).append(round(float(value), 5))

    if not (ShardSet(data).clips["split"] == "test").any():
        raise UserError(f"{data} has no test split, whose speakers the table is of")
    mesh = MeshRenderer()
    if pictures:
        corpus_nets.look_beside(data)
        corpus_nets.find("emotion")  # missed now, not after hours of training
        for factory in stages(settings, {"main": data}, out, 0, quiet)[3:5]:
            trained(factory, out, settings, data, 0, quiet)
        files = (out / f"{kind}.safetensors" for kind in (appearance_stage.KIND, skin_stage.KIND))
        mesh = MeshRenderer(expression=skin_stage.corrected(*files))
    for seed in seeds:
        folder = out / str(seed)
        for row, chosen, where, first in (
            ("full", settings, folder, 0),
            ("without AEE", deaf, folder / "without-aee", 2),
        ):
            for index, factory in enumerate(stages(chosen, {"main": data}, folder, seed, quiet)[first:3], start=first):
                stage = trained(factory, where, chosen, data, seed, quiet)
                if index == 2:
                    got = stage.held_out()
                    if "emotion_truth" not in got:
                        raise UserError(
                            f"{data}: the table needs held-out speakers who show neutral and other emotions"
                        )
                    note(row, [got["mouth"], got["error"], got["emotion"]])
                    if row == "full":
                        note("without EBM", [got["mouth_without"], got["error_without"], got["emotion_without"]])
                        note("source's face, still", [got["mouth_still"], got["error_still"], got["emotion_still"]])
                        note("truth", [0, 0, got["emotion_truth"]])
                    if not pictures:
                        continue
                    if row != "full":  # a face needs all of its files in one folder
                        shutil.copyfile(folder / "audio2mouth.safetensors", where / "audio2mouth.safetensors")
                    chosen_pairs = stage.held[:: max(1, len(stage.held) // pictures)][:pictures]
                    note(row, drawn(CemNetFace(where), chosen_pairs, data, mesh), PICTURES)
                    if row == "full":
                        note("without EBM", drawn(CemNetFace(where, memory=False), chosen_pairs, data, mesh), PICTURES)
                        note("source's face, still", drawn(None, chosen_pairs, data, mesh), PICTURES)
    return found


def trained(
    factory: Callable[[], Any] | None, out: Path, settings: Mapping[str, Any], data: Path, seed: int, quiet: bool
) -> Any:
    """A stage that is finished, as `cmet-eval train` would on the CPU; what was with other settings is not kept."""
    assert factory is not None
    with repeatable(), checkpoints.watch() as built_on:
        stage = factory()
    told = {"config": settings[stage.name], "data": {"main": data}, "built_on": built_on}
    fit(stage, out, seed=seed, device="cpu", every=max(1, stage.steps), quiet=quiet, **told)
    return stage


def drawn(face: CemNetFace | None, pairs: Sequence[Pair], data: Path, mesh: MeshRenderer) -> list[float]:
    """Means of PICTURES' metrics over videos of the pairs' targets; without a model the source's first frame stays."""
    shards, metrics, rows = ShardSet(data), [get_metric("m_lmd:eat-mp"), get_metric("ea:corpus")], []
    for pair in pairs:
        target, source = pair.face.clip, pair.source
        n = len(target)
        held = np.minimum(np.arange(n), len(source) - 1) if face else np.zeros(n, int)
        video = base = shards.frames(source.clip_id)[held]
        if face is not None:
            take = np.linspace(0, len(source) - 1, REFERENCES).round().astype(int)
            known, known_frames = source.landmarks[take], shards.frames(source.clip_id, list(take))
            points = face.landmarks(target.audio, known, source.landmarks, n, known_frames, source.blendshapes[take])
            video = mesh.frames(points, known_frames, known, base, source.landmarks[held])
        labels = Labels(str(target.emotion), str(source.emotion), target.speaker)
        truth = Sample(shards.frames(target.clip_id)[:n], name=target.clip_id, audio=target.audio)
        scores = [metric.score(Sample(video, name="drawn", labels=labels), truth) for metric in metrics]
        rows.append([np.nan if score.value is None else score.value for score in scores])
    return [float(value) for value in np.nanmean(rows, axis=0)]


def table_of(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """Markdown: mean and deviation over the seeds."""
    figures = [*LANDMARKS, *(PICTURES if any("EA" in values for values in found.values()) else ())]
    lines = ["| | " + " | ".join(figures) + " |", "|---|" + "---|" * len(figures)]
    for row, values in found.items():
        digits = {name: 3 if name in ("emotion", "EA") else 2 for name in figures}
        cells = [
            f"{np.mean(values[n]):.{digits[n]}f} ± {np.std(values[n]):.{digits[n]}f}" if n in values else ""
            for n in figures
        ]
        lines.append(f"| {row} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Train the table's rows and print it."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cem_net.ablation", description=main.__doc__)
    parser.add_argument("data", type=Path, help="a shard set")
    parser.add_argument("--config", default="demo", help="paper, demo, or a TOML file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=0, help="videos a row and seed that are drawn and scored")
    parser.add_argument("--out", type=Path, default=Path("work/ablation-cem-net"))
    args = parser.parse_args(argv)
    try:
        settings = config.load("cmet_reference.cem_net", args.config)
        found = run(args.data, settings, range(args.seeds), args.out, args.pictures, quiet=False)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(table_of(found))
    (args.out / "table.json").write_text(json.dumps(found, indent=1) + "\n", "utf-8")
    return found


if __name__ == "__main__":
    main()
