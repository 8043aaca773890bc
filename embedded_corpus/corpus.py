"""Which clips the embedded corpus has, and the writing of them into a dataset's tree (embedded_corpus/layouts).

Ground truth goes into `_truth/`, a folder that every reader passes by, with the settings in `_truth/synth.json`.
Every file appears whole or not at all, and a file that is there is left alone: the same command finishes the work.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import re
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from embedded_corpus.layouts import TRUTH, layout, write_text
from talking_face.emotions import EMOTIONS
from talking_face.progress import Progress
from talking_face.reasons import UserError
from talking_face.threads import limit_threads

SIZES = {"360p": (640, 360), "720p": (1280, 720), "1080p": (1920, 1080)}
GENERATOR = 5  # goes up when the same settings give other bytes
_LEVEL_TAKES = {1: 1, 2: 1, 3: 2}  # of each emotion but neutral, which has four of level 1


@dataclass(frozen=True)
class CorpusSummary:
    """What `write_corpus` did."""

    out: Path
    clips: int
    written: int
    seconds: float  # of one clip
    speakers: tuple[str, ...]

    def __str__(self) -> str:
        kept = self.clips - self.written
        there = f", {kept} were there" if kept else ""
        what = f"{self.clips} clips of {self.seconds:g} s by {len(self.speakers)} speakers"
        return f"{self.out}: {what} ({self.written} written{there})"


def clip_specs(
    speakers: int = 8, takes: int = 1, size: str = "640x360", seconds: float = 2.0, seed: int = 0
) -> list[Any]:
    """All ClipSpecs of a corpus, sorted by speaker. 32 * takes clips a speaker.

    A speaker says four sentences (four more with each further `takes`), all of them neutrally, and each emotion says
    them too, spread over the levels: every emotional clip has a neutral clip of the same sentence and speaker.
    A file's number is its sentence: number n says sentence 1 + (n - 1) mod 16 first (cmet_pipelines/numbering.toml).
    """
    from embedded_corpus.clip import ClipSpec
    from embedded_corpus.identity import speaker_names
    from embedded_corpus.speech import sentences

    width, height = parse_size(size)
    ids = sorted(sentences())
    specs = []
    for n, speaker in enumerate(speaker_names(speakers)):
        for e, emotion in enumerate(EMOTIONS):
            for level, per in ({1: 4} if emotion == "neutral" else _LEVEL_TAKES).items():
                for k in range(per * takes):
                    block, within = divmod(k, per)
                    turn = within if emotion == "neutral" else (e + level - 1 + within) % 4
                    at = 4 * (n % 4 + block) + turn
                    order = tuple(ids[(at + step) % len(ids)] for step in range(len(ids)))
                    specs.append(ClipSpec(speaker, emotion, level, at + 1, order, seconds, width, height, seed))
    return sorted(specs, key=lambda s: s.key)


def parse_size(size: str) -> tuple[int, int]:
    """(width, height) of "1080p" or "640x360". Raises UserError."""
    if size in SIZES:
        return SIZES[size]
    match = re.fullmatch(r"(\d{2,5})x(\d{2,5})", size)
    if not match:
        raise UserError(f"size {size!r}: give WIDTHxHEIGHT, such as 640x360, or one of {', '.join(SIZES)}")
    width, height = int(match[1]), int(match[2])
    if width % 2 or height % 2 or not 120 <= height <= 2160 or not 0.9 * height <= width <= 7680:
        raise UserError(f"size {size}: even numbers, 120 to 2160 high, and at least 0.9 times as wide as high")
    return width, height


def write_corpus(
    name: str,
    out: str | Path,
    *,
    speakers: int = 8,
    takes: int = 1,
    size: str | None = None,
    seconds: float = 2.0,
    seed: int = 0,
    defects: bool = False,
    workers: int = 2,
    only: Sequence[str] | None = None,
    progress: Progress | None = None,
    quiet: bool = False,
) -> CorpusSummary:
    """Write the corpus into the folder `out`; what is already there is kept.

    Args:
        name: of the layout, embedded_corpus.layouts.LAYOUTS.
        speakers: 1 to 198. takes: multiplies the clips of a speaker (32 at 1).
        size, seconds, seed: of every clip; another seed says and moves differently with the same faces. Without a
            size, the layout's own.
        defects: also write what goes wrong with the real dataset: its known bad clips and damaged files.
        workers: processes; 0 works in this one. The bytes do not depend on it.
        only: clip keys, or parts of keys such as "M901/" or "/happy/", to write; the others are left out.
        progress: advanced by one for each clip written; otherwise one is made (`quiet` silences it).

    Raises UserError: a layout, size or number that cannot be, or a folder that holds another corpus.
    """
    out = Path(out)
    tree = layout(name)
    size = size or tree.SIZE
    if not 1 <= speakers <= 198 or takes < 1 or not 0.4 <= seconds <= 60 or workers < 0:
        raise UserError("speakers: 1 to 198; takes: 1 or more; seconds: 0.4 to 60; workers: 0 or more")
    specs = tree.select(clip_specs(speakers, takes, size, seconds, seed))
    if only is not None:
        specs = [s for s in specs if any(part in s.key for part in only)]
        if not specs:
            raise UserError(f"no clip's key holds any of {', '.join(only)}; a key is like {clip_specs(1)[0].key}")
    settings = {
        "generator": GENERATOR, "layout": name, "speakers": speakers, "takes": takes, "size": size,
        "seconds": seconds, "seed": seed, "only": sorted(only) if only is not None else None,
        "defects": defects,
    }  # fmt: skip
    _claim(out, settings)
    todo = [s for s in specs if not all(p.is_file() for p in tree.paths(out, s))]
    if progress is None:
        with Progress(len(todo), "clips", f"synth {name}", quiet=quiet) as own:
            _render_all(name, out, todo, workers, own)
    else:
        _render_all(name, out, todo, workers, progress)
    tree.finish(out, specs)
    if defects:
        tree.add_defects(out, specs)
    return CorpusSummary(out, len(specs), len(todo), seconds, tuple(sorted({s.speaker for s in specs})))


def _claim(out: Path, settings: dict[str, Any]) -> None:
    """Take the folder for these settings, or refuse it; clear away what a killed run left half written."""
    note = out / TRUTH / "synth.json"
    if note.is_file():
        try:
            before = json.loads(note.read_text(encoding="utf-8"))
        except ValueError:
            before = {}
        if before != settings:
            differ = ", ".join(k for k in settings if before.get(k) != settings[k])
            raise UserError(
                f"{out} holds an embedded corpus with other settings ({differ}).\n"
                "Give another folder, or delete this one."
            )
        for rest in sorted(out.rglob(".*.tmp*")):
            rest.unlink(missing_ok=True)
        return
    if out.exists() and (not out.is_dir() or any(p.name != TRUTH for p in out.iterdir())):
        raise UserError(f"{out} exists and is not an embedded corpus; give a new or an empty folder")
    write_text(note, json.dumps(settings, indent=1) + "\n")


def _render_all(name: str, out: Path, specs: list[Any], workers: int, progress: Progress) -> None:
    # One task a speaker: its textures are drawn once, and with more workers than speakers in halves.
    groups = [list(g) for _, g in groupby(specs, key=lambda s: s.speaker)]
    while workers and 0 < len(groups) < workers and max(map(len, groups)) > 1:
        groups = [part for g in groups for part in (g[: (len(g) + 1) // 2], g[(len(g) + 1) // 2 :]) if part]
    if workers == 0 or len(groups) == 0:
        for spec in specs:
            layout(name).write(out, spec)
            progress.advance()
        return
    # Before the children start: BLAS reads these when it is loaded, and its second thread doubles a frame's cost.
    limit_threads(1)
    context = multiprocessing.get_context("spawn")
    done = context.SimpleQueue()
    count = min(workers, len(groups))
    with ProcessPoolExecutor(count, context, _start_worker, (done, os.getppid())) as pool:
        waiting = {pool.submit(_render_group, name, out, g) for g in sorted(groups, key=len, reverse=True)}
        try:
            while waiting:
                finished, waiting = wait(waiting, timeout=0.3, return_when=FIRST_COMPLETED)
                while not done.empty():
                    done.get()
                    progress.advance()
                for future in finished:
                    future.result()
        except BrokenProcessPool:
            raise UserError(
                "a drawing process ended abruptly (out of memory?); run the same command again, with --workers 1"
            ) from None
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
        while not done.empty():
            done.get()
            progress.advance()


_DONE: Any = None


def _start_worker(done: Any, _: int) -> None:
    global _DONE
    limit_threads(1)
    import cv2

    cv2.setNumThreads(1)
    _DONE = done


def _render_group(name: str, out: Path, specs: list[Any]) -> None:
    for spec in specs:
        if multiprocessing.parent_process() is not None and not multiprocessing.parent_process().is_alive():  # type: ignore[union-attr]
            return  # the command was killed: do not go on alone
        layout(name).write(out, spec)
        _DONE.put(1)
