"""Measures a few steps of each stage on a few clips before a training, and estimates the time of the training."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from cmet_pipelines.shards import ShardSet
from cmet_reference.training import checkpoints, config, preflight
from cmet_reference.training.loop import TrainingRun
from cmet_reference.training.models import PACKAGES, StageFactory, make_stage, stage_names, stages_of
from cmet_reference.training.options import TrainOptions
from cmet_reference.training.preflight import Lack
from cmet_reference.training.runtime import repeatable
from cmet_reference.training.stage import ClosedForm, Stage
from talking_face.lines import one_line
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, UserError
from talking_face.scratch import Scratch

CLIPS = 48  # clips of each split that the measurement reads
MEASURED = 3  # steps whose time is measured, spread over the training; one more step comes before them


@dataclass(frozen=True)
class Cost:
    """The measured cost of a stage, or the reason why it was not measured."""

    stage: str
    why_not: str = ""
    steps: int = 0
    step_s: float = 0.0  # mean time of a step, with its batch
    prepare_s: float = 0.0  # time to make the stage from all clips, in proportion to the measured clips
    parameters: int = 0
    device: str = ""
    device_mb: int | None = None  # greatest memory on the GPU

    @property
    def hours(self) -> float:
        """The time for the whole stage."""
        return (self.steps * self.step_s + self.prepare_s) / 3600

    def line(self) -> str:
        """One line for the user."""
        if self.why_not:
            return f"{self.stage}: not measured ({self.why_not})"
        gpu = f", {self.device_mb} MB on the GPU" if self.device_mb is not None else ""
        return (
            f"{self.stage}: about {_duration(self.hours)} on {self.device}: {self.steps} steps of {self.step_s:.3g} s "
            f"({MEASURED} measured), preparation {_duration(self.prepare_s / 3600)}; {self.parameters} parameters{gpu}"
        )


def rehearse(
    model: str,
    settings: str,
    folders: Mapping[str, Path],
    out: Path,
    options: TrainOptions,
    files: ModelFiles,
    only: str = "",
) -> Iterator[Cost]:
    """The costs of the stages, one after another. A stage whose checkpoint is in `out` is not measured.

    The checkpoints of the measured steps are written to a temporary folder. The clips are the first 48 of each split,
    from at least two speakers and with as many emotions as possible.

    Args:
        model, settings, folders, options, files, only: the arguments of `train_model`.
        out: folder of the checkpoints.

    Raises:
        UserError: the settings are wrong.
    """
    chosen = config.load(PACKAGES[model], settings)
    small = replace(options, most_clips=CLIPS, quiet=True, resume=False, workers=0)
    sizes = [len(ShardSet(folder).clips) for folder in folders.values()]
    scale = max(1.0, sum(sizes) / (CLIPS * len(sizes)))
    scratch = Scratch()
    there = scratch.path
    try:
        factories = stages_of(model)(chosen, dict(folders), there, small, files)
        for name, factory in zip(stage_names(model), factories, strict=True):
            trained = out / f"{name}.safetensors"
            if trained.is_file() and options.resume:
                shutil.copy(trained, there)
            elif factory is not None and (not only or name == only):
                yield _measured(name, factory, there, small, scale)
    finally:
        scratch.remove()


def disk_lacks(costs: Mapping[str, Cost], out: Path) -> Iterator[Lack]:
    """The stages whose checkpoints do not fit on the disk."""
    for name, cost in costs.items():
        yield from preflight.disk_lack(name, out, 4 * cost.parameters)


def _measured(name: str, factory: StageFactory, there: Path, options: TrainOptions, scale: float) -> Cost:
    """Makes a stage, measures its steps and writes its checkpoint. `scale`: number of all clips per measured clip."""
    began = time.perf_counter()
    try:
        stage, _ = make_stage(factory, options)
        prepared = time.perf_counter() - began
        if isinstance(stage, ClosedForm):
            return Cost(name, "it has no steps: it is computed in closed form")
        return _steps(stage, there, options, prepared * scale)
    except (UserError, ClipError, ValueError) as error:
        # Errors of a few clips are possibly not errors of all clips, and the training reports its own errors.
        return Cost(name, one_line(error))


def _steps(stage: Stage, there: Path, options: TrainOptions, prepare_s: float) -> Cost:
    with repeatable(options.threads):
        run = TrainingRun(stage, there, options)
        at = np.linspace(0, stage.steps - 1, MEASURED).round().astype(int)
        step_s, device_mb = run.timed([0, *map(int, at)])
        checkpoints.save(there / f"{stage.name}.safetensors", stage.net.state_dict(), stage.record())
        parameters = sum(p.numel() for p in stage.net.parameters())
        return Cost(stage.name, "", stage.steps, step_s, prepare_s, parameters, str(run.accelerator.device), device_mb)


def _duration(hours: float) -> str:
    """A time as text, in seconds, minutes or hours."""
    seconds = 3600 * hours
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{hours:.0f} h"
