"""Reads the headers of a tar archive from any file, also from a hostile file: bounded memory, and each block once.

The module `tarfile` is not used, because a header can make it allocate the size that the header declares, or loop
without end, and because it ends without an error at a damaged header. Formats: V7, ustar, GNU and PAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from io import SEEK_SET
from typing import Protocol

BLOCK = 512  # bytes; every header and every member begins at a multiple of it
_LONGEST_EXTENSION = 1 << 20  # bytes of a long name or of PAX records; Linux paths have at most 4,096
_MOST_EXTENSIONS = 64  # extended headers before one member
_MOST_SPARSE_BLOCKS = 20_000  # blocks of a sparse map, 21 segments each
_MOST_ZEROS = 4 << 20  # bytes of zeros between two archives in one file; tar pads to 10,240 or a chosen multiple

_ZEROS = bytes(BLOCK)

FILE, FOLDER = "a file", "a folder"
_KINDS = {
    **dict.fromkeys((b"0", b"\0", b"7"), FILE),
    **{b"1": "a hard link", b"2": "a symbolic link", b"3": "a device", b"4": "a device", b"5": FOLDER, b"6": "a pipe"},
    b"S": "a sparse file",
}
_LONG_NAME, _LONG_LINK, _PAX, _PAX_SOLARIS, _PAX_GLOBAL = b"L", b"K", b"x", b"X", b"g"
_EXTENSIONS = (_LONG_NAME, _LONG_LINK, _PAX, _PAX_SOLARIS, _PAX_GLOBAL)
_WITHOUT_DATA = (b"1", b"2", b"3", b"4", b"5", b"6")  # their size field does not count bytes of the archive


class Readable(Protocol):
    """A seekable binary file."""

    def seek(self, offset: int, whence: int = SEEK_SET) -> int: ...

    def read(self, size: int = -1) -> bytes | None: ...


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive. Bytes of `name` that are not UTF-8 are lone surrogates, as in names on disk."""

    name: str
    kind: str  # FILE, FOLDER, or a text for any other entry, such as `a symbolic link`
    offset: int  # first byte of its content, counted from the start of the archive
    size: int  # declared size in bytes; the archive can be shorter


class BadHeader(Exception):
    """The archive cannot be read from the position `at` on; the message says why."""

    def __init__(self, at: int, why: str) -> None:
        super().__init__(why)
        self.at = at


class Cut(BadHeader):
    """The file ends inside the archive."""


class Tail(BadHeader):
    """The archive is complete, but other bytes follow it."""


def members(file: Readable, size: int) -> Iterator[Member]:
    """The entries of an archive, and of the archives that are concatenated to it.

    Args:
        file: the archive.
        size: its size in bytes.

    Raises BadHeader (or Cut, Tail) after the last entry that can be read, unless the archive is complete. OSError: the
    file cannot be read.
    """
    at, ended = 0, False
    common: dict[str, bytes] = {}  # PAX records for all members
    while at < size:
        block = _read(file, at, BLOCK)
        if len(block) < BLOCK:
            raise (Tail if ended else Cut)(at, f"it ends with {len(block)} bytes of a header")
        if block == _ZEROS:
            at, ended = _after_zeros(file, at), True
            continue
        try:
            member, at = _member(file, at, block, common)
        except BadHeader as error:
            raise (Tail(at, "the bytes after its end are not a tar") if ended else error) from None
        ended = False
        yield member
    if not ended:
        raise Cut(size, "it has no end mark")


def _member(file: Readable, at: int, block: bytes, common: dict[str, bytes]) -> tuple[Member, int]:
    """(the entry whose header, or whose first extended header, is at `at`; position of the next header)."""
    start = at
    own: dict[str, bytes] = {}
    for _ in range(_MOST_EXTENSIONS):
        kind, declared = _checked(block, at)
        if kind not in _EXTENSIONS:
            break
        if declared > _LONGEST_EXTENSION:
            raise BadHeader(start, f"a name or extended header of {declared} bytes")
        data = _read(file, at + BLOCK, declared)
        if len(data) < declared:
            raise Cut(start, "it ends inside an extended header")
        if kind == _LONG_NAME:
            own["path"] = data.split(b"\0", 1)[0]
        elif kind != _LONG_LINK:
            (common if kind == _PAX_GLOBAL else own).update(_pax(data, start))
        at += BLOCK + _padded(declared)
        block = _read(file, at, BLOCK)
        if len(block) < BLOCK:
            raise Cut(start, "it ends after an extended header")
    else:
        raise BadHeader(start, f"more than {_MOST_EXTENSIONS} extended headers of one member")
    return _described(file, at, block, (kind, declared), {**common, **own} if common or own else own)


