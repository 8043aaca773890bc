"""Finds files inside tar archives without unpacking the archives. Tars can be nested, or split into part files.

Only headers are read. A tar stores its members unchanged, so a member of a nested tar is a range of bytes of the outer
file. Compressed archives cannot be read without unpacking. Each compressed archive is reported to the user, with the
command that unpacks it.
"""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cmet_pipelines.readers.base import Discovery, Found, hidden, walk
from talking_face.clip import MediaSource
from talking_face.media.source import ByteRange
from talking_face.reasons import Reason

_SUFFIXES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
_DEEPEST = 4  # maximum number of tars that contain a tar; in MEAD, a tar is inside at most one other tar

# First bytes of compressed archives, and the commands that unpack them. A tar.gz is often named .tar.
_COMPRESSED = {
    b"\x1f\x8b": "tar -xzf",
    b"BZh": "tar -xjf",
    b"\xfd7zXZ\0": "tar -xJf",
    b"\x28\xb5\x2f\xfd": "tar --zstd -xf",
    b"PK\x03\x04": "unzip",
    b"7z\xbc\xaf": "7z x",
    b"Rar!": "unrar x",
}

# Names of part files: lrs2_v1_partaa, video.tar.part01, video.tar.aa, video.tar.001
_PART = re.compile(r"(.*part[._-]?|.+\.tar\.)((?!gz|bz|xz|lz)[a-z]{2}|\d{1,3})")


def files(root: Path, into: Discovery) -> list[Found]:
    """Every file under `root` (resolved): first the files on disk, then the files in tars.

    So an unpacked file comes before the same file in an archive. Part files with consecutive names, such as partaa and
    partab, are read as one tar.
    """
    loose: list[Found] = []
    whole: list[Found] = []
    series: defaultdict[tuple[tuple[str, ...], str], dict[str, Found]] = defaultdict(dict)
    for found in walk(root, into):
        name = found.parts[-1]
        if part := _PART.fullmatch(name):
            series[found.parts[:-1], part[1]][part[2]] = found
        else:
            (whole if is_archive(name) else loose).append(found)
    for archive in whole:
        loose.extend(tar_members(archive, into))
    for numbered in series.values():
        run, rest = _unbroken(numbered)
        if run:
            loose.extend(tar_members(run[0], into, run[1:]))
        for found in rest:
            into.skip(found.name, Reason.MISSING_FILE, "a part of an archive; a part before it is not here")
    return loose


def is_archive(name: str) -> bool:
    """Whether a file name has the suffix of an archive, either a tar or a compressed archive."""
    return name.lower().endswith(_SUFFIXES)


def tar_members(found: Found, into: Discovery, parts: Sequence[Found] = ()) -> Iterator[Found]:
    """The files inside a tar, in the order of the tar, including the files of nested tars.

    A file's name has the form `outer.tar!inner.tar!member`. If the tar is truncated, the complete members are yielded.
    All other entries are recorded in `into.skipped`: links, paths that point outside the archive, a truncated member, a
    file that is not an archive. A broken archive does not raise an error.

    Args:
        found: the tar.
        into: its list `skipped` gets the entries that are not yielded.
        parts: if the tar is split into part files, the second and all later part files.
    """
    for part in parts:
        into.skip(part.name, Reason.NOT_A_CLIP, f"continues {found.name}, with which it is read")
    source = replace(found.source, parts=tuple(part.source.path for part in parts))
    try:
        size = sum(Path(path).stat().st_size for path in (source.path, *source.parts))
    except OSError as error:
        into.skip(found.name, Reason.UNREADABLE, f"the archive cannot be read: {error.strerror}")
        return
    yield from _members(found.name, found.parts[:-1], replace(source, offset=0, size=size), into, 0)


@dataclass
class _Archive:
    """One tar while it is read."""

    name: str  # name of the tar in messages
    folder: tuple[str, ...]  # folders above its members
    source: MediaSource  # the whole tar as a range of bytes
    size: int  # number of bytes in that range
    depth: int  # number of tars around it
    whole: int = 0  # number of complete (not truncated) members read so far


def _members(name: str, folder: tuple[str, ...], source: MediaSource, into: Discovery, depth: int) -> Iterator[Found]:
    """The files inside the tar at the byte range of `source`; see `tar_members`."""
    assert source.offset is not None and source.size is not None
    archive = _Archive(name, folder, source, source.size, depth)
    before = len(into.skipped)
    try:
        with ByteRange(source.path, source.offset, source.size, source.parts) as file:
            head = file.read(64) or b""
            if why := _no_tar(name, head, depth):
                into.skip(name, *why)
                return
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined] # otherwise tar keeps every header: 300 MB for LRS2
                    yield from _member(archive, member, into)
                end = tar.offset
            _check_end(archive, file, end, into, unmentioned=len(into.skipped) == before)
    except (tarfile.TarError, EOFError, ValueError) as error:
        used = f"cut or broken after {archive.whole} whole members, which are used"
        detail = f"{f'the archive is {used}' if archive.whole else 'no tar archive'}: {error}; download it again"
        into.skip(name, Reason.TRUNCATED if archive.whole else Reason.NOT_MEDIA, detail)
    except OSError as error:
        into.skip(name, Reason.UNREADABLE, f"the archive cannot be read: {error.strerror}")


