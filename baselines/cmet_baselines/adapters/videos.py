"""The `videos` adapter: a method whose videos lie in a folder already, one file a pair."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, field_validator

from cmet_baselines.adapters.bring import LengthRule, SizeRule, read_output
from cmet_baselines.method import Case


class VideosRun(BaseModel):
    """Where the videos lie: the table `[videos]` of an entry. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    folder: Path
    pattern: str = "{setting}/{pair}.mp4"  # below the folder; {pair} is the file name of `cmet-eval pairs --export`
    size: SizeRule = "as-is"
    length: LengthRule = "as-is"

    @field_validator("pattern")
    @classmethod
    def _names_the_pair(cls, value: str) -> str:
        try:
            names = {value.format(pair=x, setting="s") for x in "xy"}
        except (KeyError, IndexError, ValueError) as error:
            raise ValueError(f"the pattern may hold {{pair}} and {{setting}} only ({error})") from None
        if len(names) < 2:
            raise ValueError("the pattern needs {pair}")
        return value


class VideosMethod:
    """A method whose videos were made before. The revision follows the files: a new file is scored anew."""

    def __init__(self, name: str, revision: str, sees: frozenset[str], run: VideosRun) -> None:
        self.name, self.revision, self.sees, self.run = name, revision, sees, run

    def generate(self, case: Case) -> np.ndarray:
        """The pair's video. Raises what `read_output` raises."""
        return read_output(self.path(case), case, self.run.size, self.run.length)

    def path(self, case: Case) -> Path:
        """Where the pair's video should lie."""
        return self.run.folder / self.run.pattern.format(pair=case.file_name, setting=case.setting)


def folder_revision(folder: Path) -> str:
    """12 hex digits over names, sizes and times of the folder's files."""
    lines = sorted(
        f"{path.relative_to(folder)}\0{status.st_size}\0{status.st_mtime_ns}"
        for path in folder.rglob("*")
        if path.is_file()
        for status in (path.stat(),)
    )
    return hashlib.sha256("\n".join(lines).encode()).hexdigest()[:12]
