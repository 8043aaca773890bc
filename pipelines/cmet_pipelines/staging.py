"""Stores finished clips until their shard is complete, so that a killed run loses only the clips in progress.

Every finished clip has a file `<name>.json` with the outcome of the clip. A kept clip also has a file `<name>.arrow`
with the row of the clip. The outcome is written last, so the json file shows that the clip is finished. Both files are
written atomically and synced to the disk.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path

import pyarrow as pa

from cmet_pipelines.records import SCHEMA, ClipOutcome, ClipRecord
from cmet_pipelines.shard_files import to_table
from talking_face.files import STRAY, replacing, sha256_of, write_text


class Staging:
    """The staging folder of one job (`Job.staging`). Jobs with other settings or other clips have other folders."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, outcome: ClipOutcome, record: ClipRecord | None) -> None:
        """Stores a finished clip. If the disk is full, raises OSError, and the clip counts as unfinished."""
        name = _file_name(outcome["clip_id"])
        if record is not None:
            table = to_table(record)
            with (
                replacing(self.folder / f"{name}.arrow", durable=True) as temporary,
                temporary.open("wb") as file,
                pa.ipc.new_file(file, SCHEMA) as writer,
            ):
                writer.write_table(table)
        text = json.dumps(outcome, ensure_ascii=False, sort_keys=True)
        write_text(self.folder / f"{name}.json", text, durable=True)

    def outcomes(self) -> dict[str, ClipOutcome]:
        """The outcomes of all finished clips, by clip_id."""
        found: dict[str, ClipOutcome] = {}
        for path in sorted(self.folder.glob("[!.]*.json")) if self.folder.is_dir() else ():
            try:
                outcome: ClipOutcome = json.loads(path.read_text("utf-8"))
                found[outcome["clip_id"]] = outcome
            except (ValueError, KeyError):  # a power failure truncated the file, so the clip counts as unfinished
                path.unlink(missing_ok=True)
        return found

    def has_record(self, clip_id: str) -> bool:
        """Whether the clip's row is in the staging folder."""
        return (self.folder / f"{_file_name(clip_id)}.arrow").is_file()

    def record(self, clip_id: str) -> pa.Table:
        """The clip's row, as a table of one row."""
        with pa.memory_map(str(self.folder / f"{_file_name(clip_id)}.arrow")) as file:
            return pa.ipc.open_file(file).read_all()

    def drop_records(self, clip_ids: Iterable[str]) -> None:
        """Removes the rows of clips that are in a shard. The outcomes of these clips stay."""
        for clip_id in clip_ids:
            (self.folder / f"{_file_name(clip_id)}.arrow").unlink(missing_ok=True)

    def forget(self, clip_id: str) -> None:
        """Removes the clip's outcome and row, so that the clip counts as unfinished."""
        (self.folder / f"{_file_name(clip_id)}.json").unlink(missing_ok=True)
        self.drop_records([clip_id])

    def clean(self) -> None:
        """Removes temporary files that a killed run left."""
        for path in self.folder.glob(STRAY) if self.folder.is_dir() else ():
            path.unlink(missing_ok=True)


def _file_name(clip_id: str) -> str:
    """The clip's file name without suffix. The name is a hash, because clip ids contain slashes and can be long."""
    return sha256_of(clip_id.encode())[:24]
