"""Train on the training split of a shard set. `evaluators`: a small SyncNet and an emotion classifier, for scoring.
`cmet`, `cem-net`: the reference models, stage by stage; an interrupted stage is resumed, a finished one is kept.

The evaluators' files and cards go to DATA/evaluators, where `run` and `score` on that data find them for the metrics
called `:corpus`. The models' checkpoints, cards and curves go to DATA/reference, where `run` finds them. The same data,
settings and seed give the same files on the CPU. Several GPUs: `accelerate launch -m cmet_eval.cli train ...`.

Examples:
    cmet-eval train evaluators --data work/demo/shards
    cmet-eval train cmet --data work/demo/shards --config adapted
    cmet-eval train cem-net --data work/demo/shards --data lrs2=work/lrs2
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from cmet_eval import completion
from cmet_eval.checks import check_choice, check_device, check_out, check_precision, check_shards
from cmet_eval.commands.options import refuse_unused
from talking_face.logs import write_log_into
from talking_face.packages import require
from talking_face.pretrained.model_files import CHECKPOINTS_FOLDER, EVALUATORS_FOLDER, ModelFiles
from talking_face.reasons import UserError
from talking_face.threads import limit_threads

if TYPE_CHECKING:
    from cmet_reference.training.checkpoints import Card
    from cmet_reference.training.options import TrainOptions


class What(StrEnum):
    """What to train."""

    CMET = "cmet"
    CEM_NET = "cem-net"
    EVALUATORS = "evaluators"


PRECISIONS = ("fp32", "bf16", "fp16")
# Options without effect on a training of evaluators, and of a model.
_OF_MODELS = ("stage", "config", "precision", "workers", "every", "threads", "fresh")
_OF_EVALUATORS = ("steps", "max_clips")
MAIN = "main"  # the name for the shard set that the user gives without a name


# long: typer turns each parameter into a command-line option
def train(
    ctx: typer.Context,
    what: What = typer.Argument(..., metavar="WHAT", help="cmet, cem-net or evaluators"),
    data: list[str] = typer.Option(
        ...,
        "--data",
        metavar="FOLDER",
        help="shard set that `cmet-eval preprocess` wrote; NAME=FOLDER for a second one (cem-net: lrs2=FOLDER)",
    ),
    out: Path = typer.Option(
        None, "--out", metavar="FOLDER", help="folder for the files; default: DATA/reference, DATA/evaluators"
    ),
    seed: int = typer.Option(0, "--seed", min=0, max=2**63 - 1, metavar="N", help="seed of weights and batches"),
    device: str = typer.Option(
        None,
        "--device",
        metavar="NAME",
        autocompletion=completion.one_of("auto", "cpu", "cuda"),
        help="auto, cpu, cuda or cuda:N; evaluators: cpu by default. Only cpu gives the same bytes",
    ),
    stage: str = typer.Option(
        None, "--stage", metavar="NAME", help="models: train this one alone; the ones before it must exist"
    ),
    config: str = typer.Option(
        None,
        "--config",
        metavar="NAME",
        autocompletion=completion.one_of("demo", "adapted", "paper"),
        help="models: demo (default), adapted, paper, or a .toml file that changes one",
    ),
    precision: str = typer.Option(
        None,
        "--precision",
        metavar="NAME",
        autocompletion=completion.one_of(*PRECISIONS),
        help="models: fp32 (default), bf16 or fp16",
    ),
    workers: int = typer.Option(
        None, "--workers", min=0, max=256, metavar="N", help="models: processes that prepare batches; default 0"
    ),
    every: int = typer.Option(
        None, "--every", min=1, metavar="N", help="models: steps between checkpoints; default 1000"
    ),
    threads: int = typer.Option(
        None, "--threads", min=1, max=1024, metavar="N", help="models: threads of torch on the CPU; default 1"
    ),
    fresh: bool = typer.Option(None, "--fresh", help="models: discard earlier results and start again"),
    steps: int = typer.Option(
        None, "--steps", min=2, metavar="N", help="evaluators: steps of the lip-sync network; default 300"
    ),
    max_clips: int = typer.Option(
        None, "--max-clips", min=2, metavar="N", help="evaluators: clips to train on; default 384"
    ),
    quiet: bool = typer.Option(False, "--quiet", help="no progress"),
) -> None:
    refuse_unused(ctx, _OF_MODELS if what is What.EVALUATORS else _OF_EVALUATORS, f"train {what}")
    folders = _folders(data)
    out = out or folders[MAIN] / (EVALUATORS_FOLDER if what is What.EVALUATORS else CHECKPOINTS_FOLDER)
    _check_folders(what, folders, out)
    if what is not What.EVALUATORS:
        # Do this before numpy starts threads, because the number of threads changes the sums in closed-form fits.
        limit_threads(threads or 1)
    if precision is not None:
        check_choice(precision, PRECISIONS, "--precision")
    check_device(device or "auto")
    for package in ("torch", "safetensors"):
        require(package, "training", "reference")
    if what is What.EVALUATORS:
        write_log_into(out)
        _train_evaluators(folders[MAIN], out, seed, steps, max_clips, device or "cpu", quiet)
        return
    if precision == "fp16":
        check_precision(device or "auto")
    from cmet_reference.training.options import TrainOptions

    default = TrainOptions()
    options = TrainOptions(
        seed=seed,
        device=device or default.device,
        precision=precision or default.precision,
        workers=workers or default.workers,
        checkpoint_every=every or default.checkpoint_every,
        threads=threads or default.threads,
        resume=not fresh,
        quiet=quiet,
    )
    _train_model(what, folders, out, config or "demo", stage or "", options)


def _check_folders(what: What, folders: Mapping[str, Path], out: Path) -> None:
    """Raises UserError if a folder is not a shard set, the training takes no second one, or `out` is not writable."""
    if what is What.EVALUATORS and list(folders) != [MAIN]:
        raise UserError("the evaluators are trained on one shard set: --data OUT, without a name")
    for name, folder in folders.items():
        check_shards(folder, "--data" if name == MAIN else f"--data {name}=FOLDER")
    check_out(out, "--out", {"--data": folders[MAIN]})


def _train_model(
    what: What,
    folders: Mapping[str, Path],
    out: Path,
    settings: str,
    only: str,
    options: TrainOptions,
) -> None:
    """Trains a reference model, after a check of all that its stages need.

    Args:
        settings: demo, adapted, paper, or a TOML file.
        only: one stage, or "" for all.
    """
    from cmet_reference.training import config, preflight
    from cmet_reference.training.models import PACKAGES, lacks_of, stage_names, train_model

    if only:
        check_choice(only, stage_names(what), "--stage")
    config.load(PACKAGES[what], settings)
    files = ModelFiles.from_environment(folders[MAIN])
    preflight.refuse(what.value, settings, lacks_of(what.value, settings, folders, files, only))
    write_log_into(out)
    main = int(os.environ.get("RANK", 0)) == 0  # if there are several processes, only the first process prints
    options = replace(options, quiet=options.quiet or not main)
    report = _print_card if main else lambda name, card: None
    if "RANK" not in os.environ:  # several processes would have to measure the same steps at the same time
        _check_costs(what.value, settings, folders, out, options, files, only)
    train_model(what.value, folders, out, settings=settings, only=only, options=options, report=report)
    if main:
        print(f"checkpoints, cards and curves: {out}")


def _check_costs(
    model: str,
    settings: str,
    folders: Mapping[str, Path],
    out: Path,
    options: TrainOptions,
    files: ModelFiles,
    only: str,
) -> None:
    """Print what the training will need: hours, memory and disk, from the measured time of a few steps.

    Raises UserError after that if the disk is too small.
    """
    from cmet_reference.training import preflight, rehearsal

    if options.quiet:
        return
    clips = preflight.clip_bytes(folders) / 1e9
    print(
        f"memory: {clips:.2g} GB for the clips, and the networks; measuring a few steps of each stage", file=sys.stderr
    )
    costs = {}
    for cost in rehearsal.rehearse(model, settings, folders, out, options, files, only):
        costs[cost.stage] = cost
        print(cost.line(), file=sys.stderr, flush=True)
    preflight.refuse(model, settings, rehearsal.disk_lacks(costs, out))


def _folders(given: list[str]) -> dict[str, Path]:
    """Name -> folder, from the values of --data. The folder without a name comes first, as `main`."""
    found: dict[str, Path] = {}
    for value in given:
        named = re.fullmatch(r"([a-z][a-z0-9-]*)=(.+)", value)
        name, folder = (named[1], Path(named[2])) if named else (MAIN, Path(value))
        if name in found:
            other = "without a name" if name == MAIN else f"called {name}"
            raise UserError(f"--data {value}: another set {other} is given already")
        found[name] = folder
    if MAIN not in found:
        raise UserError("one --data must be without a name: --data OUT [--data NAME=OUT2]")
    return {MAIN: found.pop(MAIN), **found}


def _print_card(name: str, card: Card) -> None:
    figures = ", ".join(f"{key} {value:.4g}" for key, value in card["held_out"].items())
    print(
        f"{name}: {card['parameters']} parameters, {card['trained_on']['steps']} steps in {card['seconds']:.0f} s "
        f"({card['samples_per_second']:.0f} samples/s, {card['waiting_share']:.0%} of the time waiting for batches); "
        f"held-out speakers: {figures or '-'}",
        flush=True,
    )


def _train_evaluators(
    data: Path, out: Path, seed: int, steps: int | None, max_clips: int | None, device: str, quiet: bool
) -> None:
    from cmet_reference.evaluators.train import EvaluatorSettings, train_evaluators
    from cmet_reference.training.runtime import resolved

    default = EvaluatorSettings(seed=seed)
    settings = replace(default, syncnet_steps=steps or default.syncnet_steps, max_clips=max_clips or default.max_clips)
    cards = train_evaluators(data, out, settings, resolved(device), quiet)
    for kind, card in cards.items():
        held_out = card["held_out"]
        figures = ", ".join(f"{name} {value:.3f}" for name, value in held_out.items() if isinstance(value, float))
        clips, people = held_out["clips"], len(held_out["speakers"])
        print(
            f"{kind}: {card['parameters']} parameters, {card['seconds']:.0f} s on {len(card['trained_on']['clips'])} "
            f"clips; held out, {clips} clips of {people} other speakers: {figures or '-'}"
        )
    if "emotion" not in cards:
        print("emotion: not trained; the training split shows fewer than two emotions", file=sys.stderr)
    print(f"files and cards: {out}")
