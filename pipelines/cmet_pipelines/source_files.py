"""Computes names, sizes and hashes of source files, on disk or inside a tar archive."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from talking_face.clip import MediaSource
from talking_face.media.source import open_source, reading

_BLOCK = 1 << 20  # bytes per read


def relative_path(source: MediaSource, root: str) -> str:
    """The source's path relative to the root; `archive!member` for a file in a tar.

    Shards store this relative path, so the content of a shard does not depend on the folder of the dataset.
    """
    path = os.path.relpath(source.path, root).replace(os.sep, "/")
    return path if source.member is None else f"{path}!{source.member}"


def source_bytes(source: MediaSource) -> int | None:
    """Size of the file or tar member in bytes. None if the file cannot be read."""
    try:
        return source.size if source.member is not None else Path(source.path).stat().st_size
    except OSError:
        return None


def source_sha256(source: MediaSource) -> str:
    """SHA-256 of the file or tar member, 64 hex digits. Raises ClipError if the file cannot be read."""
    sha = hashlib.sha256()
    with open_source(source) as file, reading(source):
        while block := file.read(_BLOCK):
            sha.update(block)
    return sha.hexdigest()
