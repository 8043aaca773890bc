"""Trains variants of C-MET and prints how well each variant predicts the directions of held-out speakers.

`python -m cmet_reference.cmet.ablation DATA references` compares the three kinds of reference tokens: `released`,
`zero` and `predicted`. `python -m cmet_reference.cmet.ablation DATA losses` compares three losses, as Table 6 of the
paper does: the reconstruction loss alone, with the contrastive loss, and with the contrastive loss and the loss for
opposite directions. The columns are the figures of `figures.directions`. A cell has the mean and half the width of the
95 % interval over the seeds. `--pictures N` adds `EA` and `Sync`, the metrics `ea:corpus` and `lse_c:corpus` of N
videos per row and seed: neutral clips of held-out speakers that are changed to another emotion, with their own sound,
as in the paper. For `--pictures`, run `cmet-eval train evaluators --data DATA` and `cmet-eval train cem-net --data
DATA` first: the videos need the evaluators, Audio2Mouth, and the appearance of the mesh renderer.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from cmet_metrics.base import Labels, Sample
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import ClipArrays, read_clips
from cmet_reference.cmet import speech
from cmet_reference.cmet.codec import Face
from cmet_reference.cmet.generate import CMetFace
from cmet_reference.cmet.speech import Utterances
from cmet_reference.cmet.train import CMetSettings, CMetStage, codec_of, read_settings
from cmet_reference.render import appearance_stage, skin_stage
from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.training import checkpoints, config, seeds
from cmet_reference.training.loop import fit
from cmet_reference.training.options import Provenance, TrainOptions
from talking_face.files import write_text
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

MESH = (appearance_stage.KIND, skin_stage.KIND)
POOL = 10  # utterances per pool, as in C-MET's inference
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


def run(
    table: str, data: Path, settings: CMetSettings, numbers: Sequence[int], out: Path, pictures: int = 0
) -> Figures:
    """Train every row of a table with every seed, and store the trainings in folders below `out`.

    A finished training in such a folder is not repeated.

    Args:
        numbers: the seeds.
        pictures: number of held-out clips that are drawn and scored for each row and seed.

    Returns:
        one value per seed for each row and column.

    Raises:
        MissingWeights: `pictures` is given, and the evaluators or networks that draw are absent.
        UserError: there is no test split, or no speaker of the test split shows neutral and other emotions.
    """
    train, test = read_clips([data], quiet=False), read_clips([data], "test", quiet=False)
    files = ModelFiles.from_environment(data)
    drawn = Drawn(test, data, files, pictures) if pictures else None
    with checkpoints.record_loaded() as built_on:
        codec, encoder = codec_of(settings, train, files), speech.make_encoder(settings.speech, files=files)
    found: Figures = {}
    for row, changed in variants(table, settings).items():
        for seed in numbers:
            stage = CMetStage(changed, codec, encoder, train, test, seed)
            folder = out / table / row.replace(" ", "") / str(seed)
            options = TrainOptions(seed, device="cpu", checkpoint_every=changed.steps)
            fit(stage, folder, options, Provenance(asdict(changed), {"main": data}, built_on))
            held_out = dict(stage.held_out())
            if not held_out:
                raise UserError(f"{data}: the table needs held-out speakers who show neutral and other emotions")
            if drawn is not None:
                held_out |= drawn.scores(CMetFace(folder, renderer=drawn.mesh, files=files))
            for name, value in held_out.items():
                found.setdefault(row, {}).setdefault(name, []).append(round(value, 3))
    return found


class Drawn:
    """Neutral clips of held-out speakers, and the emotions that they are changed to."""

    def __init__(self, test: Sequence[ClipArrays], data: Path, files: ModelFiles, count: int) -> None:
        """Raises MissingWeights if an evaluator or a network that draws is absent."""
        self.shards = ShardSet(data)
        self.metrics = {"EA": get_metric("ea:corpus", files), "Sync": get_metric("lse_c:corpus", files)}
        for kind in ("emotion", "syncnet"):
            trained_evaluators.find(kind, files)  # raises an error now, not after the training
        checkpoints.find("audio2mouth", files)
        self.mesh = MeshRenderer(expression=skin_stage.corrected(*(checkpoints.find(k, files) for k in MESH)))
        self.pools: dict[str, list[ClipArrays]] = {}
        for clip in sorted(test, key=lambda c: -(c.intensity or 0)):
            if clip.emotion is not None:
                self.pools.setdefault(clip.emotion, []).append(clip)
        self.cases = cases_of(self.pools, count)

    def scores(self, face: CMetFace) -> dict[str, float]:
        """The mean of each metric over the videos."""
        rows = []
        for source, emotion in self.cases:
            video = self._video(face, source, emotion)
            sample = Sample(video, name="drawn", audio=source.audio, labels=Labels(emotion, "neutral", source.speaker))
            found = [metric.score(sample, sample) for metric in self.metrics.values()]
            rows.append([np.nan if score.value is None else score.value for score in found])
        return dict(zip(self.metrics, np.nanmean(rows, axis=0).tolist(), strict=True))

    def _video(self, face: CMetFace, source: ClipArrays, emotion: str) -> np.ndarray:
        frames = self.shards.frames(source.clip_id)[: len(source)]
        emotional, neutral = (Utterances([c.audio for c in self.pools[e][:POOL]]) for e in (emotion, "neutral"))
        face_of = Face(None, source.landmarks, source.blendshapes)
        points = face.landmarks(source.audio, face_of, emotional, neutral, Utterances([source.audio]), len(source))
        take = np.linspace(0, len(source) - 1, 5).round().astype(int)
        return self.mesh.frames(points, frames[take], source.landmarks[take], frames, source.landmarks)


def cases_of(pools: Mapping[str, Sequence[ClipArrays]], count: int) -> list[tuple[ClipArrays, str]]:
    """`count` neutral clips with an emotion to change them to, drawn with a fixed seed from all combinations."""
    emotions = [emotion for emotion in pools if emotion != "neutral"]
    wanted = [(source, emotion) for source in pools.get("neutral", ()) for emotion in emotions]
    # Not every n-th combination: a multiple of the number of emotions would take one emotion only.
    return [wanted[i] for i in sorted(np.random.default_rng(0).permutation(len(wanted))[:count])]


def table_of(found: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The figures, and the figures of the last row minus those of each row, in Markdown; see `seeds.compared`."""
    names = list(next(iter(found.values())))
    return seeds.compared(list(found)[-1], dict.fromkeys(names, 3), found)


def main(argv: Sequence[str] | None = None) -> Figures:
    """Train the rows of one table and print the table."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cmet.ablation", description=main.__doc__)
    parser.add_argument("data", type=Path, help="a shard set")
    parser.add_argument("table", choices=("references", "losses"))
    parser.add_argument("--config", default="demo", help="demo, adapted, or a TOML file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=0, help="videos to draw and score per row and seed")
    parser.add_argument("--steps", type=int, help="default: those of the settings")
    parser.add_argument("--out", type=Path, default=Path("work/ablation"))
    args = parser.parse_args(argv)
    try:
        settings = read_settings(config.load("cmet_reference.cmet", args.config))
        settings = replace(settings, steps=args.steps or settings.steps)
        found = run(args.table, args.data, settings, range(args.seeds), args.out, args.pictures)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(table_of(found))
    write_text(args.out / f"{args.table}.json", json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
