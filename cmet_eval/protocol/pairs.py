"""The pair list, which contains the evaluation cases of one setting, and the file name of a pair."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

from talking_face.clip import Pair
from talking_face.signature import digest

_FILE_NAME_LIMIT = 200  # bytes; less than the 255 bytes that file systems allow, because suffixes are added


@dataclass(frozen=True)
class PairList:
    """The pairs of one setting, and the data, rules and split from which these pairs were drawn."""

    setting: str
    data_digest: str  # digest of the shard set's content
    pairs: tuple[Pair, ...]
    rules: str = ""  # digest of the setting's rules
    split: str = "test"
    seeds: int = 1
    drawn: int = 0  # number of pairs before a subset was chosen
    missing: tuple[str, ...] = field(default=(), compare=False)  # texts about pairs without a usable clip
    notes: tuple[str, ...] = field(default=(), compare=False)  # other texts about the draw

    @cached_property
    def digest(self) -> str:
        """16 hex digits, computed only from the pairs. The Parquet and the CSV file of a list have the same digest."""
        return digest([pair.to_row() for pair in self.pairs])


def pair_file_name(pair_id: str) -> str:
    """A file name for a pair id, without folder and suffix. Different ids give different names.

    A-Z a-z 0-9 . - stay, `/` becomes `__`, and `>` becomes `_to_`. Each UTF-8 byte of other characters becomes `_xHH`.
    For example, `neutral-base/M903/neutral>happy/s0/0001` becomes `neutral-base__M903__neutral_to_happy__s0__0001`.
    A name longer than 200 bytes is truncated and ends with 16 hex digits of the id's SHA-256.
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
