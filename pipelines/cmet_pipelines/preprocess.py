"""Turns a raw dataset into a shard set: finds the clips, processes each clip on a worker, writes shards and ledger.

A run can be killed at any moment. The next run with the same settings resumes the work, and the finished shards have
the same bytes as after a run without interruption. A run with other settings into the same folder raises an error.
"""

from __future__ import annotations

import dataclasses
import errno
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmet_pipelines import readers
from cmet_pipelines.assembly import Assembly
from cmet_pipelines.card import write_tables_and_card, write_unfinished_card
from cmet_pipelines.clip_task import TASK, drop, new_outcome
from cmet_pipelines.inventory import TRANSIENT, Inventory
from cmet_pipelines.job import STAGING, Job, plan_job
from cmet_pipelines.out_folder import disk_error, output_folder
from cmet_pipelines.processing import OPENING_S, ProcessingSettings
from cmet_pipelines.readers import ReaderOptions
from cmet_pipelines.records import Card, ClipOutcome
from cmet_pipelines.shards import SHARDS
from cmet_pipelines.source_files import below
from cmet_pipelines.staging import Staging
from talking_face.clip import Clip
from talking_face.execution.options import RunOptions
from talking_face.execution.workers import Task, TaskResult, run_tasks
from talking_face.logs import write_log_into
from talking_face.pretrained.model_files import ModelFiles
from talking_face.progress import Progress
from talking_face.reasons import Reason, UserError

# If this many clips crash with the same message, and no clip has another outcome, the run stops, because the cause is
# probably not in the clips.
MOST_EQUAL_CRASHES = 10
# Reasons of skipped files that are clips, that can hold clips, or that a label table or list names.
LOST = frozenset({Reason.UNREADABLE, Reason.BAD_LABEL, Reason.UNLABELLED, Reason.MISSING_FILE})


@dataclass(frozen=True)
class Selection:
    """Defines which clips a run processes, and how the run treats clips of earlier runs."""

    limit: int | None = None  # maximum number of clips: the first `limit` clips in the order of clip_id are used
    retry: bool = False  # process clips again that an earlier run dropped for a transient reason (inventory.TRANSIENT)
    prune: bool = False  # remove those clips from a finished set that this run does not select or does not find
    check: bool = True  # compare every byte of finished shards with their digests, not only sizes and footers


@dataclass(frozen=True)
class PreprocessSummary:
    """Result of a run. `computed` counts only the clips that this run processed, not the clips of earlier runs."""

    out: Path
    digest: str
    signature: str
    kept: int
    dropped: int
    excluded: int  # clips that a table, a list or an option left out
    skipped: int  # files that are not clips
    computed: int
    reasons: dict[str, int]  # number of dropped clips per reason
    removed: int = 0  # kept clips of an earlier run that this run removed
    lost: dict[str, int] = field(default_factory=dict)  # number of files that are not clips, per reason of LOST
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        before = f", {self.kept + self.dropped - self.computed} were there" if self.computed < self.kept else ""
        lost = "".join(f"; {count} {reason}" for reason, count in sorted(self.reasons.items()))
        clips = f"{self.kept} of {self.kept + self.dropped} clips kept{lost}"
        return f"{self.out}: {clips} ({self.computed} computed{before}); digest {self.digest}"

    @property
    def failed_share(self) -> float:
        """Number of dropped clips divided by the number of all clips, 0 to 1.

        Files without a usable label count as dropped clips.
        """
        dropped = self.dropped + self.lost.get(Reason.BAD_LABEL, 0) + self.lost.get(Reason.UNLABELLED, 0)
        return dropped / max(1, self.kept + dropped)

    @property
    def unreadable(self) -> int:
        """Number of clips, files and folders that could not be read. Their clips are missing."""
        return self.lost.get(Reason.UNREADABLE, 0) + self.reasons.get(Reason.UNREADABLE, 0)

    @property
    def transient(self) -> int:
        """Number of dropped clips that `Selection.retry` would process again."""
        return sum(count for reason, count in self.reasons.items() if reason in TRANSIENT)


def preprocess(
    dataset: str,
    root: str | Path,
    out: str | Path,
    settings: ProcessingSettings | None = None,
    options: ReaderOptions | None = None,
    *,
    run: RunOptions | None = None,
    selection: Selection | None = None,
    files: ModelFiles | None = None,
) -> PreprocessSummary:
    """Preprocesses `dataset` under `root` into the shard set `out`.

    Args:
        dataset: a reader's name, `cmet_pipelines.readers.READERS`.
        root: folder of the dataset. The files in this folder are never changed.
        out: folder of the shard set. If the folder does not exist, it is created.
        settings: settings of the processing; None for the defaults.
        options: options of the dataset's reader; None for the defaults.
        run: number of workers and amount of output. The workers of a Dask scheduler need access to `root` and `out`.
        selection: which clips are processed; None for all clips.
        files: the folders of the face networks' files; None for the folders that the environment variables name.

    Raises UserError
        for a wrong argument: an unknown dataset, split or list of clips, or `out` inside `root`;
        if `out` holds a shard set with other settings, or another run is writing to `out`;
        if kept clips of a finished set are not selected now, and `prune` is False;
        if the disk is full or `out` cannot be written, or every clip crashes in the same way.
    """
    run, selection = run or RunOptions(), selection or Selection()
    options = options or readers.get_reader(dataset).options()
    settings, files = settings or ProcessingSettings(), files or ModelFiles.from_environment()
    job = plan_job(dataset, Path(root), Path(out), settings, options, selection.limit, files=files)
    with output_folder(job.out):
        return _run(job, run, selection)


