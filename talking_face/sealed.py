"""Writes JSON and Parquet files that contain a digest of themselves, and checks the digest when a file is read.

The reader of such a file finds every changed bit. The digest protects against damage, not against a person who writes a
new file with a new digest.

A JSON file holds the digest in the member `sha256`: the SHA-256 of the canonical JSON of all other members. A Parquet
file holds the digest in its key-value metadata under `sha256`. This digest is the SHA-256 of the file with 64 zeros in
place of the digest.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from talking_face.files import open_regular, replacing, sha256_of, write_bytes, write_text
from talking_face.reasons import UserError
from talking_face.signature import canonical_json

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

SEAL = "sha256"  # the member or metadata key that holds the digest
_BLANK = "0" * 64
_LARGEST_JSON = 256 << 20  # bytes; the card of the largest set in use, LRS2, has less than 1 MB
_BLOCK = 1 << 20  # bytes per read
_TAIL = 8  # bytes at the end of a Parquet file: the length of the footer, and PAR1
# The key and the value of the digest, as the footer of a Parquet file stores them. The footer is in Thrift's compact
# protocol: 0x18 begins a text field, and 0x40 states the length of the text, 64.
_STORED_SEAL = re.compile(SEAL.encode() + rb"\x18\x40([0-9a-f]{64})")


class Damaged(UserError):
    """A stored file has other content than the suite wrote. The message names the file and the remedy, in one line."""

    def __init__(self, path: Path, problem: str, remedy: str) -> None:
        super().__init__(f"{path} is damaged ({problem}); {remedy}")
        self.path, self.problem, self.remedy = path, problem, remedy

    def __reduce__(self) -> tuple[type[Damaged], tuple[Path, str, str]]:
        # By default, pickle passes only the message to the class, and `__init__` needs the three parts.
        return type(self), (self.path, self.problem, self.remedy)


def discard(error: Damaged) -> None:
    """Prints the error to stderr and removes the damaged file, so that the running command makes the file again."""
    print(f"cmet-eval: {error}", file=sys.stderr, flush=True)
    error.path.unlink(missing_ok=True)


def sealed(value: Mapping[str, object], seal: str = SEAL) -> dict[str, object]:
    """The JSON object with its digest in the member `seal`. An old member of this name is replaced."""
    rest = {key: item for key, item in value.items() if key != seal}
    return {**rest, seal: sha256_of(canonical_json(rest).encode())}


def write_sealed_json(
    path: Path, value: Mapping[str, object], *, indent: int | None = None, durable: bool = False, seal: str = SEAL
) -> None:
    """Writes a JSON object with its digest by an atomic rename; see `talking_face.files.replacing`.

    Args:
        path: the file.
        value: the object. Its values are JSON values, without NaN and infinity.
        indent: spaces per level for a file that people read; None: canonical JSON on one line.
        durable: flush the file to the disk before the rename.
        seal: the name of the member for the digest; another name is needed if the object already has `sha256`.
    """
    whole = sealed(value, seal)
    text = canonical_json(whole) if indent is None else json.dumps(whole, indent=indent, ensure_ascii=False)
    write_text(path, text + "\n", durable=durable)


def read_sealed_json(path: Path, remedy: str, seal: str = SEAL) -> dict[str, Any]:
    """The object in a file that `write_sealed_json` wrote, without the digest.

    Args:
        path: the file.
        remedy: what the user can do about a damaged file, for example `score the video again`. The message ends
            with this text.
        seal: the member that holds the digest.

    Raises:
        FileNotFoundError: the file is absent.
        Damaged: the file is not a JSON object, has no digest, or its digest does not fit its content.
        OSError: the file cannot be read.
    """
    try:
        with open_regular(path) as file:
            data = file.read(_LARGEST_JSON + 1)
        if len(data) > _LARGEST_JSON:
            raise Damaged(path, f"it has over {_LARGEST_JSON >> 20} MiB", remedy)
        value = json.loads(data.decode("utf-8"))
        if not isinstance(value, dict):
            raise Damaged(path, "it is not a JSON object", remedy)
        if seal not in value:
            raise Damaged(path, f"it has no {seal}", remedy)
        found = value.pop(seal)
        if found != sha256_of(canonical_json(value).encode()):
            raise Damaged(path, f"its {seal} is not that of its content", remedy)
    except (ValueError, RecursionError) as error:
        raise Damaged(path, f"it is not JSON: {' '.join(str(error).split())[:100]}", remedy) from None
    return value


@contextmanager
def sealed_writer(
    path: Path, schema: pa.Schema, *, durable: bool = False, **options: object
) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer. At the end of the block, the digest is added, and an atomic rename gives the file its name.

    The same rows give the same bytes. Every page of the file also has a checksum, which other readers of Parquet check.

    Args:
        path: the file.
        schema: columns and metadata of the file.
        durable: flush the file to the disk before the rename.
        options: options of `pyarrow.parquet.ParquetWriter`; by default the compression is zstd.
    """
    with replacing(path, durable=durable) as temporary, temporary.open("w+b") as file:
        with _unsealed_writer(file, schema, options) as writer:
            yield writer
        _write_seal(file)


