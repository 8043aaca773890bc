"""Writes a bundle's folder as a zip file, and opens a folder or a zip file as a folder whose files are safe to read.

The same folder gives the same bytes. A zip file of a bundle is not compressed, because videos are compressed already.
So its files have together at most the size of the zip file. After it is unpacked, it is packed again: a zip file with
other bytes contains something that `cmet-eval submit` does not write, and is refused.
"""

from __future__ import annotations

import os
import shutil
import stat
import struct
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from cmet_eval.bundles.form import (
    LARGEST,
    LARGEST_TEXT,
    LARGEST_VIDEO,
    MANIFEST,
    MOST_FILES,
    NAME_OF_FILE,
    Fault,
    Refused,
    is_video,
    shown,
)
from talking_face.files import open_regular, replacing, sha256_of
from talking_face.scratch import scratch_folder

_BLOCK = 1 << 20  # bytes per read
_DATE = (1980, 1, 1, 0, 0, 0)  # the first date that a zip file can store
_END, _END_MARK = struct.Struct("<4s4H2LH"), b"PK\5\6"  # the record at the end of a zip file
_LOCATOR, _LOCATOR_MARK = 20, b"PK\6\7"  # bytes before the end, and their mark if the sizes of the end do not hold
_LARGEST_ENTRY = 46 + 240  # bytes of a file in the list of a zip file
_MODE = (stat.S_IFREG | 0o644) << 16


def write_zip(folder: Path, path: Path) -> None:
    """Packs the files of a bundle's folder by an atomic rename. The same files give the same bytes."""
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(found.relative_to(folder).as_posix() for found in folder.rglob("*") if found.is_file()):
            info = zipfile.ZipInfo(name, _DATE)
            info.external_attr, info.create_system = _MODE, 3
            with (folder / name).open("rb") as source, archive.open(info, "w") as target:
                shutil.copyfileobj(source, target, _BLOCK)


@contextmanager
def opened(path: Path) -> Iterator[tuple[Path, tuple[str, ...]]]:
    """The folder of a bundle and the names of its files, sorted; a zip file is unpacked into a temporary folder.

    Raises Refused if a name is not that of a bundle's file, a file is a link or not a regular file, or there are too
    many files or bytes.
    """
    if path.is_symlink():
        raise Refused(Fault.LINK, f"{shown(path.name)} is a link")
    if path.is_dir():
        yield path, _names_in(path)
        return
    with scratch_folder() as scratch:
        yield _unpacked(path, scratch / "bundle")


def _names_in(folder: Path) -> tuple[str, ...]:
    """The names of all files in a folder. No link is followed."""
    sizes: dict[str, int] = {}
    waiting = [folder]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                name = Path(entry.path).relative_to(folder).as_posix()
                mode = entry.stat(follow_symlinks=False).st_mode
                if stat.S_ISLNK(mode):
                    raise Refused(Fault.LINK, f"{shown(name)} is a link")
                if stat.S_ISDIR(mode):
                    waiting.append(Path(entry.path))
                elif stat.S_ISREG(mode):
                    sizes[name] = entry.stat(follow_symlinks=False).st_size
                else:
                    raise Refused(Fault.LINK, f"{shown(name)} is not a regular file")
                _check_count(len(sizes) + len(waiting))
    for name, size in sizes.items():
        _check_member(name, size)
    _check_total(sum(sizes.values()))
    return tuple(sorted(sizes))


def _unpacked(path: Path, folder: Path) -> tuple[Path, tuple[str, ...]]:
    try:
        with open_regular(path) as file:
            _check_end(file)
            archive = zipfile.ZipFile(file)
            members = archive.infolist()
            _check_count(len(members))
            for info in members:
                _check_entry(info)
            if sum(info.file_size for info in members) > path.stat().st_size:
                raise Refused(Fault.TOO_LARGE, f"the files of {shown(path.name)} overlap: they have more bytes than it")
            for info in members:
                _extract(archive, info, folder / info.filename)
    except (zipfile.BadZipFile, NotImplementedError, EOFError, ValueError, RuntimeError) as error:
        text = f"{shown(path.name)} is neither a folder nor a zip file of a bundle: {error}"
        raise Refused(Fault.NOT_A_BUNDLE, text) from None
    again = folder.parent / "again.zip"
    write_zip(folder, again)
    if sha256_of(again) != sha256_of(path):
        text = f"{shown(path.name)} has other bytes than a zip file that `cmet-eval submit` writes of these files"
        raise Refused(Fault.NOT_CANONICAL, text)
    again.unlink()
    return folder, tuple(sorted(info.filename for info in members))


