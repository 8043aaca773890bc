"""The catalogue: one TOML a method, validated, in `catalogue/`; and `get_method`, which makes one by name."""

from __future__ import annotations

import difflib
import importlib
import sys
import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from baselines.method import INPUTS, Method
from talking_face.reasons import UserError

_FOLDER = Path(__file__).parent / "catalogue"


class OutputRules(BaseModel):
    """The form of what a method returns, before anything is brought to the setting's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    fps: float = Field(default=25.0, gt=0)
    size: Literal["as-setting"] = "as-setting"
    length: str = "as-driving-audio"  # or the name of the rule that brings it there


class Entry(BaseModel):
    """One method of the catalogue. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    title: str
    summary: str  # one sentence, shown on the board
    kind: Literal["python"]  # how it runs
    target: str = Field(pattern=r"^[\w.]+:\w+$")  # module:Class, called without arguments
    revision: str
    role: Literal["ceiling", "floor", "method"] = "method"  # a ceiling takes no part in "best"
    licence: str
    sees: tuple[str, ...]
    output: OutputRules = OutputRules()

    @field_validator("sees")
    @classmethod
    def _known_inputs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(INPUTS)):
            raise ValueError(f"{', '.join(unknown)}: the inputs are {', '.join(INPUTS)}")
        return value


@cache
def catalogue() -> dict[str, Entry]:
    """Every entry by name, sorted. Raises UserError naming the file that is wrong."""
    entries: dict[str, Entry] = {}
    for path in sorted(_FOLDER.glob("*.toml")):
        try:
            entry = Entry.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
        except (tomllib.TOMLDecodeError, ValidationError) as error:
            raise UserError(f"{path} is not a valid catalogue entry: {error}") from error
        if entry.name != path.stem:
            raise UserError(f"{path} should be named {entry.name}.toml")
        entries[entry.name] = entry
    return entries


def get_method(name: str) -> Method:
    """The method of that name in the catalogue, or `module:Class` anywhere on the import path or in this folder.

    Raises:
        UserError: no such method (with the nearest name), or the class is not a `Method`.
    """
    entry = catalogue().get(name)
    if entry is None and ":" not in name:
        near = difflib.get_close_matches(name, catalogue(), n=1)
        hint = f"; did you mean {near[0]}?" if near else ""
        known = ", ".join(catalogue())
        raise UserError(f"no method named {name!r}{hint} (known: {known}, or your own as module:Class)")
    method = _load(entry.target if entry else name)
    if entry and (method.name, method.revision, method.sees) != (entry.name, entry.revision, frozenset(entry.sees)):
        raise UserError(f"{entry.target} and its catalogue entry {entry.name} differ in name, revision or sees")
    return method


def describe(name: str) -> dict[str, object]:
    """A plain record of a method for boards: the catalogue entry's, or what a `module:Class` says of itself."""
    if entry := catalogue().get(name):
        return entry.model_dump(mode="json")
    method = get_method(name)
    doc = (type(method).__doc__ or "").strip().partition("\n")[0]
    return {
        "name": method.name,
        "title": getattr(method, "title", method.name),
        "summary": doc,
        "kind": "python",
        "target": name,
        "revision": method.revision,
        "role": "method",
        "sees": sorted(method.sees),
    }


def _load(target: str) -> Method:
    module_name, _, class_name = target.partition(":")
    # Last on the path: a repository's own `metrics` or `pipelines` folder must not take the place of ours.
    if (here := str(Path.cwd())) not in sys.path:
        sys.path.append(here)
    try:
        made = getattr(importlib.import_module(module_name), class_name)()
    except Exception as error:  # the method's own code, which may fail in any way
        raise UserError(f"cannot load the method {target}: {type(error).__name__}: {error}") from error
    missing = [member for member in ("name", "revision", "sees", "generate") if not hasattr(made, member)]
    if missing:
        raise UserError(f"{target} is not a method: it has no {', '.join(missing)} (see baselines/method.py)")
    if not isinstance(made.sees, (set, frozenset)) or not set(made.sees) <= set(INPUTS):
        raise UserError(f"{target}: sees must be a set of {', '.join(INPUTS)}; it is {made.sees!r}")
    return made
