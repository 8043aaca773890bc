"""Opens the file of a MediaSource: a plain file, or a member of a tar archive, which is read as a byte range."""

from __future__ import annotations

import io
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO

from talking_face.clip import MediaSource
from talking_face.reasons import ClipError, Reason

Source = MediaSource | str | Path

_LFS = b"version https://git-lfs"


class ByteRange(io.RawIOBase):
    """A read-only, seekable file object for an uncompressed tar member: `size` bytes from the position `offset`.

    `parts` are the files that follow `path` in a split archive. `offset` is counted from the start of the file `path`.
    """

    def __init__(self, path: str, offset: int, size: int, parts: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._paths = (path, *parts)
        self._starts = [0, *accumulate(Path(part).stat().st_size for part in self._paths)][:-1]
        self._part = 0  # index in `_paths` of the open file
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
        done = 0
        while done < wanted:
            data = self._read(self._offset + self._at, wanted - done)
            if not data:
                break
            buffer[done : done + len(data)] = data
            done += len(data)
            self._at += len(data)
        return done

    def _read(self, at: int, wanted: int) -> bytes:
        """Up to `wanted` bytes from `at`, counted from the start of the first file; b"" after the last file."""
        part = bisect_right(self._starts, at) - 1
        if part != self._part:
            self._file.close()
            self._file = Path(self._paths[part]).open("rb")  # noqa: SIM115 - closed in close()
            self._part = part
        self._file.seek(at - self._starts[part])
        if part + 1 < len(self._starts):
            wanted = min(wanted, self._starts[part + 1] - at)
        return self._file.read(wanted)

    def close(self) -> None:
        self._file.close()
        super().close()


def as_source(source: Source) -> MediaSource:
    """A MediaSource for a path; a MediaSource is returned unchanged."""
    return source if isinstance(source, MediaSource) else MediaSource(str(source))


@contextmanager
def open_source(source: Source) -> Iterator[str | BinaryIO]:
    """Yields a path that PyAV can open or, for a tar member, a seekable file object.

    Raises ClipError with the reason missing-file, empty-file, lfs-pointer, not-media or unreadable. These errors are
    found before a decoder reads the file.
    """
    source = as_source(source)
    try:
        if source.member is None:
            with Path(source.path).open("rb") as file:
                _check_head(source, Path(source.path).stat().st_size, file.read(64))
            yield source.path
            return
        offset, size = (
            (source.offset, source.size)
            if source.offset is not None and source.size is not None
            else _find_member(source)
        )
        with ByteRange(source.path, offset, size, source.parts) as member:
            _check_head(source, size, member.read(64) or b"")
            member.seek(0)
            yield member  # type: ignore[misc]
    except FileNotFoundError:
        raise ClipError(Reason.MISSING_FILE, f"{source} does not exist") from None
    except IsADirectoryError:
        raise ClipError(Reason.NOT_MEDIA, f"{source} is a folder") from None
    except PermissionError:
        raise ClipError(Reason.UNREADABLE, f"{source} may not be read; check its permissions") from None


def _check_head(source: MediaSource, size: int, head: bytes) -> None:
    if size == 0:
        raise ClipError(Reason.EMPTY_FILE, f"{source} is empty; get or make it again")
    if size < 1024 and head.startswith(_LFS):
        raise ClipError(Reason.LFS_POINTER, f"{source} is a git-lfs pointer, not media; run `git lfs pull`")


def _find_member(source: MediaSource) -> tuple[int, int]:
    try:
        with tarfile.open(source.path, "r:") as archive:
            info = archive.getmember(source.member or "")
            return info.offset_data, info.size
    except (tarfile.TarError, KeyError):
        raise ClipError(Reason.MISSING_FILE, f"{source.member} is not in {source.path}, or the tar is cut") from None
