"""Opening a MediaSource: a plain file, or a byte range of a tar archive read in place."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from talking_face.clip import MediaSource
from talking_face.reasons import ClipError, Reason

Source = MediaSource | str | Path

_LFS = b"version https://git-lfs"


class ByteRange(io.RawIOBase):
    """A read-only, seekable view of `size` bytes of a file from `offset`: an uncompressed tar member as it lies."""

    def __init__(self, path: str, offset: int, size: int) -> None:
        super().__init__()
        self._file = Path(path).open("rb")  # noqa: SIM115 - closed in close()
        self._offset, self._size, self._at = offset, size, 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._size}[whence]
        self._at = max(0, base + offset)
        return self._at

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        wanted = min(len(buffer), max(0, self._size - self._at))
        self._file.seek(self._offset + self._at)
        data = self._file.read(wanted)
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()


def as_source(source: Source) -> MediaSource:
    """A MediaSource for a path, or the source itself."""
    return source if isinstance(source, MediaSource) else MediaSource(str(source))


@contextmanager
def open_source(source: Source) -> Iterator[str | BinaryIO]:
    """What PyAV can open for `source`: a path, or a seekable file of a tar member's bytes.

    Raises ClipError (missing-file, empty-file, lfs-pointer, unreadable) before any decoder sees the bytes.
    """
    source = as_source(source)
    try:
        if source.member is None:
            _check_head(source, Path(source.path).stat().st_size, _head(source.path, 0))
            yield source.path
            return
        offset, size = (
            (source.offset, source.size)
            if source.offset is not None and source.size is not None
            else _find_member(source)
        )
        _check_head(source, size, _head(source.path, offset, size))
        with ByteRange(source.path, offset, size) as member:
            yield member  # type: ignore[misc]
    except FileNotFoundError:
        raise ClipError(Reason.MISSING_FILE, f"{source} does not exist") from None
    except IsADirectoryError:
        raise ClipError(Reason.NOT_MEDIA, f"{source} is a folder") from None
    except PermissionError:
        raise ClipError(Reason.UNREADABLE, f"{source} may not be read; check its permissions") from None


def _head(path: str, offset: int, size: int = 64) -> bytes:
    with Path(path).open("rb") as file:
        file.seek(offset)
        return file.read(min(size, 64))


def _check_head(source: MediaSource, size: int, head: bytes) -> None:
    if size == 0:
        raise ClipError(Reason.EMPTY_FILE, f"{source} is empty; download it again")
    if size < 1024 and head.startswith(_LFS):
        raise ClipError(Reason.LFS_POINTER, f"{source} is a git-lfs pointer, not media; run `git lfs pull`")


def _find_member(source: MediaSource) -> tuple[int, int]:
    try:
        with tarfile.open(source.path, "r:") as archive:
            info = archive.getmember(source.member or "")
            return info.offset_data, info.size
    except (tarfile.TarError, KeyError):
        raise ClipError(Reason.MISSING_FILE, f"{source.member} is not in {source.path}, or the tar is cut") from None
