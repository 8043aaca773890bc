"""Lists the clips that earlier runs finished in an output folder, and decides which clips can be used again.

A finished clip is used again if its labels, its source files and its stored row are unchanged. Damaged files are
treated as absent, so the run repairs them: the clips of a damaged shard are processed again, and tables and card are
written again.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import cast

import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.job import STAGING, Job, skipped_digest
from cmet_pipelines.out_folder import LOCK
from cmet_pipelines.records import Card, ClipOutcome, ShardFile
from cmet_pipelines.shards import CARD, CLIPS, LEDGER, SHARDS, shard_problem
from cmet_pipelines.source_files import file_state, hash_or_none
from cmet_pipelines.staging import Staging
from cmet_pipelines.stored_forms import check_card
from talking_face.clip import Clip
from talking_face.files import STRAY
from talking_face.lines import one_line
from talking_face.logs import FOLDER as LOGS
from talking_face.progress import Progress
from talking_face.reasons import Reason, UserError
from talking_face.sealed import Damaged, check_sealed_table, read_sealed_json, read_sealed_table

# If a clip was dropped for one of these reasons, the cause was possibly the machine and not the clip. So the option
# `retry` processes such clips again.
TRANSIENT = frozenset({Reason.DEADLINE, Reason.OUT_OF_MEMORY, Reason.CRASHED, Reason.UNREADABLE, Reason.MISSING_FILE})
# bytes; the progress of the check is printed if the shards have at least so many, because the check then takes over 2 s
_SAID_FROM = 2 << 30
_REPAIR = "it is repaired now"  # the remedy of damage that this run finds


class Inventory:
    """The results of earlier runs with the same settings in the output folder of a job.

    Args:
        job: the job.
        check: True: the digest of every shard is checked, which takes about 1 s per GB. False: only the size and the
            footer are checked of each shard that a card of a finished set names; other shards are checked as with True.
        quiet: True: the progress of the check is not printed.

    Raises UserError if the folder holds other files, or shards that were computed with other settings.
    """

    def __init__(self, job: Job, *, check: bool = True, quiet: bool = False) -> None:
        self.job = job
        self.staging = Staging(job.staging)
        self.damage: list[Damaged] = []  # damaged files that this run repairs
        self.card = self._read_card()
        self.places: dict[str, tuple[Path, int]] = {}  # file and row group of every clip in an undamaged shard
        self._check, self._quiet = check, quiet
        self._touched = False  # whether a source has a new time, but its old content

    def kept_before(self) -> set[str]:
        """Ids of the kept clips in the finished set of the folder. Empty if there is no finished set."""
        return {clip_id for clip_id, outcome in self._recorded.items() if outcome["status"] == "kept"}

    def is_complete(self, outcomes: Mapping[str, ClipOutcome]) -> bool:
        """Whether the folder holds a finished and undamaged set of exactly the job's clips.

        Args:
            outcomes: the outcomes that can be used again.
        """
        card, out = self.card, self.job.out
        return (
            card is not None
            and bool(card.get("complete"))
            and not self.damage
            and not self._touched
            and card["manifest"] == self.job.manifest
            and card["skipped"] == skipped_digest(self.job.skipped)
            and outcomes.keys() == self.job.by_id.keys()
            and (out / CLIPS).is_file()
            and (out / LEDGER).is_file()
        )

    def remove_strays(self) -> None:
        """Removes temporary files that a killed run left."""
        self.staging.clean()
        for path in (*self.job.out.glob(STRAY), *(self.job.out / SHARDS).glob(STRAY)):
            path.unlink(missing_ok=True)

    def finished(self, retry: bool) -> dict[str, ClipOutcome]:
        """Outcomes of the finished clips, from the staging folder and from the shard set of an earlier run.

        Clips in the staging folder that cannot be used again are removed from the folder.

        Args:
            retry: whether clips that were dropped for a transient reason are processed again.
        """
        self.places.update(self._clips_in_shards())
        # The staging folder is emptied at the end of a run. So an outcome in this folder is newer than the ledger.
        outcomes = {**self._recorded, **self.staging.outcomes()}
        for clip_id, outcome in list(outcomes.items()):
            clip = self.job.by_id.get(clip_id)
            lost = outcome["status"] == "kept" and not self._is_stored(clip_id)
            again = retry and is_transient(outcome)
            if clip is None or lost or again or not self._is_unchanged(clip, outcome):
                self.staging.forget(clip_id)
                del outcomes[clip_id]
        return outcomes

    @cached_property
    def _recorded(self) -> dict[str, ClipOutcome]:
        """The outcomes in ledger.parquet. If a kept clip has no row there, its outcome is taken from clips.parquet."""
        ledger, index = self._table(LEDGER), self._table(CLIPS)
        kept = {"status": "kept", "stage": "", "reason": "", "detail": ""}
        rows = [{**row, **kept} for row in index] + [row for row in ledger if row["status"] in ("kept", "dropped")]
        return {str(row["clip_id"]): _outcome_of(row) for row in rows}

    def _table(self, name: str) -> list[dict[str, object]]:
        path = self.job.out / name
        try:
            return read_sealed_table(path, _REPAIR).to_pylist()
        except FileNotFoundError:
            return []
        except Damaged as damage:
            self.damage.append(damage)
            return []

    def _read_card(self) -> Card | None:
        """The card of an earlier run with the same settings.

        None if the card is absent or damaged, or if no earlier run finished a clip.
        """
        job, path = self.job, self.job.out / CARD
        try:
            card = check_card(path, read_sealed_json(path, _REPAIR), _REPAIR, finished=False)
        except FileNotFoundError:
            others = _other_files(job.out)
            if others and not self._has_begun(job.key):
                raise UserError(
                    f"{job.out} holds other files ({others[0]}, ...); give an empty or a new folder"
                ) from None
            return None
        except Damaged as damage:
            if not self._has_begun(job.key):  # then the settings of the folder are unknown
                raise Damaged(path, damage.problem, f"remove {job.out}, or give a new folder, and run again") from None
            self.damage.append(damage)
            return None
        theirs, ours = card["settings"], job.content
        if theirs == ours:
            return card
        if not (card.get("complete") or self._has_begun()):
            return None  # the earlier run ended before its first clip
        keys = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        lines = "; ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} asked for" for key in keys)
        raise UserError(
            f"{job.out} was made with other settings ({lines}).\nGive another folder, or the same settings."
        )

    def _has_begun(self, key: str = "*") -> bool:
        """Whether a run with the settings' hash `key` stored a clip; by default, any run."""
        out = self.job.out
        begun = f"{key}-*.parquet" if key != "*" else "[!.]*.parquet"
        return any((out / SHARDS).glob(begun)) or any((out / STAGING).glob(f"{key}/[!.]*.json"))

    def _clips_in_shards(self) -> dict[str, tuple[Path, int]]:
        """File and row group of every clip in the undamaged shards on disk.

        Shards of an earlier run that selected other clips are included.
        """
        places: dict[str, tuple[Path, int]] = {}
        paths = sorted((self.job.out / SHARDS).glob(f"{self.job.key}-*.parquet"))
        named = self.card.get("shards", {}) if self.card else {}
        absent = named.keys() - {path.name for path in paths}
        self.damage += [Damaged(self.job.out / SHARDS / name, "it is missing", _REPAIR) for name in sorted(absent)]
        few = sum(path.stat().st_size for path in paths) < _SAID_FROM
        with Progress(len(paths), "shards", "checking", self._quiet or few) as progress:
            for path in paths:
                try:
                    places.update(self._clips_in(path, named.get(path.name)))
                except Damaged as damage:
                    self.damage.append(damage)
                progress.advance()
        return places

    def _clips_in(self, path: Path, expected: ShardFile | None) -> dict[str, tuple[Path, int]]:
        """File and row group of every clip in a shard. Raises Damaged."""
        if expected is not None and (problem := shard_problem(path, expected)):
            raise Damaged(path, problem, _REPAIR)
        if self._check or expected is None:
            check_sealed_table(path, _REPAIR)
        try:
            ids = pq.read_table(path, columns=["clip_id"]).column(0).to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise Damaged(path, one_line(error, 100), _REPAIR) from None
        return {clip_id: (path, group) for group, clip_id in enumerate(ids)}

    def _is_stored(self, clip_id: str) -> bool:
        return self.staging.has_record(clip_id) or clip_id in self.places

    def _is_unchanged(self, clip: Clip, outcome: ClipOutcome) -> bool:
        """Whether a clip still has the labels, file names and source files that its outcome records.

        A file with another time but the same size and hash is unchanged; the outcome gets the new time.
        """
        if outcome["entry"] != self.job.entries[clip.clip_id]:
            return False
        sources = {"source": clip.video} | ({"audio": clip.audio} if clip.audio else {})
        found = cast(dict[str, object], outcome)
        for kind, source in sources.items():
            state = file_state(source)
            before = (found[f"{kind}_bytes"], found[f"{kind}_mtime_ns"])
            if state is None or state == before:
                continue
            if before[0] not in (None, state.bytes) or hash_or_none(source) != found[f"{kind}_sha256"]:
                return False
            found[f"{kind}_bytes"], found[f"{kind}_mtime_ns"] = state
            self._touched = True
        return True


def is_transient(outcome: ClipOutcome) -> bool:
    """Whether the clip was dropped for one of the reasons in TRANSIENT."""
    return outcome["status"] == "dropped" and outcome["reason"] in TRANSIENT


def _outcome_of(row: Mapping[str, object]) -> ClipOutcome:
    """The outcome in a ledger row: the row without the clip's labels."""
    return {name: row.get(name) for name in ClipOutcome.__annotations__}  # type: ignore[return-value]


def _other_files(out: Path) -> list[str]:
    """Names of the files in the folder that preprocessing did not write."""
    strays = {path.name for path in out.glob(STRAY)}
    return [path.name for path in out.iterdir() if path.name not in {STAGING, LOCK, SHARDS, LOGS} | strays]
