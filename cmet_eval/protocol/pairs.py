"""The pair list, which holds the evaluation cases of one setting, and the file name of a pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from talking_face.clip import Pair
from talking_face.signature import digest

_FILE_NAME_LIMIT = 200  # bytes; file systems allow 255, and suffixes are added


@dataclass(frozen=True)
class PairList:
    """Pairs of one setting, and the data, rules and split that they were drawn from."""

    setting: str
    data_digest: str  # digest of the shard set's content
    pairs: tuple[Pair, ...]
    rules: str = ""  # digest of the setting's rules
    split: str = "test"
    seeds: int = 1
    drawn: int = 0  # number of pairs before a subset was chosen
    missing: tuple[str, ...] = field(default=(), compare=False)  # texts about the cells without a clip
    notes: tuple[str, ...] = field(default=(), compare=False)  # other facts about the drawing

    @cached_property
    def digest(self) -> str:
        """16 hex digits, computed from the pairs only. A list has the same digest in Parquet and in CSV."""
        return digest([pair.to_row() for pair in self.pairs])


def pair_file_name(pair_id: str) -> str:
    """A flat file name (no suffix) for a pair id, the same on every system and different for different ids.

    A-Z a-z 0-9 . - stay, `/` becomes `__`, and `>` becomes `_to_`. Of other characters, each UTF-8 byte becomes `_xHH`.
    For example, `neutral-base/M903/neutral>happy/s0/0001` becomes `neutral-base__M903__neutral_to_happy__s0__0001`.
    Names above 200 bytes are truncated and end in 16 hex digits of the id's SHA-256.
    """
    out = []
    for char in pair_id:
        if char.isascii() and (char.isalnum() or char in ".-"):
            out.append(char)
        elif char in "/>":
            out.append({"/": "__", ">": "_to_"}[char])
        else:
            out.extend(f"_x{byte:02X}" for byte in char.encode())
    name = "".join(out)
    if name.startswith("."):
        name = "_x2E" + name[1:]
    return name if len(name) <= _FILE_NAME_LIMIT else f"{name[: _FILE_NAME_LIMIT - 17]}_{digest(pair_id.encode())}"