def _member(archive: _Archive, member: tarfile.TarInfo, into: Discovery) -> Iterator[Found]:
    """Yields the file that one header describes, or the files inside this file if the file is a tar.

    Links, hidden files, names that leave the archive and truncated members are skipped.

    Raises tarfile.ReadError for a broken header.
    """
    if member.size < 0:
        raise tarfile.ReadError("a member of negative size")
    if member.isdir():
        return
    shown, path = f"{archive.name}!{member.name}", PurePosixPath(member.name)
    if refused := _refused(member, path):
        into.skip(shown, Reason.NOT_A_CLIP, refused)
        return
    room = archive.size - member.offset_data
    source = _source_of(archive.source, member, room)
    if is_archive(path.name) and room > 0:  # if this nested tar is truncated, yield the complete members of the tar
        yield from _members(shown, (*archive.folder, *path.parts[:-1]), source, into, archive.depth + 1)
    elif member.size > room:
        into.skip(shown, Reason.TRUNCATED, "the archive ends inside this member; download it again")
    else:
        into.listed.add(shown)
        yield Found(shown, (*archive.folder, *path.parts), source)
    archive.whole += member.size <= room


def _refused(member: tarfile.TarInfo, path: PurePosixPath) -> str | None:
    """The reason to skip a member, or None."""
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return "a name that leaves the archive"
    if not member.isfile() or member.issparse():
        return "a link, a device or a sparse file in an archive"
    return hidden(path.parts)


def _source_of(archive: MediaSource, member: tarfile.TarInfo, room: int) -> MediaSource:
    """The member as a range of bytes of the outermost file. `room` is the number of archive bytes after the header."""
    assert archive.offset is not None
    inside = member.name if archive.member is None else f"{archive.member}!{member.name}"
    return replace(archive, member=inside, offset=archive.offset + member.offset_data, size=min(member.size, room))


def _check_end(archive: _Archive, file: ByteRange, end: int, into: Discovery, unmentioned: bool) -> None:
    """Records an archive that is truncated, broken or empty.

    A complete archive ends with a block of zeros. The module tarfile also stops without an error at a truncated or
    broken header. So this function checks whether the archive ends with a block of zeros.

    Args:
        archive: the archive, with the number of its complete members.
        file: the bytes of the archive.
        end: position at which tarfile stopped.
        into: records the archive.
        unmentioned: whether nothing in the archive was skipped.
    """
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        how = "cut" if archive.size - end < tarfile.BLOCKSIZE else "broken"
        detail = f"the archive is {how} after {archive.whole} whole members, which are used; download it again"
        into.skip(archive.name, Reason.TRUNCATED, detail)
    elif not archive.whole and unmentioned:
        into.skip(archive.name, Reason.EMPTY_FILE, "an archive without files")


def _no_tar(name: str, head: bytes, depth: int) -> tuple[Reason, str] | None:
    """The reason why a file with the first bytes `head` cannot be read as a tar. None if the file can be a tar."""
    if not head:
        return Reason.EMPTY_FILE, "an empty file; download it again"
    if head.startswith(b"version https://git-lfs"):
        return Reason.LFS_POINTER, "a git-lfs pointer, not an archive; run `git lfs pull`"
    if depth > _DEEPEST:
        return Reason.NOT_A_CLIP, f"an archive more than {_DEEPEST} deep in others; unpack it"
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            last = re.split("[/!]", name)[-1]
            return Reason.COMPRESSED, f"compressed, so it cannot be read in place; unpack it: {command} {last}"
    return None


def _unbroken(numbered: dict[str, Found]) -> tuple[list[Found], list[Found]]:
    """(the consecutive part files, starting with the first part; all part files after the first missing part)."""
    names = sorted(numbered, key=lambda text: (len(text), text))
    values = [int(text) if text.isdigit() else 26 * (ord(text[0]) - 97) + ord(text[1]) - 97 for text in names]
    start = 1 if values[0] == 1 and names[0].isdigit() else 0
    count = next((i for i, value in enumerate(values) if value != start + i), len(values))
    return [numbered[name] for name in names[:count]], [numbered[name] for name in names[count:]]
