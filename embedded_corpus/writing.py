"""Writes an embedded corpus in the folder layout of a real dataset (embedded_corpus/layouts).

The ground truth is written to the folder `_truth/`, which every reader ignores. The settings are stored in
`_truth/synth.json`. Every file gets its final name by an atomic rename, and an existing file is kept. So the same
command resumes an interrupted run. The settings and the ground truth contain digests of themselves; a clip whose ground
truth is damaged is drawn again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING

from embedded_corpus.layouts import TRUTH, layout, read_truth
from embedded_corpus.plan import CorpusPlan
from talking_face.execution.workers import Task, run_tasks
from talking_face.files import STRAY
from talking_face.names import counted
from talking_face.progress import Progress
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, discard, read_sealed_json, write_sealed_json

if TYPE_CHECKING:
    from embedded_corpus.clip import ClipSpec

_GROUP = 8  # clips of a task; drawing the textures takes as long as one to two clips of 640x360
_SECONDS, _PER_SECOND = 600.0, 120.0  # time limit of a clip, and of each second of it; 1080p needs a tenth of it


@dataclass(frozen=True)
class CorpusSummary:
    """The result of `write_corpus`."""

    out: Path
    clips: int  # number of clips of the corpus
    written: int  # number of clips that this run wrote
    seconds: float  # length of each clip
    speakers: tuple[str, ...]

    def __str__(self) -> str:
        kept = self.clips - self.written
        there = f", {kept} were there" if kept else ""
        what = f"{counted(self.clips, 'clip')} of {self.seconds:g} s by {counted(len(self.speakers), 'speaker')}"
        return f"{self.out}: {what} ({self.written} written{there})"


def write_corpus(plan: CorpusPlan, out: str | Path, *, workers: int = 2, quiet: bool = False) -> CorpusSummary:
    """Writes the corpus into the folder `out`. Existing files are kept.

    Args:
        plan: layout, speakers, size and length of the corpus.
        out: folder of the corpus.
        workers: number of processes; 0 renders in this process. The bytes do not depend on the number of processes.
        quiet: whether progress lines are omitted.

    Raises:
        UserError: if the layout is unknown, a size or number is out of range, or the folder holds other files.
    """
    out = Path(out)
    tree = layout(plan.layout)
    size = plan.size or tree.SIZE
    if workers < 0:
        raise UserError("workers: 0 or more")
    specs = plan.specs(tree, size)
    _claim(out, plan.settings(size))
    missing = [spec for spec in specs if not _is_whole(tree.paths(out, spec))]
    with Progress(len(missing), "clips", f"synth {plan.layout}", quiet=quiet) as progress:
        _render_all(plan.layout, out, missing, workers, progress)
    tree.finish(out, specs)
    if plan.defects:
        tree.add_defects(out, specs)
    return CorpusSummary(out, len(specs), len(missing), plan.seconds, tuple(sorted({s.speaker for s in specs})))


def _claim(out: Path, settings: dict[str, object]) -> None:
    """Stores the settings in the folder, and removes temporary files of a killed run.

    Raises UserError if the folder holds a corpus with other settings, or other files.
    """
    note = out / TRUTH / "synth.json"
    if note.is_file():
        before = read_sealed_json(note, "delete the folder, or give another")
        if before != settings:
            differ = ", ".join(k for k in settings if before.get(k) != settings[k])
            raise UserError(
                f"{out} holds an embedded corpus with other settings ({differ}).\n"
                "Give another folder, or delete this one."
            )
        for rest in sorted(out.rglob(STRAY)):
            rest.unlink(missing_ok=True)
        return
    if out.exists() and (not out.is_dir() or any(p.name != TRUTH for p in out.iterdir())):
        raise UserError(f"{out} exists and is not an embedded corpus; give a new or an empty folder")
    write_sealed_json(note, settings, indent=1)


def _is_whole(paths: Sequence[Path]) -> bool:
    """Whether all files of a clip exist, and its ground truth is not damaged. A damaged ground truth is deleted."""
    if not all(path.is_file() for path in paths):
        return False
    try:
        read_truth(paths[-1])
    except Damaged as error:
        discard(error)
        return False
    return True


def _render_all(name: str, out: Path, specs: list[ClipSpec], workers: int, progress: Progress) -> None:
    """Renders the clips on workers with one task per group of clips. Raises ClipError if a group cannot be rendered."""
    tasks = [
        Task(str(number), (name, str(out), group), sum(_SECONDS + _PER_SECOND * spec.seconds for spec in group))
        for number, group in enumerate(_groups(specs))
    ]
    for result in run_tasks("embedded_corpus.writing:render_group", tasks, workers=workers):
        if result.error is not None:
            raise result.error
        progress.advance(result.value)


def _groups(specs: Sequence[ClipSpec]) -> list[list[ClipSpec]]:
    """Groups of at most `_GROUP` clips of one speaker. The textures of a speaker are drawn once per group."""
    speakers = (list(group) for _, group in groupby(specs, key=lambda spec: spec.speaker))
    return [clips[start : start + _GROUP] for clips in speakers for start in range(0, len(clips), _GROUP)]


def render_group(name: str, out: str, specs: Sequence[ClipSpec]) -> int:
    """Renders and writes the clips of one task. Returns their number."""
    for spec in specs:
        layout(name).write(Path(out), spec)
    return len(specs)
