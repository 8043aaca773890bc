"""How fast the loader makes batches of a model's stages from shards, and what share of training waits for it.

    python tests/benchmarks/loader.py SHARDS [--models cmet cem-net] [--config demo] [--stage S] [--workers 0 1 2]

prints a table. A stage that is built on others finds them in SHARDS/reference, so train the models first.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from cmet_reference.training import config, models
from cmet_reference.training.batches import loader
from cmet_reference.training.checkpoints import FOLDER
from cmet_reference.training.loop import fit
from cmet_reference.training.options import TrainOptions
from cmet_reference.training.stage import Stage
from talking_face.pretrained.model_files import ModelFiles
from talking_face.threads import limit_threads


def alone(stage: Stage, workers: int, steps: int) -> float:
    """Samples/s with nobody at work but the loader; its start, with the first batches, does not count."""
    batches = iter(loader(stage, range(steps + 1), workers))
    first = next(batches)
    samples = next(len(array) for array in first.values() if array.ndim)
    began = time.perf_counter()
    for _ in batches:
        pass
    return steps * samples / (time.perf_counter() - began)


def main() -> None:
    given = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    given.add_argument("shards", type=Path)
    given.add_argument("--models", nargs="+", default=list(models.PACKAGES))
    given.add_argument("--config", default="demo")
    given.add_argument("--stage", default="")
    given.add_argument("--steps", type=int, default=20)
    given.add_argument("--workers", nargs="+", type=int, default=[0, 1, 2])
    given.add_argument("--device", default="auto")
    given.add_argument(
        "--alone", action="store_true", help="do not train: for networks that are too large to train here"
    )
    args = given.parse_args()
    limit_threads(1)
    print("| stage | workers | loader alone, samples/s | training, samples/s | of it waiting |\n|---|--:|--:|--:|--:|")
    for model in args.models:
        settings = config.load(models.PACKAGES[model], args.config)
        files = ModelFiles.from_environment()
        options, out = TrainOptions(quiet=True), args.shards / FOLDER
        factories = models.stages_of(model)(settings, {"main": args.shards}, out, options, files)
        for name, factory in zip(models.stage_names(model), factories, strict=True):
            if factory is None or args.stage not in ("", name):
                continue
            stage = factory()  # once: how fast it learns does not depend on what it has learnt
            stage.steps = args.steps
            for workers in args.workers:
                rate = alone(stage, workers, args.steps)
                if args.alone:
                    print(f"| {name} | {workers} | {rate:.0f} | - | - |", flush=True)
                    continue
                with tempfile.TemporaryDirectory() as out:
                    card = fit(stage, Path(out), TrainOptions(workers=workers, device=args.device, quiet=True))
                whole, share = card["samples_per_second"], card["waiting_share"]
                print(f"| {name} | {workers} | {rate:.0f} | {whole:.0f} | {share:.1%} |", flush=True)


if __name__ == "__main__":
    main()
