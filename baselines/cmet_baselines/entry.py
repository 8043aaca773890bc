"""Defines the form of a catalogue entry, which is one TOML file per method, and checks entries against this form."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator
from pydantic_core import ErrorDetails

from cmet_baselines.adapters.command import CommandRun
from cmet_baselines.adapters.own_process import PythonRun
from cmet_baselines.adapters.videos import VideosRun
from cmet_baselines.method import INPUTS
from talking_face.names import did_you_mean
from talking_face.reasons import UserError

NAME = r"^[a-z0-9][a-z0-9.-]*$"
TARGET = r"^[\w.]+:\w+$"  # module:Class
SHA256 = r"^[0-9a-f]{64}$"
FROM_CHECKPOINT = "checkpoint"  # as `revision` in an entry: the revision is the hash of the trained weights


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(_Table):
    """Where the method was published."""

    title: str
    venue: str
    year: int
    arxiv: str | None = None


class Code(_Table):
    """The authors' code, or the statement that the code was not released."""

    released: bool
    repository: str | None = None  # owner/name
    commit: str | None = None  # the commit that the notes of the entry describe; None: not recorded
    note: str = ""

    @model_validator(mode="after")
    def _repository_where_released(self) -> Code:
        if self.released != (self.repository is not None):
            raise ValueError("`repository` names the released code; without a repository, released = false")
        return self


class WeightFile(_Table):
    """A file of the method's weights. `bytes` or `sha256` is None if it is unknown."""

    file: str
    bytes: int | None = None
    sha256: str | None = Field(default=None, pattern=SHA256)
    source: str = ""


class OutputForm(_Table):
    """The form of a method's output before this suite converts it to the form that the setting requires."""

    # "not-known": neither the authors' code nor their paper states this fact.
    fps: Annotated[float, Field(gt=0)] | Literal["as-source", "not-known"] = 25.0
    size: int | Literal["as-setting", "as-source", "not-known"] = "as-setting"  # side of a square picture, px
    crop: str = ""  # the position of the face in the picture
    length: str = "as-driving-audio"  # or the rule that makes the video as long as the driving audio


class Entry(_Table):
    """The entry of one method. Unknown fields are an error."""

    name: str = Field(pattern=NAME)
    title: str
    summary: str  # one sentence, shown on the board
    # built-in: a class of this suite. python: a class from outside, which runs in its own process. command: a command
    # line. videos: a folder of finished videos. published: the entry has only the numbers that papers print; to run the
    # method, a user writes a TOML file.
    kind: Literal["built-in", "python", "command", "videos", "published"]
    revision: str
    # A ceiling or a control receives the ground truth, so it has no rank and is never marked as the best.
    role: Literal["ceiling", "control", "floor", "method"] = "method"
    trained_on_split: bool = False  # True: it returns training clips, on which the corpus evaluators were trained
    licence: str
    sees: tuple[str, ...]  # names of the inputs that the method receives
    target: str | None = Field(default=None, pattern=TARGET)  # the class, which is called without arguments
    process: PythonRun | None = None
    command: CommandRun | None = None
    videos: VideosRun | None = None
    output: OutputForm = OutputForm()
    inputs: str = ""  # the inputs that the method receives in the comparisons of papers
    how_to_run: str = ""  # facts from the method's repository that help a user to write a [command]
    # Only for `published`: a [command] that a user can copy into a TOML file. The suite checks it but does not run it.
    example: CommandRun | None = None
    paper: Paper | None = None
    code: Code | None = None
    weights: tuple[WeightFile, ...] = ()
    published_as: tuple[str, ...] = ()  # the names of the method in published.csv
    notes: tuple[str, ...] = ()

    @field_validator("sees")
    @classmethod
    def _known_inputs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(INPUTS)):
            raise ValueError(f"{', '.join(unknown)}: the inputs are {', '.join(INPUTS)}")
        return value

    @model_validator(mode="after")
    def _has_the_tables_of_its_kind(self) -> Entry:
        needed = {"built-in": "target", "python": "target", "command": "command", "videos": "videos"}.get(self.kind)
        for field in ("target", "command", "videos"):
            if (getattr(self, field) is not None) != (field == needed):
                raise ValueError(f"a {self.kind} method {'needs' if field == needed else 'has no'} `{field}`")
        if self.example and self.kind != "published":
            raise ValueError("an `example` is for published methods; this method can be run")
        for run in filter(None, (self.command, self.example)):
            if hidden := sorted(run.sees() - set(self.sees)):
                raise ValueError(f"the command is given {', '.join(hidden)}, which `sees` does not name")
        return self


def read_entry(path: Path) -> Entry:
    """Read an entry from a TOML file. Folders in the file are relative to the file's folder.

    Raises:
        UserError: the file cannot be read or is not a valid entry. The message names the wrong field.
    """
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, field in (("process", "folders"), ("command", "folder"), ("videos", "folder")):
            part = table.get(name)
            if isinstance(part, dict) and isinstance(found := part.get(field), str | list):
                there = [str(path.parent / folder) for folder in ([found] if isinstance(found, str) else found)]
                part[field] = there if isinstance(found, list) else there[0]
        return Entry.model_validate(table)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from None
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'entry'}: {_message(item)}" for item in error.errors())
        raise UserError(f"{path} is not a valid method: {wrong}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None


# A text for each pattern, because a regular expression is hard to read.
_FORMS = {
    NAME: "it may contain a-z, 0-9, '.' and '-', and starts with a letter or a digit",
    TARGET: "it must be module:Class",
    SHA256: "it must be 64 hexadecimal digits",
}


def _message(error: ErrorDetails) -> str:
    """One error of a field as plain English, with the nearest known field for an unknown one."""
    if error["type"] == "extra_forbidden":
        return f"unknown field{did_you_mean(str(error['loc'][-1]), _fields(error['loc'][:-1]))}"
    if error["type"] == "string_pattern_mismatch":
        return _FORMS.get(error["ctx"]["pattern"], error["msg"])
    return error["msg"].removeprefix("Value error, ")


def _fields(table: Sequence[int | str]) -> list[str]:
    """Names of the fields of an entry, or of one of its tables; empty for a table inside a table."""
    if not table:
        return list(Entry.model_fields)
    hint = Entry.model_fields[str(table[0])].annotation if len(table) == 1 else None
    models = [part for part in (hint, *get_args(hint)) if isinstance(part, type) and issubclass(part, BaseModel)]
    return [name for model in models for name in model.model_fields]
