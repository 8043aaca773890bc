"""Signatures: strings of the form `name|key:value|...|version:x`, which state how a score was computed.

As in the program sacrebleu, a signature is short and readable, and two signatures can be compared as strings. A board
never shows two scores with different signatures in the same column.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

_TOKEN = re.compile(r"^[A-Za-z0-9_.,+@=/\-]+$")


class Signature:
    """A name and a sequence of `key:value` fields. Two signatures are equal if their texts are equal."""

    def __init__(self, name: str, fields: Mapping[str, object]) -> None:
        self.name = name
        self.fields = {key: _token(value) for key, value in fields.items()}
        _check(name)
        for key in self.fields:
            _check(key)

    def __str__(self) -> str:
        return "|".join([self.name, *(f"{key}:{value}" for key, value in self.fields.items())])

    def __repr__(self) -> str:
        return f"Signature({str(self)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Signature) and str(self) == str(other)

    def __hash__(self) -> int:
        return hash(str(self))

    @classmethod
    def parse(cls, text: str) -> Signature:
        """The inverse of `str`. Raises ValueError on text that is not a signature."""
        name, *parts = text.split("|")
        fields: dict[str, str] = {}
        for part in parts:
            key, colon, value = part.partition(":")
            if not colon or key in fields:
                raise ValueError(f"not a signature: {text!r} (at {part!r})")
            fields[key] = value
        return cls(name, fields)


def canonical_json(value: object) -> str:
    """JSON with sorted keys and without spaces, so that the same value gives the same bytes on every machine."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def digest(value: object, length: int = 16) -> str:
    """The first `length` hex digits of the SHA-256 of a value. Values other than bytes are hashed as canonical JSON."""
    data = value if isinstance(value, bytes) else canonical_json(value).encode()
    return hashlib.sha256(data).hexdigest()[:length]


def _token(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = str(value)
    _check(text)
    return text


def _check(text: str) -> None:
    if not _TOKEN.match(text):
        raise ValueError(f"{text!r} is not allowed in a signature: letters, digits and _.,+@=/- only")