def _described(
    file: Readable, at: int, block: bytes, checked: tuple[bytes, int], pax: Mapping[str, bytes]
) -> tuple[Member, int]:
    """(the entry whose own header is at `at`; position of the next header). `checked`: result of `_checked`."""
    kind, size = checked
    name = pax.get("GNU.sparse.name") or pax.get("path") or _name(block)
    if "size" in pax:
        size = _decimal(pax["size"], at)
    offset = at + BLOCK
    what = _KINDS.get(kind, f"a special entry of type {kind!r}")
    if kind == b"S":
        offset = _after_sparse_map(file, at, block)
    elif any(key.startswith("GNU.sparse.") for key in pax):
        what = _KINDS[b"S"]
    elif kind == b"\0" and name.endswith(b"/"):  # as V7 writes folders
        what = FOLDER
    stored = 0 if kind in _WITHOUT_DATA else size
    return Member(name.decode("utf-8", "surrogateescape"), what, offset, size), offset + _padded(stored)


def _checked(block: bytes, at: int) -> tuple[bytes, int]:
    """(type, declared size) of a header whose checksum is right. Raises BadHeader for any other block."""
    stored = _number(block[148:156], at, "checksum")
    rest = block[:148] + b" " * 8 + block[156:]
    total = sum(rest)
    # Old programs summed signed bytes: each byte from 128 on counts 256 less.
    if stored != total and stored != total - 256 * sum(byte > 127 for byte in rest):
        raise BadHeader(at, "a header whose checksum is wrong")
    return block[156:157], _number(block[124:136], at, "size")


def _number(field: bytes, at: int, what: str) -> int:
    """A number of a header: octal digits, or the bytes of a number after the byte 0x80 (GNU)."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    try:
        number = int(field.split(b"\0", 1)[0].strip() or b"0", 8)
    except ValueError:
        number = -1
    if number < 0:
        raise BadHeader(at, f"a header whose {what} is not a number")
    return number


def _decimal(text: bytes, at: int) -> int:
    if not text.isdigit() or len(text) > 20:
        raise BadHeader(at, "an extended header whose size is not a number")
    return int(text)


def _name(block: bytes) -> bytes:
    name = block[:100].split(b"\0", 1)[0]
    prefix = block[345:500].split(b"\0", 1)[0] if block[257:263] == b"ustar\0" else b""
    return prefix + b"/" + name if prefix else name


def _pax(data: bytes, at: int) -> dict[str, bytes]:
    """The records `LENGTH KEY=VALUE\\n` of an extended header."""
    records: dict[str, bytes] = {}
    place = 0
    while place < len(data) and data[place]:
        digits, space, _ = data[place : place + 12].partition(b" ")
        length = int(digits) if space and digits.isdigit() else 0
        record = data[place + len(digits) + 1 : place + length]
        key, equals, value = record.partition(b"=")
        if not equals or not record.endswith(b"\n") or place + length > len(data):
            raise BadHeader(at, "a damaged extended header")
        records[key.decode("utf-8", "surrogateescape")] = value[:-1]
        place += length
    return records


def _after_sparse_map(file: Readable, at: int, block: bytes) -> int:
    """Position of the content of a GNU sparse file: after the blocks that continue the map of its segments."""
    more, place = block[482], at + BLOCK
    for _ in range(_MOST_SPARSE_BLOCKS):
        if not more:
            return place
        block = _read(file, place, BLOCK)
        if len(block) < BLOCK:
            raise Cut(at, "it ends inside the map of a sparse file")
        more, place = block[504], place + BLOCK
    raise BadHeader(at, f"a sparse file with a map of more than {_MOST_SPARSE_BLOCKS} blocks")


def _after_zeros(file: Readable, at: int) -> int:
    """Position of the first block after `at` that is not zero, or the end of the file."""
    for start in range(at, at + _MOST_ZEROS, 1 << 16):
        chunk = _read(file, start, 1 << 16)
        if rest := chunk.lstrip(b"\0"):
            return start + (len(chunk) - len(rest)) // BLOCK * BLOCK
        if len(chunk) < 1 << 16:
            return start + len(chunk)
    raise Tail(at + _MOST_ZEROS, f"over {_MOST_ZEROS >> 20} MiB of zeros follow its end")


def _read(file: Readable, at: int, count: int) -> bytes:
    file.seek(at)
    return file.read(count) or b""


def _padded(size: int) -> int:
    return -(-size // BLOCK) * BLOCK
