"""Opens the file of a MediaSource: a regular file, or a member of a tar archive, which is read as a byte range."""

from __future__ import annotations

import errno
import io
import os
import tarfile
from bisect import bisect_right
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from itertools import accumulate
from pathlib import Path
from typing import BinaryIO, cast

from talking_face.clip import MediaSource
from talking_face.files import open_regular
from talking_face.reasons import ClipError, Reason

Source = MediaSource | str | Path

_LFS = b"version https://git-lfs"
_LARGEST_TEXT = 64 << 20  # bytes; the largest label file of a dataset, of MELD, has 1 MB


class ByteRange(io.RawIOBase):
    """A read-only, seekable file object for an uncompressed tar member: `size` bytes from the position `offset`.

    `parts` are the files that follow `path` in a split archive. `offset` is counted from the start of the file `path`.
    """

    def __init__(self, path: str, offset: int, size: int, parts: tuple[str, ...] = ()) -> None:
        super().__init__()
        self._paths = (path, *parts)
        self._starts = [0, *accumulate(Path(part).stat().st_size for part in self._paths)][:-1]
        self._part = 0  # index in `_paths` of the open file
        self._file = open_regular(path)
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
            self._file = open_regular(self._paths[part])
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
def open_source(source: Source) -> Iterator[BinaryIO]:
    """Yields an open, seekable file object at position 0: a regular file, or the bytes of a tar member.

    Raises ClipError with the reason missing-file, empty-file, lfs-pointer, not-media or unreadable. These errors are
    found before a decoder reads the file.
    """
    source = as_source(source)
    with ExitStack() as stack:
        with reading(source):
            file, size = stack.enter_context(_opened(source))
            _check_head(source, size, file.read(64) or b"")
            file.seek(0)
        yield file


@contextmanager
def reading(source: Source) -> Iterator[None]:
    """Converts an OSError that occurs in the block, while `source` is opened or read, to a ClipError."""
    source = as_source(source)
    try:
        yield
    except FileNotFoundError:
        raise ClipError(Reason.MISSING_FILE, f"{source} does not exist") from None
    except IsADirectoryError:
        raise ClipError(Reason.NOT_MEDIA, f"{source} is a folder") from None
    except PermissionError:
        raise ClipError(Reason.UNREADABLE, f"{source} may not be read; check its permissions") from None
    except OSError as error:
        if error.errno == errno.EINVAL:
            raise ClipError(Reason.NOT_MEDIA, f"{source} is not a regular file, but a pipe or a device") from None
        raise ClipError(Reason.UNREADABLE, f"{source} cannot be read: {error.strerror or error}") from None


def read_source(source: Source, limit: int = _LARGEST_TEXT) -> bytes:
    """All bytes of a source of at most `limit` bytes, for files of labels and transcripts.

    Raises ClipError: not-media if the source is larger, or a reason of `open_source`.
    """
    with open_source(source) as file, reading(source):
        data = file.read(limit + 1)
    if len(data) > limit:
        raise ClipError(Reason.NOT_MEDIA, f"{as_source(source)} is larger than {limit >> 20} MB")
    return data


@contextmanager
def _opened(source: MediaSource) -> Iterator[tuple[BinaryIO, int]]:
    """The file object of a source, and its size in bytes."""
    if source.member is None:
        with open_regular(source.path) as file:
            yield file, os.fstat(file.fileno()).st_size
        return
    offset, size = (
        (source.offset, source.size) if source.offset is not None and source.size is not None else _find_member(source)
    )
    with ByteRange(source.path, offset, size, source.parts) as member:
        yield cast(BinaryIO, member), size


def _check_head(source: MediaSource, size: int, head: bytes) -> None:
    if size == 0:
        raise ClipError(Reason.EMPTY_FILE, f"{source} is empty; get or make it again")
    if size < 1024 and head.startswith(_LFS):
        raise ClipError(Reason.LFS_POINTER, f"{source} is a git-lfs pointer, not media; run `git lfs pull`")


def _find_member(source: MediaSource) -> tuple[int, int]:
    try:
        with open_regular(source.path) as file, tarfile.open(fileobj=file, mode="r:") as archive:
            info = archive.getmember(source.member or "")
            return info.offset_data, info.size
    except (tarfile.TarError, KeyError):
        raise ClipError(Reason.MISSING_FILE, f"{source.member} is not in {source.path}, or the tar is cut") from None
