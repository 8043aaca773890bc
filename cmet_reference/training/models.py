"""Trains a reference model by its name: all its stages in order, or a single stage."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Protocol

from cmet_reference.training import checkpoints, config, preflight
from cmet_reference.training.checkpoints import Card
from cmet_reference.training.loop import fit
from cmet_reference.training.options import Provenance, TrainOptions
from cmet_reference.training.preflight import Lack
from cmet_reference.training.runtime import repeatable
from cmet_reference.training.stage import Stage
from talking_face.files import check_writable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

# The package of each model. A package has a module `train` with two members: `STAGES`, the names of the stages in
# training order, and `stages`, a function of the type `StagesOf`.
PACKAGES = {"cmet": "cmet_reference.cmet", "cem-net": "cmet_reference.cem_net"}

StageFactory = Callable[[], Stage]


class LacksOf(Protocol):
    """The type of the function `lacks` in the module `needs` of a model's package."""

    def __call__(
        self, config: Mapping[str, object], folders: Mapping[str, Path], files: ModelFiles, paper: bool
    ) -> Iterable[Lack]:
        """Everything that is absent for the stages in these settings. `paper`: also require the paper's data."""
        ...


class StagesOf(Protocol):
    """The type of the function `stages` in the module `train` of a model's package."""

    def __call__(
        self,
        config: Mapping[str, object],
        folders: Mapping[str, Path],
        out: Path,
        options: TrainOptions,
        files: ModelFiles,
    ) -> list[StageFactory | None]:
        """A factory for each stage of STAGES; None for a stage that the settings leave out."""
        ...


def stage_names(model: str) -> tuple[str, ...]:
    """The names of a model's stages, in training order."""
    return tuple(importlib.import_module(f"{PACKAGES[model]}.train").STAGES)


def stages_of(model: str) -> StagesOf:
    """The function that returns the stage factories of a model."""
    made: StagesOf = importlib.import_module(f"{PACKAGES[model]}.train").stages
    return made


def lacks_of(
    model: str, settings: str, folders: Mapping[str, Path], files: ModelFiles, only: str = ""
) -> Iterator[Lack]:
    """Everything that is absent for the training of a model, one entry for each thing and stage.

    Args:
        model: cmet or cem-net.
        settings: see `train_model`. With `paper` or a file whose base is `paper`, the data of the paper are needed too.
        folders: shard sets by name, the main one first.
        files: the folders in which pretrained files are searched for.
        only: look only at this stage.
    """
    needs: LacksOf = importlib.import_module(f"{PACKAGES[model]}.needs").lacks
    paper = config.base_of(settings) == "paper"
    found = needs(config.load(PACKAGES[model], settings), dict(folders), files, paper)
    yield from (lack for lack in found if not only or lack.stage == only)
    yield from preflight.memory_lacks(folders)


def train_model(
    model: str,
    folders: Mapping[str, Path],
    out: Path | None = None,
    *,
    settings: str = "demo",
    only: str = "",
    options: TrainOptions | None = None,
    report: Callable[[str, Card], None] = lambda name, card: None,
    files: ModelFiles | None = None,
) -> dict[str, Card]:
    """Train a model's stages in order. A stage that was already trained with the same settings is kept.

    Args:
        model: cmet or cem-net.
        folders: shard sets by name, the main one first.
        out: folder of the checkpoints; default: the folder `reference` in the main shard set, where evaluation runs
            search for checkpoints.
        settings: demo, adapted, paper, or the path of a TOML file (see `config.load`).
        only: train only this stage; the checkpoints of the stages before it must exist.
        options: how to train.
        report: called after each stage, with its name and card.
        files: the folders in which pretrained files and earlier checkpoints are searched for. None: the folders that
            the environment variables name, then the folder of the main shard set.

    Returns:
        the cards by stage.

    Raises:
        UserError: the stage is unknown; the settings are wrong; a stage lacks something (see `lacks_of`);
            the data cannot be used; and the errors of `fit`.
    """
    options = options or TrainOptions()
    names = stage_names(model)
    if only and only not in names:
        raise UserError(f"{model} has no stage {only!r}; known, in training order: {', '.join(names)}")
    chosen = config.load(PACKAGES[model], settings)
    main = next(iter(folders.values()))
    out, files = out or main / checkpoints.FOLDER, files or ModelFiles.from_environment(main)
    preflight.refuse(model, settings, lacks_of(model, settings, folders, files, only))
    factories = stages_of(model)(chosen, dict(folders), out, options, files)
    cards = {}
    for name, factory in zip(names, factories, strict=True):
        if only and name != only:
            continue
        if factory is None:  # the settings have no such stage
            if only:
                raise UserError(f"the settings {settings} have no stage {only} of {model}; see --config")
            continue
        if not options.resume or not (out / f"{name}.safetensors").is_file():
            check_writable(out)  # a stage reads its clips for minutes before `fit` checks the folder
        cards[name] = train_stage(factory, out, chosen, folders, options)
        report(name, cards[name])
    return cards


def train_stage(
    factory: StageFactory, out: Path, config: Mapping[str, object], folders: Mapping[str, Path], options: TrainOptions
) -> Card:
    """Create a stage and train it. Its checkpoint records the revisions of all checkpoints that the stage loads.

    Args:
        config: all settings of the model. If these settings have a table with the name of the stage, only this table is
            recorded.
    """
    stage, built_on = make_stage(factory, options)
    own = config.get(stage.name, config)
    assert isinstance(own, Mapping)
    return fit(stage, out, options, Provenance(own, folders, built_on))


def make_stage(factory: StageFactory, options: TrainOptions) -> tuple[Stage, Mapping[str, str]]:
    """Create a stage with the seed and the number of threads in the options.

    Returns the stage, and the revisions of the checkpoints that the stage loaded, by kind.
    """
    import torch

    with repeatable(options.threads), checkpoints.record_loaded() as built_on:
        torch.manual_seed(options.seed)
        return factory(), built_on
