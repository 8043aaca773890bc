"""Settings of a training, as TOML: those that come with a model, by name, or a file of one's own laid over one."""

from __future__ import annotations

import difflib
import tomllib
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from talking_face.reasons import UserError

BASE = "base"  # the key by which a file says what it is laid over


def load(package: str, wanted: str) -> dict[str, Any]:
    """The settings called `wanted`.

    Args:
        package: where the model's TOML files lie.
        wanted: a name (demo, paper), or the path of a TOML file. A file needs `base = "paper"` or another name, and
            gives what differs from it.

    Raises:
        UserError: no such settings; a key or type that none of the named ones has. Inside a table, keys that the named
            ones leave at their defaults are passed on, for the model to accept or refuse.
    """
    if not wanted.endswith(".toml"):
        return _named(package, wanted)
    path = Path(wanted)
    try:
        own = tomllib.loads(path.read_text("utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path} is not there") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is no TOML: {error}") from None
    base = own.pop(BASE, None)
    if not isinstance(base, str):
        raise UserError(f"{path} does not say what it is laid over; begin it with {BASE} = one of {names(package)}")
    known = _joined(_named(package, name) for name in names(package))
    return _laid_over(_named(package, base), own, known, str(path))


def names(package: str) -> list[str]:
    """The settings that come with a model."""
    return sorted(file.name[:-5] for file in resources.files(package).iterdir() if file.name.endswith(".toml"))


def _named(package: str, name: str) -> dict[str, Any]:
    if name not in names(package):
        raise UserError(f"no settings called {name!r}; known: {', '.join(names(package))}, or the path of a .toml file")
    return tomllib.loads(resources.files(package).joinpath(f"{name}.toml").read_text("utf-8"))


def _joined(tables: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """All keys of several tables, each with a value that it has somewhere."""
    out: dict[str, Any] = {}
    for table in tables:
        for key, value in table.items():
            out[key] = _joined([out.get(key, {}), value]) if isinstance(value, dict) else value
    return out


def _laid_over(
    base: Mapping[str, Any], own: Mapping[str, Any], known: Mapping[str, Any], where: str, inside: bool = False
) -> dict[str, Any]:
    out = dict(base)
    for key, value in own.items():
        if key not in known and inside:
            out[key] = value  # a field that is left at its default everywhere, or none: the model knows
            continue
        if key not in known:
            close = difflib.get_close_matches(key, known, 1)
            hint = f"did you mean {close[0]}?" if close else f"known: {', '.join(known)}"
            raise UserError(f"{where}: there is no {key}; {hint}")
        like = known[key]
        if isinstance(like, dict) and isinstance(value, dict):
            out[key] = _laid_over(base.get(key, {}), value, like, f"{where}, [{key}]", True)
        elif type(value) is type(like):
            out[key] = value
        elif type(like) is float and type(value) is int:
            out[key] = float(value)
        else:
            raise UserError(f"{where}: {key} is {value!r}, and should be like {like!r}")
    return out
