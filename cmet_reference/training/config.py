"""Loads a model's settings from TOML.

The package of each model has three TOML files with named settings: `paper` (the published values), `adapted` (what can
be trained without the authors' networks) and `demo` (minutes on two cores). A user's TOML file names one of these
settings and changes some of the values.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from talking_face.names import did_you_mean, printable
from talking_face.reasons import UserError
from talking_face.user_files import Problem, WrongValue, checked, read_toml

BASE = "base"  # the key in a user's file that names the settings which the file changes
NOT_PUBLISHED = "not_published"  # the key in paper.toml that lists the settings whose values no paper prints

Table = dict[str, object]  # a parsed TOML table
S = TypeVar("S")

# Fields have the same meaning in the settings of all stages. An integer is a size or a count and is at least 1, a real
# number is a weight or a rate and is at least 0, with the exceptions below.
_FROM_ZERO = frozenset(
    {
        "audio_emotion",
        "picture_emotion",
        "identity",
        "manner_hidden",
        "bands",
        "pretrain_steps",
        "warm_up",
        "held_drawn",
    }
)
_STEPS = frozenset({"steps", "pretrain_steps", "warm_up"})
_SHARES = frozenset({"dropout", "mixing", "shrink", "betas", "sound_error", "least_crossed"})  # from 0 to below 1
_MOST_STEPS, _MOST, _GREATEST = 10**9, 10**5, 1e6  # the largest in use: 200,000 steps, a size of 2,048, a factor of 100


def load(package: str, wanted: str) -> Table:
    """The settings called `wanted`.

    Args:
        package: the model's package, which holds its TOML files.
        wanted: a name (demo, adapted, paper), or the path of a TOML file. Such a file has `base = "adapted"` or another
            name, and only the values that differ from these named settings.

    Raises:
        UserError: the settings do not exist; a key of the file occurs in none of the named settings; a value has
            another type than in the named settings. A key inside a table may be new, because the named settings leave
            some keys at their defaults. The model accepts or refuses such a key.
    """
    if not wanted.endswith(".toml"):
        return _named(package, wanted)
    path = Path(wanted)
    changes: Table = read_toml(path, "settings file")
    base = changes.pop(BASE, None)
    if not isinstance(base, str):
        raise UserError(f"{path} does not name the settings that it changes; begin it with {BASE} = {names(package)}")
    known = _all_keys(_named(package, name) for name in names(package))
    return _changed(_named(package, base), changes, known, str(path))


def base_of(wanted: str) -> str:
    """The named settings that `wanted` is, or that its TOML file changes. `load` must have accepted `wanted`."""
    return str(read_toml(Path(wanted), "settings file")[BASE]) if wanted.endswith(".toml") else wanted


def settings_of(kind: type[S], values: Mapping[str, Any], where: str) -> S:
    """The values as an object of a dataclass of settings.

    Args:
        kind: the dataclass.
        values: the values by field, as TOML gives them. Missing fields get their defaults.
        where: the name of the table, for messages, for example `[aee.net]`.

    Raises:
        UserError: a field is unknown or missing, has another type, or has a value that is not allowed.
    """
    if not isinstance(values, Mapping):
        raise UserError(f"{where} should be a table, not {printable(repr(values)[:60])}")
    known = list(kind.__dataclass_fields__)  # type: ignore[attr-defined]
    for name in values:
        if name not in known:
            raise UserError(f"{where}: there is no {printable(name[:60])}{did_you_mean(name, known)}")
    found = checked(kind, values, where)
    if problems := [*_out_of_bounds(vars(found))]:
        raise WrongValue(where, problems)
    return found


def _out_of_bounds(values: Mapping[str, object]) -> Iterator[Problem]:
    for name, value in values.items():
        for number in value if isinstance(value, tuple) else (value,):
            if isinstance(number, bool) or not isinstance(number, int | float):
                continue
            if isinstance(number, int):
                least, most = int(name not in _FROM_ZERO), float(_MOST_STEPS if name in _STEPS else _MOST)
            else:
                least, most = 0, math.nextafter(1, 0) if name in _SHARES else _GREATEST
            if not least <= number <= most:
                yield Problem(
                    name, f"it should be from {least} to {'below 1' if most < 1 else f'{most:g}'}, not {number}"
                )
    width, heads = values.get("width"), values.get("heads")
    if isinstance(width, int) and isinstance(heads, int) and heads > 0 and width % heads:
        yield Problem("heads", f"it should divide width, which is {width}, without a remainder, not {heads}")


def names(package: str) -> list[str]:
    """The names of the settings in a model's package."""
    return sorted(file.name[:-5] for file in resources.files(package).iterdir() if file.name.endswith(".toml"))


def _named(package: str, name: str) -> Table:
    known = names(package)
    if name not in known:
        raise UserError(
            f"no settings called {name!r}{did_you_mean(name, known)}; known: {', '.join(known)}, or the path of a "
            ".toml file"
        )
    table = _parsed(package, name)
    table.pop(NOT_PUBLISHED, None)
    return table


def not_published(package: str) -> list[str]:
    """The dotted keys in paper.toml whose values no paper prints."""
    listed = _parsed(package, "paper")[NOT_PUBLISHED]
    assert isinstance(listed, list)
    return listed


def _parsed(package: str, name: str) -> Table:
    return tomllib.loads(resources.files(package).joinpath(f"{name}.toml").read_text("utf-8"))


def _all_keys(tables: Iterable[Table]) -> Table:
    """A table with all keys of several tables. The value of a key is its value in one of these tables."""
    out: Table = {}
    for table in tables:
        for key, value in table.items():
            out[key] = _all_keys([_table(out.get(key, {})), value]) if isinstance(value, dict) else value
    return out


def _changed(base: Table, changes: Table, known: Table, where: str, inside: bool = False) -> Table:
    """A copy of `base` with the values of `changes`.

    Args:
        known: a table with an example of every known key.
        where: name of the file and table, for errors.
        inside: True for an inner table, in which new keys are allowed.
    """
    out = dict(base)
    for key, value in changes.items():
        if key not in known and inside:
            out[key] = value  # no named setting has this key: the model accepts or refuses it
            continue
        if key not in known:
            hint = did_you_mean(key, known) or f"; known: {', '.join(known)}"
            raise UserError(f"{where}: there is no {printable(key[:60])}{hint}")
        example = known[key]
        if isinstance(example, dict) and isinstance(value, dict):
            out[key] = _changed(_table(base.get(key, {})), value, example, f"{where}, [{key}]", True)
        elif type(value) is type(example):
            out[key] = value
        elif type(example) is float and type(value) is int:
            out[key] = float(value)
        else:
            wanted = "a table" if isinstance(example, dict) else f"like {example!r}"
            raise UserError(f"{where}: {key} is {printable(repr(value)[:60])}, and should be {wanted}")
    return out


def _table(value: object) -> Table:
    return value if isinstance(value, dict) else {}
