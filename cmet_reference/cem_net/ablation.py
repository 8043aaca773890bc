"""Prints Table IV of the CEM-Net paper on a shard set: the model, and models that lack AEE or EBM, as the paper says.

`python -m cmet_reference.cem_net.ablation DATA --seeds 3` trains all networks once per seed. The rows of the paper are:

- "full": AEE and EBM;
- "without AEE": the emotion of the audio is the output of a plain emotion classifier without its softmax;
  With `decision` above 0, as in the demo, the query receives the centres of the emotions instead, weighted by the
  softmax; the paper's row needs `decision = 0`;
- "without EBM": the cross-emotion feature is decoded directly by a landmark decoder that is trained; no memory.

Three more rows are controls: a memory whose query has no emotion of the audio, the lips alone without an emotion, and
the source's face without motion. The figures are computed from the landmarks of held-out speakers. `--pictures N` adds
the metrics `m_lmd:eat-mp` and `ea:corpus` of N videos per row and seed. The mesh renderer draws these videos. For
`--pictures`, train the evaluators first: `cmet-eval train evaluators --data DATA`.
"""

from __future__ import annotations

import argparse
import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import numpy as np

from cmet_metrics.base import Labels, Sample
from cmet_metrics.registry import get_metric
from cmet_pipelines.shards import ShardSet
from cmet_reference.cem_net import aee, audio2mouth, classifier, ebm
from cmet_reference.cem_net.ebm_stage import EbmStage, Pair
from cmet_reference.cem_net.generate import CemNetFace
from cmet_reference.cem_net.train import STAGES, stages
from cmet_reference.render import appearance_stage, skin_stage
from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.training import config, seeds
from cmet_reference.training.config import Table
from cmet_reference.training.loop import fit
from cmet_reference.training.models import StageFactory, make_stage
from cmet_reference.training.options import Provenance, TrainOptions
from cmet_reference.training.stage import Stage
from talking_face.files import write_text
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

LANDMARKS = ("M-LMD", "all points", "emotion")
PICTURES = ("M-LMD, px", "EA")
FULL, LIPS, STILL = "full", "lips alone", "source's face, still"
# The rows that are trained, and how the memory's network differs from the full model.
ROWS: Mapping[str, Table] = {
    FULL: {},
    "without AEE": {"audio": classifier.KIND},
    "without EBM": {"memory": False, "table": False},
    "no emotion in the query": {"audio_emotion": 0},
}
REFERENCES = 5  # reference frames, evenly spaced in the source clip

Figures = dict[str, dict[str, list[float]]]  # keys: row, then column; each list has one value per seed


