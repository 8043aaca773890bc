"""Lists the clips that earlier runs finished in an output folder, and decides which clips can be used again."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.job import STAGING, Job, clip_labels, skipped_digest
from cmet_pipelines.records import Card, ClipOutcome
from cmet_pipelines.shards import CARD, CLIPS, LEDGER, SHARDS
from cmet_pipelines.source_files import source_bytes
from cmet_pipelines.staging import Staging
from talking_face.files import STRAY
from talking_face.reasons import Reason, UserError
from talking_face.signature import digest

LOCK = ".lock"
# If a clip was dropped for one of these reasons, the cause was possibly the machine and not the clip. So the option
# `retry` processes such clips again.
TRANSIENT = frozenset({Reason.DEADLINE, Reason.CRASHED, Reason.UNREADABLE, Reason.MISSING_FILE})


class Inventory:
    """The results of earlier runs with the same settings in the output folder of a job.

    Raises UserError if the folder holds other files, a damaged card, or shards that were computed with other settings.
    """

    def __init__(self, job: Job) -> None:
        self.job = job
        self.staging = Staging(job.staging)
        self.card = self._read_card()
        self.places: dict[str, tuple[Path, int]] = {}  # file and row group of every clip that is in a shard

    def kept_before(self) -> set[str]:
        """Ids of the kept clips in the finished set of the folder. Empty if there is no finished set."""
        path = self.job.out / CLIPS
        return set(pq.read_table(path, columns=["clip_id"]).column(0).to_pylist()) if path.is_file() else set()

    def is_current(self) -> bool:
        """Whether the folder holds a finished set of exactly the job's clips, and no file of the set is missing."""
        card, out = self.card, self.job.out
        if card is None or not card.get("complete"):
            return False
        present = all(
            (path := out / SHARDS / name).is_file() and path.stat().st_size == size
            for name, size in card.get("shards", {}).items()
        )
        return (
            card.get("manifest") == self.job.manifest
            and "excluded" in card.get("counts", {})  # cards of an earlier version lack this key and are written again
            and card.get("skipped") == skipped_digest(self.job.skipped)
            and present
            and (out / CLIPS).is_file()
            and (out / LEDGER).is_file()
            and not self._resized(self.ledger)
        )

    def has_transient_failures(self) -> bool:
        """Whether the finished set dropped a clip for a transient reason."""
        return any(is_transient(outcome) for outcome in self.ledger.values())

    @cached_property
    def ledger(self) -> dict[str, ClipOutcome]:
        """Outcomes of all clips in the folder's ledger, by clip_id."""
        path = self.job.out / LEDGER
        rows = pq.read_table(path).to_pylist() if path.is_file() else []
        return {row["clip_id"]: _outcome_of(row) for row in rows if row["status"] in ("kept", "dropped")}

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
        outcomes = self.staging.outcomes()
        self.places.update(self._clips_in_shards())
        if self.card:  # the ledger of the earlier run is valid until this run replaces it
            labels = self.card.get("labels", {})
            for clip_id, outcome in self.ledger.items():
                clip = self.job.by_id.get(clip_id)
                if clip is not None and labels.get(clip_id) == digest(clip_labels(clip), 8):
                    outcomes.setdefault(clip_id, outcome)
        resized = self._resized(outcomes)
        for clip_id, outcome in list(outcomes.items()):
            lost = outcome["status"] == "kept" and not self._is_stored(clip_id)
            again = retry and is_transient(outcome)
            if clip_id in resized or lost or again or clip_id not in self.job.by_id:
                self.staging.forget(clip_id)
                del outcomes[clip_id]
        return outcomes

    def shards_on_disk(self) -> set[str]:
        """Names of this job's shards that an earlier run wrote."""
        names = (self.job.shard_name(index) for index in range(len(self.job.shards)))
        return {name for name in names if (self.job.out / SHARDS / name).is_file()}

    def _read_card(self) -> Card | None:
        """The card of an earlier run with the same settings. None if no earlier run finished a clip."""
        job = self.job
        path = job.out / CARD
        try:
            card: Card = json.loads(path.read_text("utf-8"))
        except FileNotFoundError:
            if others := _other_files(job.out):
                raise UserError(
                    f"{job.out} holds other files ({others[0]}, ...); give an empty or a new folder"
                ) from None
            return None
        except ValueError:
            raise UserError(f"{path} is damaged; remove {job.out} and run again") from None
        theirs, ours = card.get("settings", {}), job.content
        if theirs == ours:
            return card
        if not (card.get("complete") or self._has_begun()):
            return None  # the earlier run ended before its first clip
        keys = sorted(key for key in theirs.keys() | ours.keys() if theirs.get(key) != ours.get(key))
        lines = "; ".join(f"{key}: {theirs.get(key)!r} there, {ours.get(key)!r} asked for" for key in keys)
        raise UserError(
            f"{job.out} was made with other settings ({lines}).\nGive another folder, or the same settings."
        )

    def _has_begun(self) -> bool:
        out = self.job.out
        return any((out / SHARDS).glob("[!.]*.parquet")) or any((out / STAGING).glob("*/[!.]*.json"))

    def _clips_in_shards(self) -> dict[str, tuple[Path, int]]:
        """File and row group of every clip in the shards on disk, including shards of an earlier selection of clips."""
        places: dict[str, tuple[Path, int]] = {}
        for path in sorted((self.job.out / SHARDS).glob(f"{self.job.key}-*.parquet")):
            try:
                ids = pq.read_table(path, columns=["clip_id"]).column(0).to_pylist()
            except (pa.ArrowInvalid, OSError):
                path.unlink(missing_ok=True)
                continue
            places.update({clip_id: (path, group) for group, clip_id in enumerate(ids)})
        return places

    def _is_stored(self, clip_id: str) -> bool:
        return self.staging.has_record(clip_id) or clip_id in self.places

    def _resized(self, outcomes: Mapping[str, ClipOutcome]) -> set[str]:
        """Ids of the clips whose file size differs from the size in the outcome, because the file was replaced."""
        changed = set()
        for clip_id, outcome in outcomes.items():
            clip = self.job.by_id.get(clip_id)
            before = outcome.get("source_bytes")
            if clip is None or before is None:
                continue
            size = source_bytes(clip.video)
            if size is not None and size != before:
                changed.add(clip_id)
        return changed


def is_transient(outcome: ClipOutcome) -> bool:
    """Whether the clip was dropped for one of the reasons in TRANSIENT."""
    return outcome["status"] == "dropped" and outcome["reason"] in TRANSIENT


def _outcome_of(row: Mapping[str, object]) -> ClipOutcome:
    """The outcome in a ledger row: the row without the clip's labels."""
    return {name: row.get(name) for name in ClipOutcome.__annotations__}  # type: ignore[return-value]


def _other_files(out: Path) -> list[str]:
    """Names of the files in the folder that preprocessing did not write."""
    strays = {path.name for path in out.glob(STRAY)}
    return [path.name for path in out.iterdir() if path.name not in {STAGING, LOCK, SHARDS} | strays]
