"""Defines the record of a result file: the facts about its method, setting and pairs that boards print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class MethodFacts:
    """The facts about a method from the catalogue."""

    title: str = ""  # empty: the method's name is its title
    role: str = "method"
    summary: str = ""
    sees: tuple[str, ...] = ()  # names of the inputs that the method uses


@dataclass(frozen=True)
class SettingFacts:
    """The facts about a setting from its TOML file."""

    title: str = ""  # empty: the setting's name is its title
    summary: str = ""
    protocol: str = ""
    disjoint: tuple[str, ...] = ()  # what training clips and test clips do not have in common
    shared: tuple[str, ...] = ()  # what training clips and test clips have in common


@dataclass(frozen=True)
class PairFacts:
    """How the pairs were drawn."""

    drawn: int = 0  # number of pairs before a subset was selected
    missing: tuple[str, ...] = ()  # combinations of speaker and emotions that have no clip
    notes: tuple[str, ...] = ()  # other facts about how the pairs were drawn


@dataclass(frozen=True)
class FileRecord:
    """The record of one result file."""

    key: Mapping[str, str]  # TABLE_KEYS, `method` and `revision` of the file's rows; empty if the file has no row
    method: MethodFacts
    setting: SettingFacts | None  # None if the record has no setting
    pairs: PairFacts
    command: str

    @classmethod
    def of(cls, stored: Mapping[str, object], key: Mapping[str, object]) -> FileRecord:
        """The record from the JSON in a file. Missing facts get defaults.

        Args:
            stored: `method`, `setting`, `pairs` (objects) and `command` (text), as they were given to `write_results`.
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
