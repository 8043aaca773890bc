"""Defines the `videos` adapter, which reads a method's finished videos from a folder, one file per pair."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from cmet_baselines.adapters.conform import LengthRule, SizeRule, read_output
from cmet_baselines.method import Case
from talking_face.files import sha256_of
from talking_face.names import check_pattern


class VideosRun(BaseModel):
    """The table `[videos]` of an entry: where the videos are stored. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    pattern: str = "{setting}/{pair}.mp4"  # a video's path in the folder; {pair}: name from `cmet-eval pairs --export`
    size: SizeRule = "as-is"
    length: LengthRule = "as-is"

    @field_validator("pattern")
    @classmethod
    def _names_the_pair(cls, value: str) -> str:
        if "{pair}" not in check_pattern(value, ("pair", "setting")):
            raise ValueError("the pattern needs {pair}")
        return value


class VideosMethod:
    """A method with finished videos. If a file changes, the revision changes, so that the videos are scored again."""

    def __init__(self, name: str, revision: str, sees: frozenset[str], run: VideosRun) -> None:
        self.name, self.revision, self.sees, self.run = name, revision, sees, run

    def generate(self, case: Case) -> np.ndarray:
        """The video of the case. Raises the same ClipErrors as `read_output`."""
        return read_output(self.path(case), case, self.run.size, self.run.length)

    def path(self, case: Case) -> Path:
        """The expected path of the case's video."""
        return self.run.folder / self.run.pattern.format(pair=case.file_name, setting=case.setting)


def folder_revision(folder: Path) -> str:
    """A hash (12 hex digits) of the names, sizes and modification times of all files in the folder."""
    lines = sorted(
        f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}"
        for path in folder.rglob("*")
        if path.is_file()
        for status in (path.stat(),)
    )
    return sha256_of("\n".join(lines).encode())[:12]
