"""Defines the record of a result file: the facts about its method, setting and pairs that boards print."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

ROLES = ("ceiling", "control", "floor", "method")
_LONGEST = 1000  # characters of one text
_DEPARTURES = " Differs from the paper in: "


@dataclass(frozen=True)
class MethodFacts:
    """The facts about a method from the catalogue."""

    title: str = ""  # empty: the method's name is its title
    role: str = "method"
    summary: str = ""
    sees: tuple[str, ...] = ()  # names of the inputs that the method uses
    training_seeds: tuple[int, ...] = ()  # one per revision; several: a mean over revisions; empty: not known


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

    def with_origin(self, origins: Mapping[str, str]) -> FileRecord:
        """The record with the known origin of its data. `origins`: origin by data digest."""
        known = origins.get(self.key.get("data_digest", ""))
        return replace(self, key={**self.key, "origin": known}) if known else self

    @classmethod
    def of(cls, stored: object, key: Mapping[str, object]) -> FileRecord:
        """The record from the JSON in a file. Missing facts get defaults.

        Args:
            stored: `method`, `setting`, `pairs` (objects) and `command` (text), as they were given to `write_results`.
            key: the values of the key columns in the file's first row.

        Raises:
            ValueError: a fact has another type, is longer than 1,000 characters, or cannot be printed.
        """
        facts = _object(stored)
        method, setting, pairs = (_object(facts.get(name)) for name in ("method", "setting", "pairs"))
        role = _text(method.get("role"), "method")
        if role not in ROLES:
            raise ValueError(f"{role!r} is not a role: {', '.join(ROLES)}")
        drawn = pairs.get("drawn", 0)
        if not isinstance(drawn, int) or drawn < 0:
            raise ValueError("the number of drawn pairs is not a number")
        return cls(
            key={name: str(value) for name, value in key.items()},
            method=MethodFacts(
                title=_text(method.get("title")),
                role=role,
                summary=_text(method.get("summary")),
                sees=_texts(method.get("sees")),
                training_seeds=_seeds(method.get("training_seeds")),
            ),
            setting=SettingFacts(
                title=_text(setting.get("title")),
                summary=_text(setting.get("summary")),
                protocol=_text(setting.get("protocol")),
                disjoint=_texts(setting.get("disjoint")),
                shared=_texts(setting.get("shared")),
            )
            if setting
            else None,
            pairs=PairFacts(drawn, _texts(pairs.get("missing")), _texts(pairs.get("notes"))),
            command=_text(facts.get("command")),
        )


def split_summary(summary: str) -> tuple[str, list[str]]:
    """A method's summary without its differences from the paper, and the topics of these differences.

    `cmet_baselines.registry.describe` writes both into one text.
    """
    text, _, listed = summary.partition(_DEPARTURES)
    return text, listed.removesuffix(".").split("; ") if listed else []


def _object(value: object) -> Mapping[str, object]:
    if value is None:
        return {}
    if not isinstance(value, Mapping):
        raise ValueError(f"{value!r} is not a JSON object")
    return value


def _text(value: object, default: str = "") -> str:
    if value is None:
        return default
    if not isinstance(value, str):
        raise ValueError(f"{str(value)[:60]!r} is not a text")
    if len(value) > _LONGEST or not value.isprintable():
        raise ValueError(f"the text {value[:60]!r} is longer than {_LONGEST} characters or cannot be printed")
    return value


def _seeds(value: object) -> tuple[int, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple) or any(type(seed) is not int or seed < 0 for seed in value):
        raise ValueError("the training seeds are not whole numbers of 0 or more")
    return tuple(value)


def _texts(value: object) -> tuple[str, ...]:
    if value is None:
        return ()
    if not isinstance(value, list | tuple):
        raise ValueError(f"{str(value)[:60]!r} is not a list of texts")
    return tuple(map(_text, value))
