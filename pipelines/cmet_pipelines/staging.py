"""Stores finished clips until their shard is complete, so that a killed run loses only the clips in progress.

Every finished clip has a file `<name>.json` with the outcome of the clip. A kept clip also has a file `<name>.arrow`
with the row of the clip. The outcome is written last, so the json file shows that the clip is finished. Both files are
written atomically and synced to the disk. The json file holds a digest of itself and of the row; a clip whose files are
damaged counts as unfinished.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import cast

import pyarrow as pa

from cmet_pipelines.records import SCHEMA, ClipOutcome, ClipRecord
from cmet_pipelines.shard_files import to_table
from talking_face.files import STRAY, replacing, sha256_of
from talking_face.sealed import Damaged, read_sealed_json, write_sealed_json

_REMEDY = "run the same command again, which processes the clip again"
_RECORD = "record_sha256"  # in the json file: the digest of the row's file


class Staging:
    """The staging folder of one job (`Job.staging`). Jobs with other settings have other folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, outcome: ClipOutcome, record: ClipRecord | None) -> None:
        """Stores a finished clip. If the disk is full, raises OSError, and the clip counts as unfinished."""
        path = self._path(outcome["clip_id"], ".arrow")
        sha = None
        if record is not None:
            table = to_table(record)
            with replacing(path, durable=True) as temporary:
                with temporary.open("wb") as file, pa.ipc.new_file(file, SCHEMA) as writer:
                    writer.write_table(table)
                sha = sha256_of(temporary)
        write_sealed_json(path.with_suffix(".json"), {**outcome, _RECORD: sha}, durable=True)

    def outcomes(self) -> dict[str, ClipOutcome]:
        """The outcomes of all finished clips, by clip_id. Removes damaged files."""
        found: dict[str, ClipOutcome] = {}
        for path in sorted(self.folder.glob("[!.]*.json")) if self.folder.is_dir() else ():
            try:
                outcome = read_sealed_json(path, _REMEDY)
                record = path.with_suffix(".arrow")  # absent if the row is in a shard
                if record.is_file() and sha256_of(record) != outcome[_RECORD]:
                    raise Damaged(record, "it is not what was written", _REMEDY)
            except Damaged:  # for example, a power failure truncated the file
                path.unlink(missing_ok=True)
                path.with_suffix(".arrow").unlink(missing_ok=True)
                continue
            found[outcome["clip_id"]] = cast(ClipOutcome, {k: v for k, v in outcome.items() if k != _RECORD})
        return found

    def has_record(self, clip_id: str) -> bool:
        """Whether the clip's row is in the staging folder."""
        return self._path(clip_id, ".arrow").is_file()

    def record(self, clip_id: str) -> pa.Table:
        """The clip's row, as a table of one row. Raises Damaged if it is not what was written."""
        path = self._path(clip_id, ".arrow")
        if sha256_of(path) != read_sealed_json(path.with_suffix(".json"), _REMEDY)[_RECORD]:
            raise Damaged(path, "it is not what was written", _REMEDY)
        with pa.memory_map(str(path)) as file:
            return pa.ipc.open_file(file).read_all()

    def drop_records(self, clip_ids: Iterable[str]) -> None:
        """Removes the rows of clips that are in a shard. The outcomes of these clips stay."""
        for clip_id in clip_ids:
            self._path(clip_id, ".arrow").unlink(missing_ok=True)

    def forget(self, clip_id: str) -> None:
        """Removes the clip's outcome and row, so that the clip counts as unfinished."""
        self._path(clip_id, ".json").unlink(missing_ok=True)
        self.drop_records([clip_id])

    def clean(self) -> None:
        """Removes temporary files, and rows without an outcome, that a killed run left."""
        if not self.folder.is_dir():
            return
        rows = (path for path in self.folder.glob("[!.]*.arrow") if not path.with_suffix(".json").exists())
        for path in (*self.folder.glob(STRAY), *rows):
            path.unlink(missing_ok=True)

    def _path(self, clip_id: str, suffix: str) -> Path:
        """One of the clip's files. The name is a hash, because clip ids contain slashes and can be long."""
        return self.folder / f"{sha256_of(clip_id.encode())[:24]}{suffix}"
