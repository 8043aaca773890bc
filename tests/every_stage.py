"""Trains each stage of each configuration for two steps, with and without a test split, and prints one line a stage.

    python -m tests.every_stage              # draws and preprocesses a MEAD and an LRS2 tree first; about ten minutes
    python -m tests.every_stage OUT LRS2     # on these shard sets

The test split is the last speaker of each set, whatever the set's own split is.

A line states `passed`, or `refused` and what is absent. A stage that raises another error than a UserError or ClipError
has a line with `FAILED`, and the exit status is 1. Batches have two samples, so that the sizes of `paper` run on a CPU.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from cmet_pipelines.shards import CARD, CLIPS, SHARDS, ShardSet
from cmet_reference.training import config
from cmet_reference.training.models import PACKAGES, lacks_of, stage_names, stages_of, train_stage
from cmet_reference.training.options import TrainOptions
from talking_face.files import write_bytes
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, UserError
from talking_face.sealed import read_sealed_table, write_sealed_table

CONFIGS = ("demo", "adapted", "paper")
# Settings that are replaced, wherever they occur: two steps, two samples, and few drawn pictures.
SMALL: Mapping[str, int] = {"steps": 2, "pretrain_steps": 1, "batch": 2, "warm_up": 1, "drawn": 16, "held_drawn": 2}
DRAWN = {"mead": ("--speakers", "3", "--takes", "1"), "lrs2": ("--speakers", "4", "--takes", "2")}


def lines(folders: Mapping[str, Path], out: Path, configs: Sequence[str] = CONFIGS) -> Iterator[str]:
    """One line for each stage of each model and configuration. `out`: an empty folder for the checkpoints."""
    files = ModelFiles.from_environment(next(iter(folders.values())))
    for name in configs:
        for model in ("cem-net", "cmet"):
            absent: dict[str, list[str]] = {}
            for lack in lacks_of(model, name, folders, files):
                absent.setdefault(lack.stage, []).append(str(lack))
            for stage, result in _results(model, name, folders, out / name, files, absent):
                yield f"{name} {model} {stage}: {result}"


def _results(
    model: str,
    name: str,
    folders: Mapping[str, Path],
    out: Path,
    files: ModelFiles,
    absent: Mapping[str, Sequence[str]],
) -> Iterator[tuple[str, str]]:
    chosen = small(config.load(PACKAGES[model], name))
    options = TrainOptions(quiet=True, device="cpu", resume=False)
    factories = stages_of(model)(chosen, dict(folders), out, options, files)
    for stage, factory in zip(stage_names(model), factories, strict=True):
        if factory is None:
            continue
        if stage in absent:
            yield stage, f"refused: {'; '.join(line.partition(': ')[2] for line in absent[stage])}"
            continue
        try:
            card = train_stage(factory, out, chosen, folders, options)
            yield stage, f"passed, {card['trained_on']['steps']} steps, {len(card['held_out'])} held-out figures"
        except (UserError, ClipError) as error:
            yield stage, f"refused: {' '.join(str(error).split())}"
        except Exception as error:
            yield stage, f"FAILED: {type(error).__name__}: {error}"


def small(table: Mapping[str, object]) -> dict[str, object]:
    """Settings with the values of SMALL."""
    out: dict[str, object] = {}
    for key, value in table.items():
        out[key] = small(value) if isinstance(value, Mapping) else SMALL.get(key, value)
    if isinstance(renderer := out.get("renderer"), dict):  # its file leaves most keys at their defaults
        out["renderer"] = {**renderer, "steps": 2, "batch": 2, "warm_up": 1}
    return out


def split_again(folder: Path, to: Path, held_out: int) -> Path:
    """A copy of a shard set in which the last `held_out` speakers are the test split. The shards are links."""
    to.mkdir(parents=True)
    (to / SHARDS).symlink_to((folder / SHARDS).resolve())
    write_bytes(to / CARD, (folder / CARD).read_bytes())
    table = read_sealed_table(folder / CLIPS, "")
    speakers = table["speaker"].to_pylist()
    test = set(sorted(set(speakers))[len(set(speakers)) - held_out :])
    column = table.schema.get_field_index("split")
    split = ["test" if speaker in test else "train" for speaker in speakers]
    made = type(table["split"].combine_chunks()).from_pandas(split)
    write_sealed_table(table.set_column(column, table.schema.field(column), [made]), to / CLIPS)
    assert bool(len(ShardSet(to).clips.query("split == 'test'"))) == bool(held_out)
    return to


def drawn(place: Path) -> dict[str, Path]:
    """Shard sets of a drawn MEAD tree and a drawn LRS2 tree."""
    folders = {}
    for layout, words in DRAWN.items():
        tree, shards = place / f"{layout}-tree", place / layout
        command = [str(Path(sys.executable).with_name("cmet-eval"))]
        subprocess.run([*command, "synth", layout, str(tree), "--seconds", "1.2", *words], check=True)
        subprocess.run([*command, "preprocess", layout, str(tree), str(shards)], check=True)
        folders["main" if layout == "mead" else layout] = shards
    return folders


def main(words: Sequence[str]) -> int:
    with tempfile.TemporaryDirectory() as place:
        folders = dict(zip(("main", "lrs2"), map(Path, words), strict=False)) or drawn(Path(place))
        failed = False
        for title, held_out in (("with", 1), ("without", 0)):
            given = {
                name: split_again(folder, Path(place) / title / name, held_out) for name, folder in folders.items()
            }
            for line in lines(given, Path(place) / "out" / title):
                print(f"{title} a test split: {line}", flush=True)
                failed |= ": FAILED: " in line
    return int(failed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
