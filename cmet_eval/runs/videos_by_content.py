"""Finds videos by their SHA-256, for folders whose files have names of their own."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from talking_face.files import sha256_of


@dataclass(frozen=True)
class VideosByContent:
    """The files below a folder, by SHA-256. They are hashed when the first file is searched for."""

    folder: Path

    def find(self, sha256s: Iterable[str]) -> Path | None:
        """A file with one of these digests; None if there is none."""
        return next((self._paths[sha] for sha in sorted(sha256s) if sha in self._paths), None)

    @cached_property
    def _paths(self) -> dict[str, Path]:
        files = sorted(path for path in self.folder.rglob("*") if path.is_file())
        return {sha256_of(path): path for path in reversed(files)}