def _check_end(file: BinaryIO) -> None:
    """Checks the end of a zip file before its list of members is read into memory."""
    size = file.seek(0, os.SEEK_END)
    _check_total(size)
    file.seek(max(0, size - _LOCATOR - _END.size))
    locator, end = file.read(_LOCATOR), file.read(_END.size)
    if len(end) < _END.size or end[:4] != _END_MARK:
        raise zipfile.BadZipFile("it does not end as a zip file without a comment")
    if locator[:4] == _LOCATOR_MARK:  # zipfile would then take the size of the list from another record
        raise zipfile.BadZipFile("it has the form for more than 4 GiB")
    _, _, _, _, count, listed, _, _ = _END.unpack(end)
    _check_count(count)
    if listed > MOST_FILES * _LARGEST_ENTRY:
        raise Refused(Fault.TOO_MANY_FILES, f"the list of its files has {listed} bytes")


def _check_entry(info: zipfile.ZipInfo) -> None:
    mode = info.external_attr >> 16
    if stat.S_ISLNK(mode):
        raise Refused(Fault.LINK, f"{shown(info.filename)} is a link")
    if info.orig_filename != info.filename:  # zipfile cuts a name at a NUL byte
        raise Refused(Fault.BAD_PATH, f"{shown(info.orig_filename)!r} is not the name of a file of a bundle")
    if info.compress_type != zipfile.ZIP_STORED or info.compress_size != info.file_size:
        raise Refused(
            Fault.TOO_LARGE, f"{shown(info.filename)} is compressed; the files of a bundle are stored as they are"
        )
    if info.header_offset < 0:  # zipfile corrects an offset that the end of the file contradicts
        raise zipfile.BadZipFile(f"{shown(info.filename)} begins before the file")
    _check_member(info.filename, info.file_size)


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, target: Path) -> None:
    """Writes one member. At most the bytes that its header states are read."""
    if target.exists():
        raise Refused(Fault.NOT_CANONICAL, f"{shown(info.filename)} is in the zip file twice")
    target.parent.mkdir(parents=True, exist_ok=True)
    with archive.open(info) as source, target.open("wb") as file:
        shutil.copyfileobj(source, file, _BLOCK)


def _check_count(count: int) -> None:
    if count > MOST_FILES:
        raise Refused(Fault.TOO_MANY_FILES, f"it has more than {MOST_FILES} files")


def _check_member(name: str, size: int) -> None:
    if not NAME_OF_FILE.fullmatch(name):
        inside = not name.startswith("/") and ".." not in name.split("/")
        plain = name.isascii() and name.isprintable() and "\\" not in name
        fault = Fault.EXTRA_FILE if inside and plain else Fault.BAD_PATH
        raise Refused(fault, f"{shown(name)!r} is not the name of a file of a bundle")
    most = LARGEST_VIDEO if is_video(name) else LARGEST_TEXT
    if size > most:
        raise Refused(Fault.TOO_LARGE, f"{shown(name)} has {size} bytes; at most {most} are allowed")


def _check_total(size: int) -> None:
    if size > LARGEST:
        raise Refused(Fault.TOO_LARGE, f"its files have {size} bytes; at most {LARGEST} are allowed")


def check_manifest_is_there(names: tuple[str, ...]) -> None:
    """Raises Refused if the names do not contain that of the manifest."""
    if MANIFEST not in names:
        raise Refused(Fault.NOT_A_BUNDLE, f"it has no {MANIFEST}; `cmet-eval submit` writes a bundle")