def _run(job: Job, run: RunOptions, selection: Selection) -> PreprocessSummary:
    """Finishes the shard set. The output folder must be locked."""
    inventory = Inventory(job, check=selection.check, quiet=run.quiet)
    gone = inventory.kept_before() - job.by_id.keys()
    if gone and not selection.prune:
        raise UserError(
            f"{len(gone)} finished clips in {job.out} are not asked for now, or no longer under {job.root} "
            f"({min(gone)}).\nGive another folder, or --prune to remove them."
        )
    write_log_into(job.out)  # not before: a folder that is refused stays as it is
    inventory.remove_strays()
    finished = inventory.finished(selection.retry)
    if inventory.is_complete(finished):
        assert inventory.card is not None
        return _summary(job, inventory.card, computed=0)
    for damage in inventory.damage:
        print(f"cmet-eval: {damage}", file=sys.stderr, flush=True)
    (job.out / SHARDS).mkdir(exist_ok=True)
    write_unfinished_card(job)
    assembly = Assembly(inventory, finished)
    computed = _process_missing(job, run, assembly)
    card = write_tables_and_card(job, assembly.outcomes)
    _remove_leftovers(job, card)
    return dataclasses.replace(_summary(job, card, computed), removed=len(gone))


def _process_missing(job: Job, run: RunOptions, assembly: Assembly) -> int:
    """Processes the clips without an outcome and assembles all shards. Returns the number of processed clips."""
    done = len(assembly.outcomes)
    todo = [clip for clip in job.clips if clip.clip_id not in assembly.outcomes]
    with Progress(len(job.clips), "clips", "preprocess", run.quiet, already=done) as progress:
        if done and todo:
            progress.note(f"{done} of {len(job.clips)} clips are finished already; the rest is processed now")
        assembly.write_complete()
        for outcome in _outcomes(job, todo, run, progress):
            assembly.add(outcome)
    return len(todo)


def _outcomes(job: Job, todo: Sequence[Clip], run: RunOptions, progress: Progress) -> Iterator[ClipOutcome]:
    """Processes clips on workers. Yields each clip's outcome as soon as the clip is finished and stored."""
    staging = Staging(job.staging)
    crashes = EqualCrashes(staging)
    folder, root = str(job.staging.resolve()), str(job.root)
    # Without a deadline in the settings, `process_clip` sets the deadline when it knows the clip's length.
    limit = job.settings.deadline_s or OPENING_S
    tasks = [
        Task(clip.clip_id, (clip, job.entries[clip.clip_id], job.settings, folder, root, job.files), limit)
        for clip in todo
    ]
    for result in run_tasks(
        TASK,
        tasks,
        workers=run.workers,
        scheduler=run.scheduler,
        memory_bytes=run.memory_bytes,
        progress=progress,
    ):
        if result.error is None:
            crashes.check(result.value)
            yield result.value
            continue
        if result.error.reason is Reason.NO_SPACE:
            raise disk_error(job.out, OSError(errno.ENOSPC, result.error.detail))
        outcome = _failed(job, result)
        staging.put(outcome, None)
        crashes.check(outcome)
        yield outcome


def _failed(job: Job, result: TaskResult) -> ClipOutcome:
    """The outcome of a clip whose process died or was stopped at the deadline."""
    assert result.error is not None
    outcome = new_outcome(job.by_id[result.key], job.entries[result.key], str(job.root))
    drop(outcome, result.stage, result.error.reason, below(str(job.root), result.error.detail))
    outcome["seconds"] = result.seconds
    return outcome


class EqualCrashes:
    """Stops a run if every clip so far crashed with the same message: the cause is then probably not in the clips."""

    def __init__(self, staging: Staging) -> None:
        self._staging = staging
        self._clips: list[str] | None = []  # the crashed clips; None as soon as a clip has another outcome
        self._message = ""

    def check(self, outcome: ClipOutcome) -> None:
        """Checks one outcome. After MOST_EQUAL_CRASHES, marks the crashed clips as unfinished and raises UserError."""
        if self._clips is None:
            return
        if outcome["reason"] != Reason.CRASHED or (self._clips and outcome["detail"] != self._message):
            self._clips = None
            return
        self._message = outcome["detail"]
        self._clips.append(outcome["clip_id"])
        if len(self._clips) == MOST_EQUAL_CRASHES:
            for clip_id in self._clips:
                self._staging.forget(clip_id)
            raise UserError(
                f"the first {MOST_EQUAL_CRASHES} clips all crashed in the same way ({self._message}).\n"
                "The clips are not at fault. Repair the cause and run the same command again; nothing is lost."
            )


def _remove_leftovers(job: Job, card: Card) -> None:
    """Removes the shards of earlier runs that the card does not list, and the staging folder."""
    for path in (job.out / SHARDS).glob("*.parquet"):
        if path.name not in card["shards"]:
            path.unlink()
    shutil.rmtree(job.out / STAGING, ignore_errors=True)


def _summary(job: Job, card: Card, computed: int) -> PreprocessSummary:
    counts = card["counts"]
    return PreprocessSummary(
        job.out,
        card["digest"],
        card["signature"],
        counts["kept"],
        counts["dropped"],
        counts["excluded"],
        counts["skipped"],
        computed,
        counts["reasons"],
        lost=dict(Counter(skip.reason.value for skip in job.skipped if skip.clip is None and skip.reason in LOST)),
        notes=job.notes,
    )
