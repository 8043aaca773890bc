"""Finds files inside tar archives without unpacking the archives. Tars can be nested, or split into part files.

Only headers are read (`cmet_pipelines.readers.tar_headers`). A tar stores its members unchanged, so a member of a
nested tar is a range of bytes of the outer file. Compressed archives cannot be read without unpacking. Each compressed
archive is reported to the user, with the command that unpacks it.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from cmet_pipelines.readers import tar_headers
from cmet_pipelines.readers.base import Discovery, Found, ReaderOptions, hidden, walk
from cmet_pipelines.readers.tar_headers import BadHeader, Cut, Member, Tail
from talking_face.clip import MediaSource
from talking_face.media.source import ByteRange
from talking_face.names import counted, printable
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


def files(root: Path, into: Discovery, options: ReaderOptions | None = None) -> list[Found]:
    """Every file under `root` (resolved): first the files on disk, then the files in tars.

    So an unpacked file comes before the same file in an archive. Part files with consecutive names, such as partaa and
    partab, are read as one tar.

    Args:
        root: the folder, resolved.
        into: gets a row for every other entry.
        options: options of the reader, for the option that follows links; None for the defaults.
    """
    loose: list[Found] = []
    whole: list[Found] = []
    series: defaultdict[tuple[tuple[str, ...], str], dict[str, Found]] = defaultdict(dict)
    for found in walk(root, into, options):
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
    source = replace(source, offset=0, size=size)
    yield from _members(_Archive(found.name, found.parts[:-1], found.place, source, size, 0), into)


@dataclass
class _Archive:
    """One tar while it is read."""

    name: str  # name of the tar in messages
    folder: tuple[str, ...]  # folders above its members
    place: tuple[str, ...]  # as `Found.place`
    source: MediaSource  # the whole tar as a range of bytes
    size: int  # number of bytes in that range
    depth: int  # number of tars around it
    whole: int = 0  # number of complete (not truncated) members read so far


def _members(archive: _Archive, into: Discovery) -> Iterator[Found]:
    """The files inside a tar; see `tar_members`."""
    source, before = archive.source, len(into.skipped)
    try:
        with ByteRange(source.path, source.offset or 0, archive.size, source.parts) as file:
            if why := _no_tar(archive, file.read(64) or b""):
                into.skip(archive.name, *why)
                return
            for member in tar_headers.members(file, archive.size):
                yield from _member(archive, member, into)
            if not archive.whole and len(into.skipped) == before:
                into.skip(archive.name, Reason.EMPTY_FILE, "an archive without files")
    except BadHeader as error:
        into.skip(archive.name, *_unread(archive, error))
    except OSError as error:
        into.skip(archive.name, Reason.UNREADABLE, f"the archive cannot be read: {error.strerror}")


def _unread(archive: _Archive, error: BadHeader) -> tuple[Reason, str]:
    """The reason and the message of an archive whose end is not read.

    After a damaged header, the next block that looks like a header can belong to an archive inside the lost member. Its
    files would then get the labels of another folder. So nothing after a damaged header is used.
    """
    left = f"{max(0, archive.size - error.at):,} bytes are not read"
    if isinstance(error, Tail):
        return Reason.NOT_MEDIA, f"{error} after {counted(archive.whole, 'whole member')}, which are used; {left}"
    if not archive.whole and error.at == 0:
        return Reason.NOT_MEDIA, f"no tar archive: {error}; download it again"
    how = "cut" if isinstance(error, Cut) else "broken"
    used = f"the archive is {how} after {counted(archive.whole, 'whole member')}, which are used"
    return Reason.TRUNCATED, f"{used}: {error} at byte {error.at:,}, and {left}; download it again"


def _member(archive: _Archive, member: Member, into: Discovery) -> Iterator[Found]:
    """Yields the file that one header describes, or the files inside this file if the file is a tar.

    Links, hidden files, names that leave the archive and truncated members are skipped.
    """
    if member.kind == tar_headers.FOLDER:
        return
    shown, path = f"{archive.name}!{printable(member.name)}", PurePosixPath(member.name)
    if refused := _refused(member, path):
        into.skip(shown, Reason.NOT_A_CLIP, refused)
        return
    room = archive.size - member.offset
    source = _source_of(archive.source, member, room)
    place = (*archive.place, member.name)
    if is_archive(path.name) and room > 0:  # if this nested tar is truncated, yield the complete members of the tar
        folder = (*archive.folder, *path.parts[:-1])
        yield from _members(_Archive(shown, folder, place, source, min(member.size, room), archive.depth + 1), into)
    elif member.size > room:
        into.skip(shown, Reason.TRUNCATED, "the archive ends inside this member; download it again")
    else:
        into.list(shown)
        yield Found(shown, (*archive.folder, *path.parts), source, place)
    archive.whole += member.size <= room


def _refused(member: Member, path: PurePosixPath) -> str | None:
    """The reason to skip a member, or None."""
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return "a name that leaves the archive"
    if member.kind != tar_headers.FILE:
        return f"{member.kind} in an archive"
    return hidden(path.parts)


def _source_of(archive: MediaSource, member: Member, room: int) -> MediaSource:
    """The member as a range of bytes of the outermost file. `room` is the number of archive bytes after the header."""
    assert archive.offset is not None
    inside = member.name if archive.member is None else f"{archive.member}!{member.name}"
    start, size = archive.offset + member.offset, min(member.size, max(0, room))
    return MediaSource(archive.path, inside, start, size, archive.parts)


def _no_tar(archive: _Archive, head: bytes) -> tuple[Reason, str] | None:
    """Why the tar whose first bytes are `head` is not read: (reason, message). None: it is read."""
    if not head:
        return Reason.EMPTY_FILE, "an empty file; download it again"
    if head.startswith(b"version https://git-lfs"):
        return Reason.LFS_POINTER, "a git-lfs pointer, not an archive; run `git lfs pull`"
    if archive.depth > _DEEPEST:
        return Reason.NOT_A_CLIP, f"an archive more than {_DEEPEST} deep in others; unpack it"
    for magic, command in _COMPRESSED.items():
        if head.startswith(magic):
            last = re.split("[/!]", archive.name)[-1]
            return Reason.COMPRESSED, f"compressed, so it cannot be read in place; unpack it: {command} {last}"
    return None


def _unbroken(numbered: dict[str, Found]) -> tuple[list[Found], list[Found]]:
    """(the consecutive part files, starting with the first part; all part files after the first missing part)."""
    names = sorted(numbered, key=lambda text: (len(text), text))
    values = [int(text) if text.isdigit() else 26 * (ord(text[0]) - 97) + ord(text[1]) - 97 for text in names]
    start = 1 if values[0] == 1 and names[0].isdigit() else 0
    count = next((i for i, value in enumerate(values) if value != start + i), len(values))
    return [numbered[name] for name in names[:count]], [numbered[name] for name in names[count:]]
