"""Reads, hashes and writes whole files. A written file gets its final name by an atomic rename."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path

from talking_face.reasons import ClipError, Reason

STRAY = ".*.part*"  # glob pattern of the temporary files that remain if a process is killed inside `replacing`


@contextmanager
def replacing(path: Path, *, durable: bool = False) -> Iterator[Path]:
    """Yields a temporary path in the folder of `path`. At the end of the block the temporary file is renamed to `path`.

    A process that reads `path` finds either the old file or the complete new file. If the block fails, the temporary
    file is removed and `path` is unchanged. Missing parent folders are created. The temporary name has the suffix of
    `path`, because encoders choose the container by the suffix.

    Args:
        path: the file to write or replace.
        durable: True: the file is flushed to the disk before the rename. Use True for data that cannot be computed
            again, because without the flush a power failure can leave an empty file. If only the process is killed,
            `path` is never incomplete, with or without `durable`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.part{path.suffix}")
    try:
        yield temporary
        if durable:
            with temporary.open("rb") as file:
                os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def check_writable(folder: Path) -> None:
    """Raises OSError if the folder cannot be made, or files cannot be made in it. Nothing is left there.

    A command checks its output folder before its work, because the first file may be written only after minutes.
    """
    place = Path(os.path.abspath(folder))  # noqa: PTH100 - `resolve` fails for a loop of links
    while True:
        try:
            status = place.stat()
            break
        except FileNotFoundError:
            if place.is_symlink():
                raise
            place = place.parent
    if not stat.S_ISDIR(status.st_mode):
        raise NotADirectoryError(errno.ENOTDIR, f"{os.strerror(errno.ENOTDIR)}; give another folder", str(place))
    try:
        with tempfile.TemporaryDirectory(prefix=".cmet-eval-", dir=place):
            return
    except OSError as error:  # its own message names the temporary folder
        raise OSError(error.errno, f"{error.strerror}; give a folder that you may write", str(folder)) from None


def write_bytes(path: Path, data: bytes, *, durable: bool = False) -> None:
    """Writes a file by an atomic rename; see `replacing`."""
    with replacing(path, durable=durable) as temporary:
        temporary.write_bytes(data)


def write_text(path: Path, text: str, *, durable: bool = False) -> None:
    """Writes UTF-8 text by an atomic rename, with unchanged line ends; see `replacing`."""
    write_bytes(path, text.encode(), durable=durable)


def open_regular(path: Path | str) -> BufferedReader:
    """Opens a regular file, or a link to one, for reading.

    Reading a FIFO would wait for a writer, and reading /dev/zero would never end. Therefore every other kind of file is
    refused before it is opened.

    Raises:
        IsADirectoryError: the path is a folder.
        OSError: the file is a FIFO, a device or a socket (EINVAL), or cannot be opened.
    """
    mode = Path(path).stat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder", str(path))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    # O_NONBLOCK: if the file was replaced by a FIFO since the check, the call still returns at once.
    return open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK))


@contextmanager
def unchanged(path: Path, sha256: str) -> Iterator[None]:
    """A block that reads `path`. Its result belongs to the content with this SHA-256.

    The file is hashed before and after the block.

    Raises:
        ClipError: the file has another SHA-256 before or after the block, or cannot be read; the reason is `changed`.
    """
    _check_content(path, sha256)
    yield
    _check_content(path, sha256)


def _check_content(path: Path, sha256: str) -> None:
    try:
        found = sha256_of(path)
    except OSError as error:
        raise ClipError(Reason.CHANGED, f"{path.name} cannot be read any more ({error.strerror})") from None
    if found != sha256:
        detail = f"{path.name} was changed after its SHA-256 was computed; run the same command again"
        raise ClipError(Reason.CHANGED, detail)


def sha256_of(data: bytes | Path) -> str:
    """The SHA-256 of bytes or of a regular file's content, 64 hex digits.

    Raises OSError if the file cannot be read or is not a regular file; see `open_regular`.
    """
    if isinstance(data, Path):
        with open_regular(data) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    return hashlib.sha256(data).hexdigest()
