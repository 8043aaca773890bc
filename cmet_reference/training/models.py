"""The reference models by name: their stages, their settings, and the training of all or one of them."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from cmet_reference.training import checkpoints, config
from cmet_reference.training.loop import fit, repeatable
from cmet_reference.training.stage import Stage
from talking_face.reasons import UserError

# Each has `train.STAGES`, the names of its stages in training order, and `train.stages(...)`, a factory for each
# or None where the settings leave it out.
PACKAGES = {"cmet": "cmet_reference.cmet", "cem-net": "cmet_reference.cem_net"}


def stage_names(model: str) -> tuple[str, ...]:
    """The stages of a model, in training order."""
    return tuple(importlib.import_module(f"{PACKAGES[model]}.train").STAGES)


def train_model(
    model: str,
    folders: Mapping[str, Path],
    out: Path | None = None,
    *,
    settings: str = "demo",
    only: str = "",
    seed: int = 0,
    threads: int = 1,
    quiet: bool = False,
    each: Callable[[str, dict[str, Any]], None] = lambda name, card: None,
    **how: Any,
) -> dict[str, dict[str, Any]]:
    """Train a model's stages in order; what is finished already is left as it is.

    Args:
        model: cmet or cem-net.
        folders: shard sets by name, the main one first.
        out: of the files; default: FOLDER/reference of the first, where `checkpoints.look_beside` finds them.
        settings: demo, paper, or the path of a TOML file (see `config.load`).
        only: the name of one stage; the ones before it must be there.
        each: called with a stage's name and card as soon as it is trained.
        how: device, precision, workers, every and resume of `fit`.

    Returns:
        the cards by stage.

    Raises:
        UserError: an unknown stage, and whatever the settings, the data and `fit` find wrong.
    """
    import torch

    package = PACKAGES[model]
    names = stage_names(model)
    if only and only not in names:
        raise UserError(f"{model} has no stage {only!r}; known, in training order: {', '.join(names)}")
    chosen = config.load(package, settings)
    out = out or next(iter(folders.values())) / checkpoints.FOLDER
    make = importlib.import_module(f"{package}.train").stages
    factories: list[Callable[[], Stage] | None] = make(chosen, dict(folders), out, seed, quiet)
    cards = {}
    for name, factory in zip(names, factories, strict=True):
        if only and name != only:
            continue
        if factory is None:  # the settings leave it out
            if only:
                raise UserError(f"the settings {settings} have no stage {only} of {model}; see --config")
            continue
        with repeatable(threads), checkpoints.watch() as built_on:
            torch.manual_seed(seed)
            stage = None  # its clips go before the next one's come
            stage = factory()
        own = chosen.get(stage.name, chosen)  # the table of its name, where the settings have one
        told = {"config": own, "data": folders, "built_on": built_on}
        cards[name] = fit(stage, out, seed=seed, threads=threads, quiet=quiet, **told, **how)
        each(name, cards[name])
    return cards
