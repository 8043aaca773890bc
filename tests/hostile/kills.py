"""Kills and interrupts commands at random moments, and checks that nothing is left and that a second run repairs all.

    python -m tests.hostile.kills --tries 20 --seed 1 [--only "run;score"] [--work FOLDER]

A try starts the real command, sends KILL, TERM or Ctrl-C at a random moment, and checks:

- within 3 s, no process of the run is alive, also no daemon that an outside method has started;
- TERM and Ctrl-C print one line, and no traceback;
- after TERM and Ctrl-C no temporary folder is left, and after KILL none is left by the next run;
- the same command, run again, ends as a run without interruption does, and stores the same files.

A corpus of a few short clips is drawn once; with `--work`, it is kept for the next call. A try takes about twice the
time of its command.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.interrupts import LINE
from tests.hostile.tally import MARK, Ended, Tally, alive, report, run, start
from tests.same_results import difference, files

LONGEST_S = 240.0  # s for one command; several times its usual time on a busy machine
GONE_S = 3.0  # s after the end of the command, in which all its processes must end
SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
IMPORTS = (0.3, 1.0, 1.5)  # s; moments at which the command is still importing its libraries

# An outside method: it starts a daemon (a session of its own, its parents have ended), and repeats the reference.
DAEMON = """
import os, time

def daemon():
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            time.sleep(600)
        os._exit(0)
    os.wait()
    time.sleep(0.3)
"""
COMMAND = """
import sys
import cv2
from daemon import daemon
daemon()
picture, n_frames, output = sys.argv[1:]
face = cv2.imread(picture)
video = cv2.VideoWriter(output, cv2.VideoWriter_fourcc(*"mp4v"), 25, face.shape[1::-1])
for _ in range(int(n_frames)):
    video.write(face)
video.release()
"""
CLASS = """
import numpy as np
from daemon import daemon

class Outside:
    "The reference, repeated."
    name, revision, sees = "outside-class", "1", {"reference-frames"}

    def generate(self, case):
        daemon()
        return np.repeat(case.reference_frames[:1], case.n_frames, axis=0)
"""
ENTRY = """
name = "{name}"
title = "Outside"
summary = "The reference, repeated."
kind = "{kind}"
revision = "1"
licence = "MIT"
sees = ["reference-frames"]
"""


@dataclass(frozen=True)
class Kind:
    """A command that is killed: its words, with OUT in place of the output folder."""

    name: str
    words: tuple[str, ...]


class Stage:
    """The inputs of all commands, in one folder, made once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.corpus, self.shards, self.made = folder / "corpus", folder / "shards", folder / "made"

    def make(self) -> None:
        """Draws the corpus and makes the shards and one run; what is there is kept."""
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = CorpusPlan("mead", speakers=1, size="320x240", seconds=0.8, only=("/neutral/", "/happy/"))
        write_corpus(plan, self.corpus, quiet=True)
        self._do("preprocess", "mead", "corpus", "shards", "--quiet")
        words = ("--data", "shards", "--split", "all", "--max-pairs", "2", "--seeds", "1")
        self._do("pairs", "neutral-base", *words, "-o", "pairs.parquet", "--quiet")
        run_words = ("--setting", "neutral-base", *words, "--metrics", "psnr", "--out", "made", "--quiet")
        self._do("run", "--method", "static-reference", *run_words)
        self.write_methods()

    def write_methods(self) -> None:
        """Writes the outside methods: a command and a class, which start a daemon."""
        for name, text in (("daemon.py", DAEMON), ("command.py", COMMAND), ("outside.py", CLASS)):
            (self.folder / name).write_text(text, encoding="utf-8")
        python = f'"{sys.executable}", "command.py"'
        table = f'[command]\ncommand = [{python}, "{{reference_image}}", "{{n_frames}}", "{{output}}"]\nfolder = "."\n'
        entry = ENTRY.format(name="outside-command", kind="command") + table + f'environment_from = ["{MARK}"]\n'
        (self.folder / "command.toml").write_text(entry, encoding="utf-8")
        table = f'target = "outside:Outside"\n[process]\nfolders = ["."]\nenvironment_from = ["{MARK}"]\n'
        entry = ENTRY.format(name="outside-class", kind="python") + table
        (self.folder / "class.toml").write_text(entry, encoding="utf-8")

    def kinds(self) -> list[Kind]:
        """All commands that are killed."""
        data = ("--data", "shards")
        drawn = ("--setting", "neutral-base", *data, "--split", "all", "--max-pairs", "2", "--seeds", "1")
        scored = ("--metrics", "psnr", "--out", "OUT", "--quiet")
        videos = "made/videos/static-reference/neutral-base"
        trained = ("--steps", "6", "--max-clips", "6", "--out", "OUT", "--quiet")
        return [
            Kind("preprocess", ("preprocess", "mead", "corpus", "OUT", "--limit", "3", "--quiet")),
            Kind("run", ("run", "--method", "static-reference", *drawn, *scored)),
            Kind("run, command", ("run", "--method", "command.toml", *drawn, *scored)),
            Kind("run, class", ("run", "--method", "class.toml", *drawn, *scored)),
            Kind(
                "score",
                ("score", "--videos", videos, "--pairs", "pairs.parquet", *data, "--method-name", "theirs", *scored),
            ),
            Kind("train", ("train", "evaluators", *data, *trained)),
            Kind("leaderboard", ("leaderboard", "--run", "made", "--out", "OUT")),
        ]

    def _do(self, *words: str) -> None:
        ended = run(words, self.folder, LONGEST_S * 3)
        if ended.status != 0:
            raise SystemExit(f"cannot make the inputs: {' '.join(words)} ended with {ended.status}: {ended.text}")