def table_bytes(table: pa.Table, **options: object) -> bytes:
    """The bytes of a Parquet file with its digest. The same table gives the same bytes.

    Args:
        table: the rows. The metadata of its schema is stored too.
        options: options of `pyarrow.parquet.ParquetWriter`; by default the compression is zstd.
    """
    buffer = io.BytesIO()
    with _unsealed_writer(buffer, table.schema, options) as writer:
        writer.write_table(table)
    _write_seal(buffer)
    return buffer.getvalue()


def write_sealed_table(table: pa.Table, path: Path, *, durable: bool = False, **options: object) -> None:
    """Writes the bytes of `table_bytes` by an atomic rename."""
    write_bytes(path, table_bytes(table, **options), durable=durable)


@contextmanager
def _unsealed_writer(file: BinaryIO, schema: pa.Schema, options: Mapping[str, object]) -> Iterator[pq.ParquetWriter]:
    """A Parquet writer that writes 64 zeros at the place of the digest."""
    import pyarrow.parquet as pq

    with pq.ParquetWriter(file, schema, **{"compression": "zstd", "write_page_checksum": True, **options}) as writer:
        yield writer
        writer.add_key_value_metadata({SEAL: _BLANK})


def _write_seal(file: BinaryIO) -> None:
    """Computes the digest, and writes it over the 64 zeros."""
    file.flush()
    place = _seal_place(file)
    assert place is not None
    sha = _sha256_with_blank(file, place)
    file.seek(place)
    file.write(sha.encode())


def check_sealed_table(path: Path, remedy: str) -> None:
    """Reads all bytes of a file that `sealed_writer` wrote, and compares the digest. Takes about 1 s per GB.

    Raises:
        FileNotFoundError: the file is absent.
        Damaged: the file has no digest, or its digest does not fit its content.
        OSError: the file cannot be read.
    """
    with path.open("rb") as file:
        _check_seal(file, path, remedy)


def read_sealed_table(
    path: Path, remedy: str, columns: Sequence[str] | None = None, *, dictionaries: bool = False
) -> pa.Table:
    """The rows in a file that `write_sealed_table` wrote. All bytes are checked, also if `columns` is given.

    Args:
        path: the file.
        remedy: what the user can do about a damaged file. The message ends with this text.
        columns: names of the columns to read; None for all.
        dictionaries: True: columns of text become dictionaries, so that repeated texts need less memory.

    Raises:
        FileNotFoundError: the file is absent.
        Damaged: the file is not a Parquet file, has no digest, or its digest does not fit its content.
        OSError: the file cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open_regular(path) as file:
        data = file.read()
    # The digest is found in the bytes and checked before Arrow reads the file: damaged bytes can crash a parser.
    _check_seal(io.BytesIO(data), path, remedy)
    try:
        buffer = pa.BufferReader(data)
        text = [field.name for field in pq.read_schema(buffer) if field.type == pa.string()] if dictionaries else []
        with pq.ParquetFile(buffer, read_dictionary=text or None) as file:
            table = file.read(columns=None if columns is None else list(columns))
    except (pa.ArrowException, OSError, ValueError, KeyError, MemoryError) as error:
        raise Damaged(path, f"it is not a Parquet file: {' '.join(str(error).split())[:100]}", remedy) from None
    metadata = {key: value for key, value in (table.schema.metadata or {}).items() if key != SEAL.encode()}
    return table.replace_schema_metadata(metadata or None)


def parquet_footer(file: BinaryIO) -> bytes:
    """The bytes from the beginning of a Parquet file's footer to the end of the file; b"" if there is no footer."""
    end = file.seek(0, io.SEEK_END)
    file.seek(max(0, end - _TAIL))
    tail = file.read(_TAIL)
    length = int.from_bytes(tail[:4], "little") + _TAIL
    if len(tail) < _TAIL or not tail.endswith(b"PAR1") or length > end:
        return b""
    file.seek(end - length)
    return file.read(length)


def _seal_place(file: BinaryIO) -> int | None:
    """The position of the digest's 64 digits in a Parquet file; None if there is no digest."""
    footer = parquet_footer(file)
    places = list(_STORED_SEAL.finditer(footer))
    return file.seek(0, io.SEEK_END) - len(footer) + places[-1].start(1) if places else None


def _sha256_with_blank(file: BinaryIO, place: int) -> str:
    """The SHA-256 of a file, computed with the digit `0` in place of each of the 64 bytes from `place` on."""
    sha = hashlib.sha256()
    file.seek(0)
    left = place
    while block := file.read(min(_BLOCK, left)):
        sha.update(block)
        left -= len(block)
    sha.update(_BLANK.encode())
    file.seek(place + len(_BLANK))
    while block := file.read(_BLOCK):
        sha.update(block)
    return sha.hexdigest()


def _check_seal(file: BinaryIO, path: Path, remedy: str) -> None:
    """Raises Damaged if the Parquet file has no digest, or its digest does not fit its content."""
    place = _seal_place(file)
    if place is None:
        raise Damaged(path, f"it is not a Parquet file with a {SEAL}", remedy)
    file.seek(place)
    if file.read(len(_BLANK)).decode() != _sha256_with_blank(file, place):
        raise Damaged(path, f"its {SEAL} is not that of its content", remedy)
