"""Loads a model's settings from TOML.

The package of each model has two TOML files with named settings: demo and paper. A user's TOML file names one of these
settings and changes some of the values.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterable
from importlib import resources
from pathlib import Path

from talking_face.names import did_you_mean
from talking_face.reasons import UserError

BASE = "base"  # the key in a user's file that names the settings which the file changes

Table = dict[str, object]  # a parsed TOML table


def load(package: str, wanted: str) -> Table:
    """The settings called `wanted`.

    Args:
        package: the model's package, which holds its TOML files.
        wanted: a name (demo, paper), or the path of a TOML file. Such a file has `base = "paper"` or another name, and
            only the values that differ from these named settings.

    Raises:
        UserError: the settings do not exist; a key of the file occurs in none of the named settings; a value has
            another type than in the named settings. A key inside a table may be new, because the named settings leave
            some keys at their defaults. The model accepts or refuses such a key.
    """
    if not wanted.endswith(".toml"):
        return _named(package, wanted)
    path = Path(wanted)
    try:
        changes: Table = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is absent") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None
    base = changes.pop(BASE, None)
    if not isinstance(base, str):
        raise UserError(f"{path} does not name the settings that it changes; begin it with {BASE} = {names(package)}")
    known = _all_keys(_named(package, name) for name in names(package))
    return _changed(_named(package, base), changes, known, str(path))


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
            raise UserError(f"{where}: there is no {key}{hint}")
        example = known[key]
        if isinstance(example, dict) and isinstance(value, dict):
            out[key] = _changed(_table(base.get(key, {})), value, example, f"{where}, [{key}]", True)
        elif type(value) is type(example):
            out[key] = value
        elif type(example) is float and type(value) is int:
            out[key] = float(value)
        else:
            raise UserError(f"{where}: {key} is {value!r}, and should be like {example!r}")
    return out


def _table(value: object) -> Table:
    return value if isinstance(value, dict) else {}