class Attempt:
    """One try: a command, a signal, a moment, an output folder and a folder for temporary files."""

    def __init__(self, stage: Stage, kind: Kind, folder: Path) -> None:
        self._stage, self._folder = stage, folder
        self.out, self._tmp = folder / "out", folder / "tmp"
        self._tmp.mkdir(parents=True)
        self._words = [str(self.out) if word == "OUT" else word for word in kind.words]

    def whole(self) -> Ended:
        """Runs the command to its end."""
        return run(self._words, self._stage.folder, LONGEST_S, self._environment())

    def interrupted(self, number: signal.Signals, moment_s: float) -> tuple[Ended, str]:
        """Starts the command and sends the signal. Returns how it ended, and the mark of its processes."""
        started = time.monotonic()
        process, mark = start(self._words, self._stage.folder, self._environment())
        try:
            process.wait(moment_s)
        except subprocess.TimeoutExpired:
            if number == signal.SIGINT:  # as a terminal does, which sends Ctrl-C to all processes of the command
                os.killpg(process.pid, number)
            else:
                process.send_signal(number)
        hung = False
        try:
            text, _ = process.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            hung = True
            process.kill()
            text, _ = process.communicate()
        return Ended(process.returncode, text.decode("utf-8", "replace"), time.monotonic() - started, hung), mark

    def temporary(self) -> list[str]:
        """Names of what is left in the folder of temporary files.

        Logs of unexpected errors are left out, and the cache that torch makes for all processes of a user.
        """
        names = [path.name for path in self._tmp.iterdir() if path.suffix != ".log"]
        return sorted(name for name in names if not name.startswith("torchinductor_"))

    def _environment(self) -> Mapping[str, str]:
        return {"TMPDIR": str(self._tmp)}


def still_alive(mark: str, folder: Path) -> list[int]:
    """The processes of a run that are alive after `GONE_S`. They are found by their mark or by a path in their line."""
    end = time.monotonic() + GONE_S
    while (found := {*alive(mark), *_naming(str(folder))}) and time.monotonic() < end:
        time.sleep(0.05)
    return sorted(found)


