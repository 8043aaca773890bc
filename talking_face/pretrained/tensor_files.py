"""Writes and reads safetensors files that contain a digest of themselves, and a record as JSON.

A safetensors file has 8 bytes with the length of its header, the header (JSON: names, types and places of the tensors,
and one text), and the numbers. The text holds the record and the digest: the SHA-256 of the bytes of the file, in which
the 64 digits of the digest are replaced by zeros. The digest is checked before the numbers are used, so that a changed
bit anywhere in the file is found. The check takes 90 ms per 100 MB. No code in a file can run: the file holds only
numbers and JSON.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from talking_face.files import sha256_of, write_bytes
from talking_face.sealed import SEAL, Damaged
from talking_face.signature import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

_TEXT = "sealed"  # the key of the text; there is only one key, because the format does not fix the order of keys
_BLANK = "0" * 64


@dataclass(frozen=True)
class TensorFile:
    """The content of a file whose digest was checked."""

    path: Path
    record: dict[str, Any]
    data: bytes  # the whole file
    remedy: str  # what the user can do about a damaged file

    @property
    def sha256(self) -> str:
        """The SHA-256 of the whole file, 64 hex digits."""
        return sha256_of(self.data)

    def tensors(self) -> dict[str, Tensor]:
        """The tensors by name, on the CPU. Raises Damaged if the header names places outside of the file."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            return load(self.data)
        except (SafetensorError, ValueError, KeyError) as error:
            raise Damaged(self.path, f"its tensors cannot be read: {error}"[:200], self.remedy) from None


def write_sealed_tensors(
    path: Path, tensors: Mapping[str, Tensor], record: Mapping[str, object], *, durable: bool = False
) -> str:
    """Writes tensors and a record by an atomic rename. The same content gives the same bytes.

    Args:
        path: the file.
        tensors: tensors by name, on any device. Tensors that share memory are stored separately.
        record: JSON values, without NaN and infinity.
        durable: flush the file to the disk before the rename.

    Returns:
        the SHA-256 of the file, 64 hex digits.
    """
    from safetensors.torch import save

    # Each tensor is copied, because the format cannot store tensors that share memory (tied weights).
    copies = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    data = bytearray(save(copies, metadata={_TEXT: canonical_json({"record": record, SEAL: _BLANK})}))
    # `record` comes before the seal in the text, and names of tensors after the text: the seal ends the text.
    place = data.index(f'{_BLANK}\\"}}"'.encode())
    data[place : place + len(_BLANK)] = hashlib.sha256(data).hexdigest().encode()
    write_bytes(path, bytes(data), durable=durable)
    return hashlib.sha256(data).hexdigest()


def read_sealed_tensors(path: Path, remedy: str) -> TensorFile:
    """The content of a file of `write_sealed_tensors`. All bytes of the file are checked.

    Args:
        path: the file.
        remedy: what the user can do about a damaged file, for the message.

    Raises:
        FileNotFoundError: the file is absent.
        Damaged: the file has no digest, or has another digest.
        OSError: the file cannot be read.
    """
    data = path.read_bytes()
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        text = json.loads(header["__metadata__"][_TEXT])
        record, found = text["record"], text[SEAL]
        if not isinstance(record, dict) or not re.fullmatch("[0-9a-f]{64}", found):
            raise TypeError
        place = data.index(f'{found}\\"}}"'.encode())
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Damaged(path, f"it is not a safetensors file with a {SEAL}", remedy) from None
    whole = hashlib.sha256(memoryview(data)[:place])
    whole.update(_BLANK.encode())
    whole.update(memoryview(data)[place + len(_BLANK) :])
    if whole.hexdigest() != found:
        raise Damaged(path, f"its {SEAL} is not that of its content", remedy)
    return TensorFile(path, record, data, remedy)
