"""Raw dataset in, shard set out: discovers clips, processes them on workers, and assembles shards, ledger and card.

Can be killed at any moment. A run with the same settings takes up where it was and ends with the same bytes; one with
other settings into the same folder is refused.
"""

from __future__ import annotations

import dataclasses
import errno
import fcntl
import importlib.metadata
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines import lists, readers, splits
from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.process import PROCESS, relative, source_bytes
from cmet_pipelines.settings import PreprocessSettings
from cmet_pipelines.shards import (
    CARD,
    CLIPS,
    IDENTITY_FIELDS,
    LEDGER,
    LEDGER_SCHEMA,
    SHARDS,
    clips_per_shard,
    plan,
    write_rows,
)
from cmet_pipelines.staging import Staging, write_atomically
from talking_face.clip import Clip
from talking_face.execution.workers import Task, run_tasks
from talking_face.progress import Progress
from talking_face.reasons import Reason, UserError
from talking_face.signature import digest

STAGING, LOCK = ".staging", ".lock"
# Reasons that may be the machine's and not the clip's: `retry` tries these again.
_ALIKE = 10  # so many crashes with the same words, and no clip that did not: the fault lies elsewhere
PASSING = frozenset({Reason.DEADLINE, Reason.CRASHED, Reason.UNREADABLE, Reason.MISSING_FILE})


@dataclass(frozen=True)
class PreprocessSummary:
    """What a run ended with. `computed` counts the clips that this run processed itself."""

    out: Path
    digest: str
    signature: str
    kept: int
    dropped: int
    excluded: int  # clips that a table, a list or an option left out
    skipped: int  # files that are no clip
    computed: int
    reasons: dict[str, int]  # of dropped clips
    removed: int = 0  # finished clips of an earlier run that this one took out
    notes: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        there = f", {self.kept + self.dropped - self.computed} were there" if self.computed < self.kept else ""
        lost = "".join(f"; {count} {reason}" for reason, count in sorted(self.reasons.items()))
        clips = f"{self.kept} of {self.kept + self.dropped} clips kept{lost}"
        return f"{self.out}: {clips} ({self.computed} computed{there}); digest {self.digest}"

    @property
    def failed_share(self) -> float:
        """Dropped clips over all clips."""
        return self.dropped / max(1, self.kept + self.dropped)

    @property
    def passing(self) -> int:
        """Dropped clips that `retry` would try again."""
        return sum(count for reason, count in self.reasons.items() if reason in PASSING)


def preprocess(
    dataset: str,
    root: str | Path,
    out: str | Path,
    settings: PreprocessSettings | None = None,
    *,
    workers: int = 2,
    scheduler: str | None = None,
    limit: int | None = None,
    retry: bool = False,
    prune: bool = False,
    quiet: bool = False,
) -> PreprocessSummary:
    """Preprocesses `dataset` under `root` into the shard set `out`.

    Args:
        dataset: a reader's name, cmet_pipelines.readers.READERS.
        workers, scheduler: see `talking_face.execution.workers`. A scheduler's workers must see `root` and `out`.
        limit: take only the first clips, by clip_id.
        retry: also try again the clips that an earlier run dropped for a reason that may pass (deadline, crash).
        prune: take out of a finished set the clips that are not asked for now, or no longer under `root`.

    Raises UserError on wrong use, on a folder that other settings made, on finished clips that would be lost without
    `prune`, on a full disk, and where every clip crashes in the same way.
    """
    settings = settings or PreprocessSettings()
    root, out = Path(root), Path(out)
    found = readers.discover(dataset, root, settings.reader_options())
    root = root.resolve()
    if out.resolve() == root or root in out.resolve().parents:
        raise UserError(f"{out} lies inside {root}; write shards outside the dataset, which is never changed")
    preset = splits.resolve(settings.split, dataset, found.clips)
    clips = splits.assign(preset, found.clips)
    notes = [*found.notes, f"split: {preset}"]
    if settings.clips is not None:
        named, absent = lists.select(settings.clips, clips)
        clips = _leave_out(clips, named, f"not in the list {settings.clips}", found)
        notes.append(f"only the {len(clips)} clips of the list {settings.clips}, as asked")
        if absent:
            notes.append(f"{len(absent)} clips of the list are not here: {', '.join(absent[:5])}")
    if limit is not None and limit < len(clips):
        notes.append(f"only the first {limit} of {len(clips)} clips, as asked")
        clips = _leave_out(clips, clips[:limit], f"not of the first {limit} clips", found)
    try:
        out.mkdir(parents=True, exist_ok=True)
        with _locked(out):
            run = _Run(dataset, root, out, settings, clips, found.skipped, preset, notes)
            return run.go(workers, scheduler, retry, prune, quiet)
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _no_space(out) from None
        if error.errno in (errno.EACCES, errno.EROFS, errno.EEXIST, errno.ENOTDIR):
            raise UserError(f"cannot write to {out}: {error.strerror}") from None
        raise