def _naming(text: str) -> list[int]:
    """The processes whose command line or working folder contains the text."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and int(entry.name) != os.getpid():
            try:
                line = (entry / "cmdline").read_bytes().decode("utf-8", "replace")
                if text in line or text in str((entry / "cwd").readlink()):
                    found.append(int(entry.name))
            except OSError:
                continue
    return found


def check(tally: Tally, attempt: Attempt, number: signal.Signals, moment_s: float, normal: Normal) -> None:
    """Runs one try and counts its faults."""
    ended, mark = attempt.interrupted(number, moment_s)
    label = f"{number.name} after {moment_s:.2f} s"
    tally.tried += 1
    if ended.hung:
        tally.fault("hung", f"{label}: alive 60 s later")
    if ended.status < 0 and -ended.status != number:
        tally.fault("crashed", f"{label}: {signal.Signals(-ended.status).name}")
    if problem := unclean(ended, number):
        tally.fault("traceback", f"{label}: {problem}")
    if left := still_alive(mark, attempt.out.parent):
        tally.fault("orphans", f"{label}: {len(left)} processes alive: {' '.join(map(_shown, left))}")
        for pid in left:
            os.kill(pid, signal.SIGKILL)
    if number != signal.SIGKILL and ended.status > 0 and (names := attempt.temporary()):
        tally.fault("orphans", f"{label}: left in TMPDIR: {', '.join(names)}")
    again = attempt.whole()
    if again.hung:
        tally.fault("hung", f"{label}: the second run")
    elif again.status != normal.status:
        tally.fault("silently_wrong", f"{label}: the second run ended with {again.status}: {again.text[-300:]}")
    if names := attempt.temporary():
        tally.fault("orphans", f"{label}: left in TMPDIR after the second run: {', '.join(names)}")
    if wrong := normal.differences(attempt.out):
        tally.fault("silently_wrong", f"{label}: {'; '.join(wrong[:3])}")


def unclean(ended: Ended, number: signal.Signals) -> str:
    """What is wrong with the output of an interrupted command; empty if nothing is.

    A signal that comes before Python has started the program, or after the command has finished, is not judged.
    """
    if number == signal.SIGKILL or ended.status in (0, -number):
        ours = "cmet_eval" in ended.text or "talking_face" in ended.text
        return "a traceback" if "Traceback" in ended.text and ours else ""
    lines = [line for line in ended.text.splitlines() if line == LINE]
    if (
        ended.status != 128 + number
        or len(lines) != 1
        or "Traceback" in ended.text
        or "Exception ignored" in ended.text
    ):
        return f"status {ended.status}, printed {' '.join(ended.text.split())[-300:]!r}"
    return ""


def _shown(pid: int) -> str:
    try:
        line = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        line = "ended"
    return f"{pid} ({line[:120].strip()})"


@dataclass(frozen=True)
class Normal:
    """A run without interruption: its output folder, exit status, and the time it took, s."""

    out: Path
    status: int
    seconds: float

    def differences(self, out: Path) -> list[str]:
        """What differs between the stored files of this run and those of another folder."""
        mine, theirs = files(self.out), files(out)
        wrong = [f"{name} is missing" for name in mine if name not in theirs]
        wrong += [f"{name} is additional" for name in theirs if name not in mine]
        both = (name for name in mine if name in theirs)
        return wrong + [f"{name}: {found}" for name in both if (found := difference(mine[name], theirs[name]))]


def tries_of(stage: Stage, kind: Kind, count: int, seed: int, folder: Path) -> Tally:
    """Kills one command many times."""
    tally, draw = Tally(kind.name), random.Random(f"{seed} {kind.name}")
    first = Attempt(stage, kind, folder / "normal")
    ended = first.whole()
    normal = Normal(first.out, ended.status, ended.seconds)
    if ended.hung or ended.status not in (0, 1):
        raise SystemExit(f"{kind.name} ends with {ended.status} without a signal: {ended.text}")
    for k in range(count):
        number = SIGNALS[k % len(SIGNALS)]
        at_import = k in (1, 2, 4)  # TERM, INT, TERM
        moment_s = IMPORTS[k // 2] if at_import else draw.uniform(0.1, max(0.2, normal.seconds))
        place = folder / f"{k}"
        known = len(tally.examples)
        check(tally, Attempt(stage, kind, place), number, moment_s, normal)
        for line in tally.examples[known:]:
            print(line, file=sys.stderr, flush=True)
        shutil.rmtree(place, ignore_errors=True)
        print(f"{kind.name}: {k + 1}/{count}, {len(tally.examples)} faults", file=sys.stderr, flush=True)
    return tally


def main() -> int:
    """Runs the tries of the command line and prints the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.hostile.kills", description=__doc__)
    parser.add_argument("--tries", type=int, default=20, help="of each command")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", help="names of commands, separated by semicolons; default: all")
    parser.add_argument("--work", type=Path, help="folder for the inputs, which are kept")
    args = parser.parse_args()
    only = [name.strip() for name in args.only.split(";") if name.strip()]
    with tempfile.TemporaryDirectory(prefix="kills-") as name:
        stage = Stage(args.work.resolve() if args.work else Path(name) / "stage")
        stage.make()
        kinds = [kind for kind in stage.kinds() if not only or kind.name in only]
        tallies = []
        for place, kind in enumerate(kinds):
            started = time.monotonic()
            tallies.append(tries_of(stage, kind, args.tries, args.seed, Path(name) / str(place)))
            print(f"{kind.name}: {args.tries} tries in {time.monotonic() - started:.0f} s", flush=True)
    return report(tallies)


if __name__ == "__main__":
    sys.exit(main())
