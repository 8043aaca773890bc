"""Finished clips on their way into shards: one small file each, so that a kill loses only the clips under way.

A kept clip has `<name>.arrow`, its row; every finished clip has `<name>.json`, its ledger row, written last: it
says that the clip is done. Files appear whole or not at all (temporary name, sync, rename).
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO

import pyarrow as pa

from cmet_pipelines.shards import SCHEMA, Record, to_table


class Staging:
    """The staging folder of one shard set and one hash of settings."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def put(self, ledger: dict[str, Any], record: Record | None) -> None:
        """Stores a finished clip. Raises OSError where the disk is full, leaving nothing that counts as done."""
        self.folder.mkdir(parents=True, exist_ok=True)
        name = self._name(ledger["clip_id"])
        if record is not None:
            table = to_table(record)

            def write(file: BinaryIO) -> None:
                with pa.ipc.new_file(file, SCHEMA) as writer:
                    writer.write_table(table)

            write_atomically(self.folder / f"{name}.arrow", write)
        text = json.dumps(ledger, ensure_ascii=False, sort_keys=True)
        write_atomically(self.folder / f"{name}.json", lambda file: file.write(text.encode()))

    def ledger(self) -> dict[str, dict[str, Any]]:
        """The ledger rows of all finished clips, by clip_id."""
        rows: dict[str, dict[str, Any]] = {}
        for path in sorted(self.folder.glob("*.json")) if self.folder.is_dir() else ():
            try:
                row = json.loads(path.read_text("utf-8"))
                rows[row["clip_id"]] = row
            except (ValueError, KeyError):  # cut by a power failure: not done
                path.unlink(missing_ok=True)
        return rows

    def has_record(self, clip_id: str) -> bool:
        """Whether the clip's row lies here."""
        return (self.folder / f"{self._name(clip_id)}.arrow").is_file()

    def record(self, clip_id: str) -> pa.Table:
        """The clip's row: a table of one row."""
        with pa.memory_map(str(self.folder / f"{self._name(clip_id)}.arrow")) as file:
            return pa.ipc.open_file(file).read_all()

    def drop_records(self, clip_ids: list[str]) -> None:
        """Removes rows that are safe in a shard; the ledger rows stay."""
        for clip_id in clip_ids:
            (self.folder / f"{self._name(clip_id)}.arrow").unlink(missing_ok=True)

    def forget(self, clip_id: str) -> None:
        """Makes the clip not done."""
        (self.folder / f"{self._name(clip_id)}.json").unlink(missing_ok=True)
        self.drop_records([clip_id])

    def clean(self) -> None:
        """Removes what a kill left half written."""
        for path in self.folder.glob(".*.part") if self.folder.is_dir() else ():
            path.unlink(missing_ok=True)

    @staticmethod
    def _name(clip_id: str) -> str:
        return hashlib.sha256(clip_id.encode()).hexdigest()[:24]


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Calls `write` with a temporary file beside `path`, syncs it and renames it into place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
