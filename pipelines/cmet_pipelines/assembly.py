"""Assembles shards from finished clips. A shard is written as soon as all clips of the shard are finished."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from cmet_pipelines.inventory import Inventory
from cmet_pipelines.records import ClipOutcome
from cmet_pipelines.shard_files import row_is_sound, write_shard
from cmet_pipelines.shards import REMEDY, SHARDS
from talking_face.sealed import Damaged


class Assembly:
    """The shards of a job. Each shard is written when its last clip is finished.

    Args:
        inventory: inventory of the output folder. When a shard is written, its clips are added to `inventory.places`.
        outcomes: outcomes of the clips that are already finished, by clip_id. `add` adds further clips to this mapping.
    """

    def __init__(self, inventory: Inventory, outcomes: dict[str, ClipOutcome]) -> None:
        self._job, self._staging, self._places = inventory.job, inventory.staging, inventory.places
        self.outcomes = outcomes
        self._unfinished = [sum(clip_id not in outcomes for clip_id in ids) for ids in self._job.shards]
        self._shard_of = {clip_id: index for index, ids in enumerate(self._job.shards) for clip_id in ids}

    def write_complete(self) -> None:
        """Writes the shards whose clips were all finished before this run."""
        for index, count in enumerate(self._unfinished):
            if count == 0:
                self._write(index)

    def add(self, outcome: ClipOutcome) -> None:
        """Adds one finished clip. If no other clip of the same shard is unfinished, writes the shard."""
        self.outcomes[outcome["clip_id"]] = outcome
        index = self._shard_of[outcome["clip_id"]]
        self._unfinished[index] -= 1
        if self._unfinished[index] == 0:
            self._write(index)

    def _write(self, index: int) -> None:
        """Writes a shard whose clips are all finished. If all clips of the shard were dropped, no file is written."""
        kept = kept_of(self._job.shards[index], self.outcomes)
        path = self._job.out / SHARDS / self._job.shard_name(index)
        unchanged = all(
            self._places.get(clip_id) == (path, group) and not self._staging.has_record(clip_id)
            for group, clip_id in enumerate(kept)
        )
        if not kept:
            path.unlink(missing_ok=True)
        elif not unchanged:
            write_shard(path, map(self._row, kept))
            self._places.update({clip_id: (path, group) for group, clip_id in enumerate(kept)})
        self._staging.drop_records(kept)

    def _row(self, clip_id: str) -> pa.Table:
        if self._staging.has_record(clip_id):
            return self._staging.record(clip_id)
        path, group = self._places[clip_id]
        with pq.ParquetFile(path, page_checksum_verification=True) as file:
            row = file.read_row_group(group)
        if not row_is_sound(row):
            raise Damaged(path, f"clip {clip_id}: it is not what was written", REMEDY)
        return row


def kept_of(clip_ids: list[str], outcomes: Mapping[str, ClipOutcome]) -> list[str]:
    """The ids of the kept clips, in the order of `clip_ids`."""
    return [clip_id for clip_id in clip_ids if outcomes[clip_id]["status"] == "kept"]