def _leave_out(clips: list[Clip], taken: list[Clip], why: str, found: readers.Discovery) -> list[Clip]:
    """`taken`; the other clips go into `found.skipped`."""
    asked = {clip.clip_id for clip in taken}
    for clip in clips:
        if clip.clip_id not in asked:
            found.exclude(clip, Reason.NOT_ASKED, why)
    found.skipped.sort(key=lambda skip: (skip.path, skip.detail))
    return taken


class _Run:
    """One run: what is asked for, what is there, and the steps from one to the other."""

    def __init__(
        self,
        dataset: str,
        root: Path,
        out: Path,
        settings: PreprocessSettings,
        clips: Sequence[Clip],
        skipped: Sequence[readers.Skipped],
        preset: str,
        notes: list[str],
    ) -> None:
        self.dataset, self.root, self.out, self.settings = dataset, root, out, settings
        self.clips, self.skipped, self.preset, self.notes = clips, skipped, preset, notes
        self.by_id = {clip.clip_id: clip for clip in clips}
        self.content = settings.content() | {"dataset": dataset}
        self.key = digest(self.content, 8)
        self.manifest = digest([_labels(clip) | {"source": relative(clip.video, str(root))} for clip in clips])
        self.shards = plan(list(self.by_id), clips_per_shard(settings.size, get_codec(settings.codec)))
        self.staging = Staging(out / STAGING / f"{self.key}-{self.manifest}")
        self.places: dict[str, tuple[Path, int]] = {}  # where the clips of shards on disk lie: file, row group
        self.old = self._old_card()

    def go(self, workers: int, scheduler: str | None, retry: bool, prune: bool, quiet: bool) -> PreprocessSummary:
        gone = self._kept_before() - self.by_id.keys()
        if gone and not prune:
            raise UserError(
                f"{len(gone)} finished clips in {self.out} are not asked for now, or no longer under {self.root} "
                f"({min(gone)}).\nGive another folder, or --prune to take them out."
            )
        if self.old and self.old.get("complete") and self._unchanged() and not (retry and self._passing_failures()):
            return self._summary(self.old, computed=0)
        self.staging.folder.mkdir(parents=True, exist_ok=True)
        self.staging.clean()
        for path in (*self.out.glob(".*.part"), *(self.out / SHARDS).glob(".*.part")):
            path.unlink(missing_ok=True)
        (self.out / SHARDS).mkdir(exist_ok=True)
        self._write_card({**self._card_head(), "complete": False, "labels": (self.old or {}).get("labels", {})})
        rows = self._finished(retry)
        written = {
            name for index in range(len(self.shards)) if (self.out / SHARDS / (name := self._name(index))).is_file()
        }
        todo = [clip for clip in self.clips if clip.clip_id not in rows]
        with Progress(len(self.clips), "clips", "preprocess", quiet, already=len(rows)) as progress:
            if rows and todo:
                progress.note(f"{len(rows)} of {len(self.clips)} clips are done already; going on with the rest")
            left = [sum(clip_id not in rows for clip_id in ids) for ids in self.shards]
            shard_of = {clip_id: index for index, ids in enumerate(self.shards) for clip_id in ids}
            for index, count in enumerate(left):
                if count == 0:
                    self._assemble(index, rows, written)
            for row in self._process(todo, workers, scheduler, progress):
                rows[row["clip_id"]] = row
                index = shard_of[row["clip_id"]]
                left[index] -= 1
                if left[index] == 0:
                    self._assemble(index, rows, written)
        return dataclasses.replace(self._finish(rows, computed=len(todo)), removed=len(gone))

    # -- what is there already -----------------------------------------------------------------------------------------

    def _old_card(self) -> dict[str, Any] | None:
        path = self.out / CARD
        try:
            card: dict[str, Any] = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            others = [
                p.name for p in self.out.iterdir() if p.name not in (STAGING, LOCK, SHARDS) and p.suffix != ".part"
            ]
            if others:
                raise UserError(
                    f"{self.out} holds other files ({others[0]}, ...); give an empty or a new folder"
                ) from None
            return None
        except ValueError:
            raise UserError(f"{path} is damaged; remove {self.out} and run again") from None
        theirs = card.get("settings", {})
        ours = self.content
        begun = any((self.out / SHARDS).glob("*.parquet")) or any((self.out / STAGING).glob("*/*.json"))
        if theirs != ours and not (card.get("complete") or begun):
            return None  # an earlier run ended before its first clip
        if theirs != ours:
            keys = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
            lines = "; ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} asked for" for key in keys)
            raise UserError(
                f"{self.out} was made with other settings ({lines}).\nGive another folder, or the same settings."
            )
        return card

    def _kept_before(self) -> set[str]:
        """Clips of the finished set that lies here."""
        if not (self.out / CLIPS).is_file():
            return set()
        return set(pq.read_table(self.out / CLIPS, columns=["clip_id"]).column(0).to_pylist())

    def _unchanged(self) -> bool:
        """Whether the finished set is of this very manifest and all its files are there."""
        assert self.old is not None
        files = self.old.get("shards", {})
        present = all(
            (self.out / SHARDS / name).is_file() and (self.out / SHARDS / name).stat().st_size == size
            for name, size in files.items()
        )
        return (
            self.old.get("manifest") == self.manifest
            and "excluded" in self.old.get("counts", {})  # else a card of an earlier form, to be written anew
            and self.old.get("skipped") == _skipped_digest(self.skipped)
            and present
            and (self.out / CLIPS).is_file()
            and (self.out / LEDGER).is_file()
            and not self._resized(self._old_ledger())
        )

    def _passing_failures(self) -> bool:
        return any(row["reason"] in PASSING for row in self._old_ledger().values() if row["status"] == "dropped")

    def _old_ledger(self) -> dict[str, dict[str, Any]]:
        if not (self.out / LEDGER).is_file():
            return {}
        rows = pq.read_table(self.out / LEDGER).to_pylist()
        return {row["clip_id"]: row for row in rows if row["status"] in ("kept", "dropped")}

    def _resized(self, rows: dict[str, dict[str, Any]]) -> set[str]:
        """Clips whose source no longer has the size that the ledger tells: they are new clips under an old name."""
        changed = set()
        for clip_id, row in rows.items():
            clip = self.by_id.get(clip_id)
            if clip is None or row.get("source_bytes") is None:
                continue
            size = source_bytes(clip.video)
            if size is not None and size != row["source_bytes"]:
                changed.add(clip_id)
        return changed

    def _finished(self, retry: bool) -> dict[str, dict[str, Any]]:
        """Ledger rows of clips that need no work: staged, or in a shard of an earlier run of the same settings."""
        rows = self.staging.ledger()
        self._find_rows_in_shards()
        if self.old:  # an earlier manifest of the same settings: its ledger stays until this run replaces it
            same_labels = self.old.get("labels", {})
            for clip_id, row in self._old_ledger().items():
                if clip_id in self.by_id and same_labels.get(clip_id) == digest(_labels(self.by_id[clip_id]), 8):
                    rows.setdefault(clip_id, row)
        stale = self._resized(rows)
        for clip_id, row in list(rows.items()):
            gone = row["status"] == "kept" and not (self.staging.has_record(clip_id) or clip_id in self.places)
            again = retry and row["status"] == "dropped" and row["reason"] in PASSING
            if clip_id in stale or gone or again or clip_id not in self.by_id:
                self.staging.forget(clip_id)
                del rows[clip_id]
        return rows

    def _find_rows_in_shards(self) -> None:
        """Fills `places` from the shards on disk, of this manifest or of an earlier one."""
        for path in sorted((self.out / SHARDS).glob(f"{self.key}-*.parquet")):
            try:
                ids = pq.read_table(path, columns=["clip_id"]).column(0).to_pylist()
            except (pa.ArrowInvalid, OSError):
                path.unlink(missing_ok=True)
                continue
            self.places.update({clip_id: (path, group) for group, clip_id in enumerate(ids)})

    # -- work ----------------------------------------------------------------------------------------------------------

    def _process(
        self, todo: Sequence[Clip], workers: int, scheduler: str | None, progress: Progress
    ) -> Iterator[dict[str, Any]]:
        settings = self.settings.model_dump(mode="json")
        folder, root = str(self.staging.folder.resolve()), str(self.root)
        tasks = [Task(clip.clip_id, (clip, settings, folder, root), self.settings.deadline_s) for clip in todo]
        alike: list[str] = []  # the clips so far, where all of them crashed with the same words
        words: str | None = ""
        for result in run_tasks(PROCESS, tasks, workers=workers, scheduler=scheduler, progress=progress):
            if result.error is None:
                row = result.value
                if words is not None and row["reason"] == Reason.CRASHED and words in ("", row["detail"]):
                    words = row["detail"]
                    alike.append(row["clip_id"])
                    if len(alike) == _ALIKE:
                        for clip_id in alike:
                            self.staging.forget(clip_id)
                        raise UserError(
                            f"the first {_ALIKE} clips all crashed in the same way ({words}).\n"
                            "That is no fault of the clips. Mend it and run the same command again; nothing is lost."
                        )
                else:
                    words = None
                yield row
                continue
            if result.error.reason is Reason.NO_SPACE:
                raise _no_space(self.out)
            clip = self.by_id[result.key]
            row = {
                "clip_id": clip.clip_id,
                "source": relative(clip.video, str(self.root)),
                "status": "dropped",
                "stage": result.stage,
                "reason": result.error.reason.value,
                "detail": result.error.detail,
                "seconds": result.seconds,
            }
            self.staging.put(row, None)
            yield row

    def _name(self, index: int) -> str:
        return f"{self.key}-{self.manifest[:8]}-{index:05d}.parquet"

    def _assemble(self, index: int, rows: dict[str, dict[str, Any]], written: set[str]) -> None:
        """Writes a shard of which every clip is finished; a shard without a kept clip is not written."""
        kept = [clip_id for clip_id in self.shards[index] if rows[clip_id]["status"] == "kept"]
        path = self.out / SHARDS / self._name(index)
        there = path.name in written and all(
            self.places.get(clip_id, (None, 0))[0] == path and not self.staging.has_record(clip_id) for clip_id in kept
        )
        if kept and not there:
            write_atomically(path, lambda file: write_rows(file, map(self._row, kept)))
            self.places.update({clip_id: (path, group) for group, clip_id in enumerate(kept)})
        self.staging.drop_records(kept)

    def _row(self, clip_id: str) -> pa.Table:
        if self.staging.has_record(clip_id):
            return self.staging.record(clip_id)
        path, group = self.places[clip_id]
        with pq.ParquetFile(path) as file:
            return file.read_row_group(group)

    # -- the end -------------------------------------------------------------------------------------------------------

    def _finish(self, rows: dict[str, dict[str, Any]], computed: int) -> PreprocessSummary:
        names = [self._name(index) for index in range(len(self.shards))]
        files = {name: (self.out / SHARDS / name) for name in names}
        present = {name: path.stat().st_size for name, path in files.items() if path.is_file()}
        index = self._index(list(present))
        write_atomically(self.out / CLIPS, lambda file: pq.write_table(index, file, compression="zstd"))
        ledger = self._ledger(rows)
        write_atomically(self.out / LEDGER, lambda file: pq.write_table(ledger, file, compression="zstd"))
        digests = dict(zip(index["clip_id"].to_pylist(), index["clip_digest"].to_pylist(), strict=True))
        outcome = [
            [clip_id, digests.get(clip_id) or [rows[clip_id]["stage"], rows[clip_id]["reason"]]]
            for clip_id in sorted(rows)
        ]
        reasons = Counter(row["reason"] for row in rows.values() if row["status"] == "dropped")
        card = {
            **self._card_head(),
            "complete": True,
            "digest": digest([self.content, outcome], 32),
            "counts": {
                "kept": len(digests),
                "dropped": len(rows) - len(digests),
                "excluded": sum(skip.clip is not None for skip in self.skipped),
                "skipped": sum(skip.clip is None for skip in self.skipped),
                "frames": sum(index["n_frames"].to_pylist()),
                "emotion": _count(index["emotion"]),
                "speaker": _count(index["speaker"]),
                "split": _count(index["split"]),
                "reasons": dict(sorted(reasons.items())),
            },
            "shards": dict(sorted(present.items())),
            "labels": {clip.clip_id: digest(_labels(clip), 8) for clip in self.clips},
        }
        self._write_card(card)
        for path in (self.out / SHARDS).glob("*.parquet"):
            if path.name not in present:
                path.unlink()
        shutil.rmtree(self.out / STAGING, ignore_errors=True)
        return self._summary(card, computed)

    def _index(self, names: list[str]) -> pa.Table:
        columns = [f.name for f in IDENTITY_FIELDS]
        tables = []
        for name in names:
            table = pq.read_table(self.out / SHARDS / name, columns=columns)
            tables.append(
                table.append_column("shard", pa.array([name] * len(table), pa.string())).append_column(
                    "row_group", pa.array(range(len(table)), pa.int32())
                )
            )
        schema = pa.schema([*IDENTITY_FIELDS, pa.field("shard", pa.string()), pa.field("row_group", pa.int32())])
        return pa.concat_tables([t.cast(schema) for t in tables]) if tables else schema.empty_table()

    def _ledger(self, rows: dict[str, dict[str, Any]]) -> pa.Table:
        lines = []
        for clip in self.clips:
            lines.append(rows[clip.clip_id] | self._ledger_labels(clip))
        for skip in self.skipped:
            path = Path(skip.path)
            shown = Path(os.path.relpath(path, self.root)).as_posix() if path.is_absolute() else skip.path
            line = {"source": shown, "stage": "discover", "reason": skip.reason.value, "detail": skip.detail}
            if skip.clip is None:
                lines.append(line | {"status": "skipped"})
            else:
                labels = self._ledger_labels(skip.clip)
                lines.append(line | {"status": "excluded", "clip_id": skip.clip.clip_id} | labels)
        names = [f.name for f in LEDGER_SCHEMA]
        return pa.Table.from_pylist([{name: line.get(name) for name in names} for line in lines], LEDGER_SCHEMA)

    def _ledger_labels(self, clip: Clip) -> dict[str, Any]:
        sound = relative(clip.audio, str(self.root)) if clip.audio is not None else None
        names = ("speaker", "emotion", "intensity", "view", "split")
        return {name: getattr(clip, name) for name in names} | {"audio_source": sound}

    def _card_head(self) -> dict[str, Any]:
        return {
            "dataset": self.dataset,
            "signature": str(self.settings.signature()),
            "settings": self.content,
            "settings_hash": self.key,
            "split_preset": self.preset,
            "manifest": self.manifest,
            "skipped": _skipped_digest(self.skipped),
            "notes": self.notes,
            "versions": {name: _version(name) for name in ("cmet-eval", "av", "mediapipe", "numpy", "pyarrow")},
        }

    def _write_card(self, card: dict[str, Any]) -> None:
        text = json.dumps(card, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.out / CARD, lambda file: file.write(text.encode()))

    def _summary(self, card: dict[str, Any], computed: int) -> PreprocessSummary:
        counts = card["counts"]
        numbers = {name: counts[name] for name in ("kept", "dropped", "excluded", "skipped")}
        return PreprocessSummary(
            self.out,
            card["digest"],
            card["signature"],
            **numbers,
            computed=computed,
            reasons=counts["reasons"],
            notes=self.notes,
        )


def _labels(clip: Clip) -> dict[str, Any]:
    names = ("clip_id", "speaker", "emotion", "emotion_voted", "intensity", "take", "view")
    return {name: getattr(clip, name) for name in (*names, "sentence_id", "transcript", "split")}


def _skipped_digest(skipped: Sequence[readers.Skipped]) -> str:
    return digest([[skip.path, skip.reason.value] for skip in skipped])


def _count(column: pa.ChunkedArray) -> dict[str, int]:
    return dict(sorted(Counter("unknown" if value is None else value for value in column.to_pylist()).items()))


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _no_space(out: Path) -> UserError:
    free = shutil.disk_usage(out).free / 1e6
    return UserError(
        f"the disk of {out} is full ({free:.1f} MB free). Nothing half-written is left.\n"
        "Free some space and run the same command again: it goes on where it stopped."
    )


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the kernel lifts the lock when this process ends, however it ends."""
    with (out / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"another run is writing to {out}; wait for it, or give another folder") from None
        yield
