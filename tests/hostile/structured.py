"""Hands damaged TOML, JSON, CSV, Parquet and safetensors files, and impossible options, to the commands.

    python -m tests.hostile.structured --tries 3000 --seed 1

Every try damages one file of a valid example (tests/hostile/mutate.py) and runs a command that reads the file, in a
fork of this process with a time limit and a memory limit. A try is silently wrong if the command wrote outside its
output folder, changed an input, or ended with status 0 although a strict reader must refuse the file.
`--kind NAME` runs one kind only and can be repeated. `--only N` runs one try of the kind and prints its output. After
Ctrl-C, the table has the tries up to this moment.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.hostile import mutate
from tests.hostile.forked import call, command
from tests.hostile.mutate import Damage
from tests.hostile.structured_kinds import KINDS, NUMBERS_AS_TEXT, OPTIONS, SMALL, SMALL_KINDS, Kind
from tests.hostile.tally import Ended, Tally, report
from tests.hostile.world import DATA, write_world

DEADLINE_S = 60.0  # a valid command takes 0.1 to 6 s on an idle machine


def choose(kind: Kind, rng: random.Random, folder: Path) -> tuple[Sequence[str], Damage]:
    """Damages one file of the kind in `folder`. Returns the command that reads the file, and the damage."""
    if kind.name == "options":
        words = rng.choice(OPTIONS)
        value = rng.choice((*NUMBERS_AS_TEXT, *(text for text in mutate.TEXTS if "\0" not in text)))
        return [*words, value], Damage(f"... {' '.join(words[-1:])} {value[:40]!r}")
    pattern = rng.choice(kind.files)
    path = rng.choice(sorted(path for path in folder.glob(pattern) if path.is_file()))
    reads = [words for words in kind.commands if pattern.split("/")[0] in words or len(kind.commands) < 3]
    words = rng.choice(reads or kind.commands)
    if "--config" in words or words[0] == "train":
        # A number of steps that is only large is not an error, but the training would not end.
        done = _not_large(path, rng)
    else:
        done = mutate.damage(path, rng)
    shown = str(path.relative_to(folder))
    return [shown if word == "FILE" else word for word in words], Damage(f"{shown}: {done.about}", done.illegal)


def _not_large(path: Path, rng: random.Random) -> Damage:
    data = path.read_bytes() if path.is_file() else b""
    while True:
        done = mutate.damage(path, rng)
        if not any(word in done.about for word in ("steps = ", "layers = ", "width = ", "batch = ")):
            return done
        if "-" in done.about.partition(" = ")[2] or "'" in done.about or "0.5" in done.about or "[" in done.about:
            return done
        path.write_bytes(data)


class World:
    """The valid example, and the folder in which every try gets its copy. An existing example is used again."""

    def __init__(self, template: Path, place: Path, small: bool = False) -> None:
        self.template, self.place = template, place
        if not template.exists():
            write_world(template, small)

    def attempt(self, kind: Kind, seed: str) -> tuple[Ended, int, Damage, str]:
        """One try: (how the command ended, number of orphans, the damage, what was written where it must not be)."""
        rng = random.Random(seed)
        shutil.rmtree(self.place, ignore_errors=True)
        work, temporary = self.place / "work", self.place / "tmp"
        temporary.mkdir(parents=True)
        (self.place / "canary").mkdir()
        for name in {*kind.needs, *(pattern.split("/")[0] for pattern in kind.files)}:
            for source in self.template.glob(name):
                target = work / source.relative_to(self.template)
                target.parent.mkdir(parents=True, exist_ok=True)
                (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        words, done = choose(kind, rng, work)
        before = _listing(self.place)

        def inside() -> int:
            os.chdir(work)
            sys.path.insert(0, str(work))
            os.environ |= {"TMPDIR": str(temporary), "CMET_EVAL_CACHE": str(work / "cache")}
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(self.place / "log.torch")
            if kind.name == "checkpoint":
                os.environ["CMET_EVAL_CHECKPOINTS"] = str(work / DATA / "reference")
            return command(words)()

        ended, orphans = call(inside, self.place / "log", DEADLINE_S)
        allowed = {"out", DATA, "run", "dropped", "cache"} | (
            {str(words[-1]).split("/")[0]} if kind.name == "options" else set()
        )
        misplaced = self._misplaced(before, allowed)
        if (
            not misplaced and _CANARY.exists() and str(_CANARY) not in words
        ):  # an option may name it as the output folder
            misplaced = f"wrote {_CANARY}"
        shutil.rmtree(_CANARY, ignore_errors=True)
        return ended, orphans, Damage(f"{' '.join(words)[:120]}: {done.about}", done.illegal), misplaced

    def _misplaced(self, before: dict[str, tuple[int, int]], allowed: set[str]) -> str:
        """The first file that is new or changed although it is neither in an output folder nor a log."""
        for name, status in _listing(self.place).items():
            top, _, rest = name.partition("/")
            if before.get(name) == status or top.startswith("log") or "__pycache__" in name:
                continue
            if top == "tmp":
                return f"left the temporary file {rest}"
            if top != "work" or rest.split("/")[0] not in allowed:
                return f"wrote {name}"
        return ""


_CANARY = Path("/tmp/canary-of-hostile")  # a path of mutate.TEXTS, outside of all folders of a try


def _listing(folder: Path) -> dict[str, tuple[int, int]]:
    """The files below a folder, with their sizes and times of change. Folders are listed with zeros."""
    found = {}
    for parent, folders, files in os.walk(folder):
        for name in files:
            path = Path(parent) / name
            status = path.lstat()
            found[path.relative_to(folder).as_posix()] = (status.st_size, status.st_mtime_ns)
        for name in folders:
            found[(Path(parent) / name).relative_to(folder).as_posix()] = (0, 0)
    return found


def schedule(tries: int, seed: int, only: Sequence[str] | None) -> Iterator[tuple[Kind, str]]:
    """The kind and the seed of every try."""
    wanted = SMALL_KINDS if only == [SMALL] else only
    kinds = [kind for kind in KINDS if wanted is None or kind.name in wanted]
    total = sum(kind.weight for kind in kinds)
    for kind in kinds:
        for number in range(max(1, round(tries * kind.weight / total))):
            yield kind, f"{seed}:{kind.name}:{number}"


def judge(tally: Tally, kind: Kind, ended: Ended, orphans: int, done: Damage, misplaced: str, example: str) -> None:
    """Counts one try."""
    example = f"{example}: {done.about}"
    tally.add(ended, example)
    last = next((line for line in reversed(ended.text.strip().splitlines()) if line.startswith("cmet-eval:")), "")
    if "Traceback" not in ended.text and (last.startswith("cmet-eval: unexpected ") or "the traceback is in" in last):
        tally.fault("traceback", f"{example}: {last[:200]}")
    if orphans or misplaced.startswith("left"):
        tally.fault("orphans", f"{example}: {orphans} processes; {misplaced}")
    elif misplaced:
        tally.fault("silently_wrong", f"{example}: {misplaced}")
    elif kind.strict and done.illegal and ended.status == 0 and not ended.hung:
        tally.fault("silently_wrong", f"{example}: accepted")


def preload(small: bool) -> None:
    """Imports what the commands import, so that a fork need not do it."""
    import importlib

    from cmet_eval.cli import COMMANDS
    from talking_face.threads import limit_threads

    limit_threads(1)
    for name in ("pairs", "preprocess", "baselines", "calibrate") if small else COMMANDS:
        importlib.import_module(f"cmet_eval.commands.{name}")
    for name in (
        ()
        if small
        else (
            *("cmet_eval.runs.evaluate", "cmet_eval.reports.comparison", "cmet_eval.reports.gallery", "scipy.stats"),
            *("cmet_eval.study.make", "cmet_eval.study.analysis", "cmet_eval.calibration.calibrate", "distributed"),
            *("cmet_leaderboards.board", "cmet_baselines.published", "cmet_reference.cmet.train", "krippendorff"),
            *("cmet_reference.cem_net.train", "cmet_reference.methods", "accelerate", "matplotlib.pyplot", "mediapipe"),
            *("cmet_eval.reports.emotion_proportion", "cmet_eval.runs.export", "cmet_reference.evaluators.train"),
        )
    ):
        importlib.import_module(name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the program; returns its exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tries", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kind", action="append", choices=[SMALL, *(kind.name for kind in KINDS)])
    parser.add_argument("--only", type=int, help="the number of one try of --kind; its output is printed")
    parser.add_argument("--world", type=Path, help="keep the valid examples in this folder, and use them again")
    parser.add_argument("--json", type=Path, help="also write the table and the examples to this file")
    options = parser.parse_args(arguments)
    small = options.kind == [SMALL]
    preload(small)
    root = Path(tempfile.mkdtemp(prefix="hostile-structured-"))
    started, tallies = time.monotonic(), {}
    try:
        world = World((options.world or root / "world").resolve(), root / "try", small)
        if options.only is not None:
            kind = next(kind for kind in KINDS if kind.name in options.kind)
            ended, orphans, done, misplaced = world.attempt(kind, f"{options.seed}:{kind.name}:{options.only}")
            print(f"{done}\n{ended.text}\n{ended.status} {ended.seconds:.1f} s, {orphans} orphans; {misplaced}")
            return 0
        for kind, seed in schedule(options.tries, options.seed, options.kind):
            tally = tallies.setdefault(kind.name, Tally(kind.name))
            known = len(tally.examples)
            judge(tally, kind, *world.attempt(kind, seed), seed)
            for line in tally.examples[known:]:
                print(f"{time.monotonic() - started:4.0f} s, {line[:400]}", file=sys.stderr, flush=True)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    finally:
        shutil.rmtree(root, ignore_errors=True)
    total = Tally("all")
    for tally in tallies.values():
        for name in ("tried", "crashed", "hung", "traceback", "silently_wrong", "orphans"):
            setattr(total, name, getattr(total, name) + getattr(tally, name))
    status = report([*tallies.values(), total])
    print(f"{total.tried} tries in {time.monotonic() - started:.0f} s")
    if options.json:
        options.json.write_text(json.dumps({name: vars(tally) for name, tally in tallies.items()}, indent=1))
    return status


if __name__ == "__main__":
    sys.exit(main())
