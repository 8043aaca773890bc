"""The record in a result file: which method, setting and pairs its rows are from, as far as boards print it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MethodFacts:
    """What the catalogue says about a method."""

    title: str = ""  # empty: the method's name is its title
    role: str = "method"
    summary: str = ""
    sees: tuple[str, ...] = ()


@dataclass(frozen=True)
class SettingFacts:
    """What a setting's TOML says about it."""

    title: str = ""  # empty: the setting's name is its title
    summary: str = ""
    protocol: str = ""
    disjoint: tuple[str, ...] = ()  # what training and test clips do not share
    shared: tuple[str, ...] = ()  # what they do share


@dataclass(frozen=True)
class PairFacts:
    """How the pairs were drawn."""

    drawn: int = 0  # pairs before a subset was taken
    missing: tuple[str, ...] = ()  # cells of the setting without a clip
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class FileRecord:
    """The record of one result file."""

    key: Mapping[str, str]  # the table's keys, `method` and `revision`, of the file's rows; empty without a row
    method: MethodFacts
    setting: SettingFacts | None  # None where the record names no setting
    pairs: PairFacts
    command: str

    @classmethod
    def of(cls, stored: Mapping[str, object], key: Mapping[str, object]) -> FileRecord:
        """The record from a file's JSON, with defaults for what is absent.

        Args:
            stored: `method`, `setting`, `pairs` (objects) and `command` (text), as `write_results` got them.
            key: the values of the key columns in the file's first row.
        """
        method, setting, pairs = (_object(stored.get(name)) for name in ("method", "setting", "pairs"))
        return cls(
            key={name: str(value) for name, value in key.items()},
            method=MethodFacts(
                title=str(method.get("title", "")),
                role=str(method.get("role", "method")),
                summary=str(method.get("summary", "")),
                sees=_texts(method.get("sees")),
            ),
            setting=SettingFacts(
                title=str(setting.get("title") or ""),
                summary=str(setting.get("summary", "")),
                protocol=str(setting.get("protocol", "")),
                disjoint=_texts(setting.get("disjoint")),
                shared=_texts(setting.get("shared")),
            )
            if setting
            else None,
            pairs=PairFacts(int(str(pairs.get("drawn", 0))), _texts(pairs.get("missing")), _texts(pairs.get("notes"))),
            command=str(stored.get("command", "")),
        )


def _object(value: object) -> Mapping[str, object]:
    return value if isinstance(value, Mapping) else {}


def _texts(value: object) -> tuple[str, ...]:
    return tuple(map(str, value)) if isinstance(value, list | tuple) else ()
