"""Defines the `videos` adapter: a method whose finished videos are in a folder, one file per pair.

The videos are scored as they are. Only the rules `landmark-similarity` and `cut-or-hold-last` give new videos.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from cmet_baselines.adapters.conform import read_output
from cmet_baselines.method import Case
from talking_face.files import sha256_of
from talking_face.names import check_pattern
from talking_face.reasons import ClipError, Reason

# These two rules give new videos, which are encoded again. The other rules are applied when a video is scored, as the
# options --size and --length of `cmet-eval score`.
VideosSize = Literal["as-is", "resize", "face-crop", "landmark-similarity"]
VideosLength = Literal["as-is", "shorter", "linspace", "cut-or-hold-last"]


class VideosRun(BaseModel):
    """The table `[videos]` of an entry: where the videos are stored. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    pattern: str = "{setting}/{pair}.mp4"  # a video's path in the folder; {pair}: name from `cmet-eval pairs --export`
    size: VideosSize = "as-is"
    length: VideosLength = "as-is"

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

    @property
    def keeps_files(self) -> bool:
        """Whether the videos are scored as they are, so that no video is encoded again."""
        return self.run.size != "landmark-similarity" and self.run.length != "cut-or-hold-last"

    def generate(self, case: Case) -> np.ndarray:
        """The video of the case, by the rules that give new videos. Raises the same ClipErrors as `read_output`."""
        size = self.run.size if self.run.size == "landmark-similarity" else "as-is"
        length = self.run.length if self.run.length == "cut-or-hold-last" else "as-is"
        return read_output(self.path(case), case, size, length)

    def file(self, case: Case) -> Path:
        """The video file of the case. Raises ClipError with reason missing-output or empty-file."""
        path = self.path(case)
        if not path.is_file():
            raise ClipError(Reason.MISSING_OUTPUT, f"the method wrote no {path.name}")
        if path.stat().st_size == 0:
            raise ClipError(Reason.EMPTY_FILE, f"{path.name} is empty")
        return path

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
