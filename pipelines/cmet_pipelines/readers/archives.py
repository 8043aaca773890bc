"""The files inside tar archives, read in place: whole tars, tars in tars, and tars that lie in several part files.

Only headers are read. A tar stores its members as they are, so a member of a nested tar is a range of bytes of the
outer file. What is compressed cannot be read so, and is reported with the command that unpacks it.
"""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from cmet_pipelines.readers.base import Discovery, Found, hidden, walk
from talking_face.clip import MediaSource
from talking_face.media.source import ByteRange
from talking_face.reasons import Reason

_SUFFIXES = (".tar", ".tgz", ".tbz", ".tbz2", ".txz", ".gz", ".bz2", ".xz", ".zst", ".zip", ".7z", ".rar")
_DEEPEST = 4  # tars in tars; MEAD's are two deep

# First bytes of what cannot be read in place, and what unpacks it. A tar.gz is often named .tar.
_COMPRESSED = {
    b"\x1f\x8b": "tar -xzf",
    b"BZh": "tar -xjf",
    b"\xfd7zXZ\0": "tar -xJf",
    b"\x28\xb5\x2f\xfd": "tar --zstd -xf",
    b"PK\x03\x04": "unzip",
    b"7z\xbc\xaf": "7z x",
    b"Rar!": "unrar x",
}

# lrs2_v1_partaa, video.tar.part01, video.tar.aa, video.tar.001
_PART = re.compile(r"(.*part[._-]?|.+\.tar\.)((?!gz|bz|xz|lz)[a-z]{2}|\d{1,3})")


def files(root: Path, into: Discovery) -> list[Found]:
    """Every file under `root` (resolved): those on disk, then those in tars, whatever way the tars lie there.

    So an extracted file comes before the one in its archive. Part files whose names count on (partaa, partab) are read
    as one tar.
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
    """Whether a file of this name is for `tar_members`, which says of a compressed one how to unpack it."""
    return name.lower().endswith(_SUFFIXES)


def tar_members(found: Found, into: Discovery, parts: Sequence[Found] = ()) -> Iterator[Found]:
    """The files inside a tar, in its own order, those of tars in it too. `parts` are the files that continue it.

    Their names are shown as `outer.tar!inner.tar!member`; a tar counts as its folder. A truncated tar yields its whole
    members. Everything else goes into `into.skipped`: members that are links or whose names leave the archive, what is
    cut off, an archive that is none. Nothing is raised.
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


def _members(name: str, folder: tuple[str, ...], archive: MediaSource, into: Discovery, depth: int) -> Iterator[Found]:
    """`archive`: the whole tar as a range of bytes. `name`: how it is shown."""
    assert archive.offset is not None and archive.size is not None
    told = len(into.skipped)
    whole = 0
    try:
        with ByteRange(archive.path, archive.offset, archive.size, archive.parts) as file:
            head = file.read(64) or b""
            if why := _no_tar(name, head, depth):
                into.skip(name, *why)
                return
            file.seek(0)
            with tarfile.open(fileobj=file, mode="r:") as tar:
                while (member := tar.next()) is not None:
                    tar.members.clear()  # type: ignore[attr-defined] # it keeps every header otherwise: 300 MB for LRS2
                    if member.size < 0:
                        raise tarfile.ReadError("a member of negative size")
                    if member.isdir():
                        continue
                    shown, path = f"{name}!{member.name}", PurePosixPath(member.name)
                    room = archive.size - member.offset_data
                    if path.is_absolute() or ".." in path.parts or not path.parts:
                        into.skip(shown, Reason.NOT_A_CLIP, "a name that leaves the archive")
                        continue
                    if not member.isfile() or member.issparse():
                        into.skip(shown, Reason.NOT_A_CLIP, "a link, a device or a sparse file in an archive")
                        continue
                    if passed := hidden(path.parts):
                        into.skip(shown, Reason.NOT_A_CLIP, passed)
                        continue
                    inside = member.name if archive.member is None else f"{archive.member}!{member.name}"
                    source = replace(
                        archive, member=inside, offset=archive.offset + member.offset_data, size=min(member.size, room)
                    )
                    if is_archive(path.name) and room > 0:  # of a nested tar that is cut, the whole members count
                        yield from _members(shown, (*folder, *path.parts[:-1]), source, into, depth + 1)
                    elif member.size > room:
                        into.skip(shown, Reason.TRUNCATED, "the archive ends inside this member; download it again")
                    else:
                        yield Found(shown, (*folder, *path.parts), source)
                    whole += member.size <= room
                end = tar.offset
            # tarfile takes a header that is cut or broken for the end. The end is marked by a block of zeros.
            file.seek(end)
            if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
                how = "cut" if archive.size - end < tarfile.BLOCKSIZE else "broken"
                detail = f"the archive is {how} after {whole} whole members, which are used; download it again"
                into.skip(name, Reason.TRUNCATED, detail)
            elif not whole and len(into.skipped) == told:
                into.skip(name, Reason.EMPTY_FILE, "an archive without files")
    except (tarfile.TarError, EOFError, ValueError) as error:
        used = f"cut or broken after {whole} whole members, which are used"
        detail = f"{f'the archive is {used}' if whole else 'no tar archive'}: {error}; download it again"
        into.skip(name, Reason.TRUNCATED if whole else Reason.NOT_MEDIA, detail)
    except OSError as error:
        into.skip(name, Reason.UNREADABLE, f"the archive cannot be read: {error.strerror}")


def _no_tar(name: str, head: bytes, depth: int) -> tuple[Reason, str] | None:
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
    """(the parts that follow one another from the first, those behind a gap)."""
    names = sorted(numbered, key=lambda text: (len(text), text))
    values = [int(text) if text.isdigit() else 26 * (ord(text[0]) - 97) + ord(text[1]) - 97 for text in names]
    start = 1 if values[0] == 1 and names[0].isdigit() else 0
    count = next((i for i, value in enumerate(values) if value != start + i), len(values))
    return [numbered[name] for name in names[:count]], [numbered[name] for name in names[count:]]