@dataclass(frozen=True)
class Ablation:
    """Trains the rows of one table, and collects their figures."""

    data: Path
    settings: Table
    out: Path
    pictures: int = 0
    quiet: bool = True
    figures: Figures = field(default_factory=dict)

    @cached_property
    def files(self) -> ModelFiles:
        """The folders in which evaluators and pretrained networks are searched for."""
        return ModelFiles.from_environment(self.data)

    def run(self, numbers: Sequence[int]) -> Figures:
        """Train every row with every seed; see the function `run`."""
        if not (ShardSet(self.data).clips["split"] == "test").any():
            raise UserError(f"{self.data} has no test split, whose speakers the table needs")
        mesh = self._mesh() if self.pictures else MeshRenderer()
        for seed in numbers:
            folder = self.out / str(seed)
            for row, changes in ROWS.items():
                settings = _changed(self.settings, changes)
                where = folder / row.replace(" ", "-")
                memory = self._train_memory(settings, folder, where, seed)
                self._add_landmarks(row, memory)
                if self.pictures:
                    self._add_pictures(row, self._face(folder, where), memory, mesh)
                if row == FULL and self.pictures:
                    self._add_pictures(LIPS, self._face(folder, where, memory=False), memory, mesh)
                    self._add_pictures(STILL, None, memory, mesh)
        return self.figures

    def _face(self, folder: Path, where: Path, memory: bool = True) -> CemNetFace:
        """The model of a row. Its memory is in `where`, the networks that all rows share are in `folder`."""
        for kind in (audio2mouth.KIND, aee.KIND, classifier.KIND):  # `CemNetFace` needs all files in one folder
            path = folder / f"{kind}.safetensors"
            if path.is_file():
                shutil.copyfile(path, where / path.name)
        return CemNetFace(where, memory=memory, files=self.files)

    def _mesh(self) -> MeshRenderer:
        """Train the appearance model, and create the mesh renderer with this model.

        Raises MissingWeights if the evaluators are absent.
        """
        trained_evaluators.find("emotion", self.files)  # raises an error now, not after hours of training
        for kind in (appearance_stage.KIND, skin_stage.KIND):
            self.train(self._factory(kind, self.settings, self.out, 0), self.settings, self.out, 0)
        files = (self.out / f"{kind}.safetensors" for kind in (appearance_stage.KIND, skin_stage.KIND))
        return MeshRenderer(expression=skin_stage.corrected(*files))

    def _train_memory(self, settings: Table, folder: Path, where: Path, seed: int) -> EbmStage:
        """Train the memory into `where`, and the stages before it into `folder`."""
        for kind in (audio2mouth.KIND, aee.KIND, classifier.KIND):
            factory = self._factory(kind, settings, folder, seed)
            if factory is not None:
                self.train(factory, settings, folder, seed)
        return cast(EbmStage, self.train(self._factory(ebm.KIND, settings, folder, seed), settings, where, seed))

    def _factory(self, kind: str, settings: Table, folder: Path, seed: int) -> StageFactory | None:
        """The factory of a stage. It reads the stages before it from `folder`."""
        made = stages(settings, {"main": self.data}, folder, self.options(seed), self.files)
        return dict(zip(STAGES, made, strict=True))[kind]

    def options(self, seed: int) -> TrainOptions:
        """The options of a training on the CPU with this seed."""
        return TrainOptions(seed, device="cpu", quiet=self.quiet)

    def train(self, factory: StageFactory | None, settings: Table, out: Path, seed: int) -> Stage:
        """Train a stage on the CPU, like `cmet-eval train`. A finished stage with the same settings is not repeated."""
        assert factory is not None
        options = self.options(seed)
        stage, built_on = make_stage(factory, options)
        own = settings.get(stage.name, settings.get(aee.KIND))  # the classifier has the settings of AEE
        assert isinstance(own, Mapping)
        options = replace(options, checkpoint_every=max(1, stage.steps))
        fit(stage, out, options, Provenance(own, {"main": self.data}, built_on))
        return stage

    def _held_out(self, memory: EbmStage) -> Mapping[str, float]:
        figures = memory.held_out()
        if "emotion_truth" not in figures:
            raise UserError(f"{self.data}: the table needs held-out speakers who show neutral and other emotions")
        return figures

    def _add_landmarks(self, row: str, memory: EbmStage) -> None:
        """Add the figures of a row; with the full model also the rows that have no network of their own."""
        figures = self._held_out(memory)
        self._add(row, LANDMARKS, [figures[name] for name in ("mouth", "error", "emotion")])
        if row == FULL:
            for other, suffix in ((LIPS, "_without"), (STILL, "_still")):
                self._add(other, LANDMARKS, [figures[name + suffix] for name in ("mouth", "error", "emotion")])
            self._add("truth", LANDMARKS, [0, 0, figures["emotion_truth"]])

    def _add_pictures(self, row: str, face: CemNetFace | None, memory: EbmStage, mesh: MeshRenderer) -> None:
        chosen = memory.held_pairs[:: max(1, len(memory.held_pairs) // self.pictures)][: self.pictures]
        self._add(row, PICTURES, score_pictures(face, chosen, self.data, mesh, self.files))

    def _add(self, row: str, columns: Sequence[str], values: Sequence[float]) -> None:
        for column, value in zip(columns, values, strict=True):
            self.figures.setdefault(row, {}).setdefault(column, []).append(round(float(value), 5))


def _changed(settings: Table, changes: Table) -> Table:
    """The same settings with other values of the memory's network."""
    memory = cast(Table, settings["ebm"])
    return {**settings, "ebm": {**memory, "net": {**cast(Table, memory.get("net", {})), **changes}}}


def run(
    data: Path, settings: Table, numbers: Sequence[int], out: Path, pictures: int = 0, quiet: bool = True
) -> Figures:
    """Train every row with every seed, and store the trainings in folders below `out`.

    A finished training in such a folder is not repeated.

    Args:
        numbers: the seeds.
        pictures: number of held-out targets that are drawn and scored for each row and seed.

    Returns:
        one value per seed for each row and column. Column `M-LMD` is the mean distance of the points of lips and jaw
        from the truth, and `all points` is the mean distance of all points. These distances are in percent of the eye
        distance, in the head's frame. `emotion` is the share of faces whose mean shape shows the target emotion. A
        linear discriminant decides this; it is fitted to the training split. With `pictures`, there are also the
        columns `M-LMD, px` and `EA`: the means of `m_lmd:eat-mp` and `ea:corpus`.

    Raises:
        MissingWeights: `pictures` is given, and the evaluators are absent.
        UserError: there is no test split, or no speaker of the test split shows neutral and other emotions.
    """
    return Ablation(data, settings, out, pictures, quiet).run(numbers)


def score_pictures(
    face: CemNetFace | None, pairs: Sequence[Pair], data: Path, mesh: MeshRenderer, files: ModelFiles
) -> list[float]:
    """Draws a video for each pair, and returns the mean of each metric of PICTURES over these videos.

    Args:
        face: the model; None scores videos that only repeat the first frame of the source clip.
    """
    shards, rows = ShardSet(data), []
    metrics = [get_metric(key, files) for key in ("m_lmd:eat-mp", "ea:corpus")]
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


def table_of(rows: Mapping[str, Mapping[str, Sequence[float]]]) -> str:
    """The figures, and the full model's figures minus those of each row, in Markdown; see `seeds.compared`."""
    figures = [*LANDMARKS, *(PICTURES if any("EA" in values for values in rows.values()) else ())]
    return seeds.compared(FULL, {n: 3 if n in ("emotion", "EA") else 2 for n in figures}, rows, ("truth",))


def main(argv: Sequence[str] | None = None) -> Figures:
    """Train the table's rows and print the table."""
    parser = argparse.ArgumentParser(prog="python -m cmet_reference.cem_net.ablation", description=main.__doc__)
    parser.add_argument("data", type=Path, help="a shard set")
    parser.add_argument("--config", default="demo", help="demo, adapted, or a TOML file")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--pictures", type=int, default=0, help="videos to draw and score per row and seed")
    parser.add_argument("--out", type=Path, default=Path("work/ablation-cem-net"))
    args = parser.parse_args(argv)
    try:
        settings = config.load("cmet_reference.cem_net", args.config)
        found = run(args.data, settings, range(args.seeds), args.out, args.pictures, quiet=False)
    except UserError as error:
        parser.exit(2, f"{error}\n")
    print(table_of(found))
    write_text(args.out / "table.json", json.dumps(found, indent=1) + "\n")
    return found


if __name__ == "__main__":
    main()
