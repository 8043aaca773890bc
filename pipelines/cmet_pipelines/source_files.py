"""Computes names, sizes, times and hashes of source files, on disk or inside a tar archive.

A clip is processed again if one of its source files was exchanged. Size and time of the last change decide this without
reading the file. If only the time differs, for example after a copy to another machine, the hash decides.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import NamedTuple

from talking_face.clip import MediaSource
from talking_face.media.source import open_source, reading
from talking_face.names import printable, storable
from talking_face.reasons import ClipError

_BLOCK = 1 << 20  # bytes per read


def relative_path(source: MediaSource, root: str) -> str:
    """The source's path relative to the root, printable; `archive!member` for a file in a tar.

    Shards store this relative path, so the content of a shard does not depend on the folder of the dataset. Bytes that
    are not UTF-8 and control characters are escaped as in `talking_face.names.printable`.
    """
    path = os.path.relpath(source.path, root).replace(os.sep, "/")
    return printable(path if source.member is None else f"{path}!{source.member}")


def below(root: str, text: str) -> str:
    """A message as a shard set stores it: paths below `root` become relative to `root`; see `names.storable`."""
    return storable(text.replace(f"{root}{os.sep}", ""))


class FileState(NamedTuple):
    """Size of a source file or tar member in bytes, and the last change of the file or archive, ns since 1970."""

    bytes: int
    mtime_ns: int


def file_state(source: MediaSource) -> FileState | None:
    """The present state of a source file. None if the file cannot be found."""
    try:
        found = [Path(path).stat() for path in (source.path, *source.parts)]
    except OSError:
        return None
    size = source.size if source.member is not None and source.size is not None else found[0].st_size
    return FileState(size, max(file.st_mtime_ns for file in found))


def source_sha256(source: MediaSource) -> str:
    """SHA-256 of the file or tar member, 64 hex digits. Raises ClipError if the file cannot be read."""
    sha = hashlib.sha256()
    with open_source(source) as file, reading(source):
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()


def hash_or_none(source: MediaSource) -> str | None:
    """SHA-256 of the file or tar member, 64 hex digits. None if the file cannot be read."""
    try:
        return source_sha256(source)
    except ClipError:
        return None
