"""Defines the form of a catalogue entry, which is one TOML file per method, and checks entries against this form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from cmet_baselines.adapters.command import CommandRun
from cmet_baselines.adapters.own_process import PythonRun
from cmet_baselines.adapters.recipe import RecipeRun, RelativePath, is_relative
from cmet_baselines.adapters.videos import VideosRun
from cmet_baselines.method import INPUTS
from talking_face.names import Key, Label, printable
from talking_face.user_files import Line, Link, Text, checked, read_toml

TARGET = r"^[\w.]+:\w+$"  # module:Class
FROM_CHECKPOINT = "checkpoint"  # as `revision` in an entry: the revision is the hash of the trained weights


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class Paper(_Table):
    """Where the method was published."""

    title: Line
    venue: Line
    year: int = Field(ge=1900, le=2200)
    arxiv: Line | None = None
    authors: Line | None = None  # in the form of BibTeX: "Last, First and Last, First"; None: not recorded


class Code(_Table):
    """The authors' code, or the statement that the code was not released."""

    released: bool
    repository: Link | None = None  # owner/name
    commit: Label | None = None  # the commit that the notes of the entry describe; None: not recorded
    note: Text = ""

    @model_validator(mode="after")
    def _repository_where_released(self) -> Code:
        if self.released != (self.repository is not None):
            raise ValueError("`repository` names the released code; without a repository, released = false")
        return self


class WeightFile(_Table):
    """A file of the method's weights. `bytes` or `sha256` is None if it is unknown."""

    file: Line
    bytes: int | None = Field(default=None, ge=0)
    sha256: str | None = None
    source: Text = ""
    licence: Text = ""
    place: RelativePath | None = None  # where the checkout's own scripts expect the file; for readers
    registered: str | None = None  # name in talking_face/pretrained/weights.toml, if this suite uses the file, too
    # Only in recipes: the forms of the method that need the file, "" for the default form. None: all.
    variants: tuple[str, ...] | None = None

    @field_validator("sha256")
    @classmethod
    def _hexadecimal(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{64}", value):
            raise ValueError("it must be 64 hexadecimal digits")
        return value


class OutputForm(_Table):
    """The form of a method's output before this suite converts it to the form that the setting requires."""

    # "not-known": neither the authors' code nor their paper states this fact.
    fps: Annotated[float, Field(gt=0, le=1000)] | Literal["as-source", "not-known"] = 25.0
    # Side of a square picture, px.
    size: Annotated[int, Field(ge=1, le=16_384)] | Literal["as-setting", "as-source", "not-known"] = "as-setting"
    crop: Text = ""  # the position of the face in the picture
    length: Line = "as-driving-audio"  # or the rule that makes the video as long as the driving audio


class Entry(_Table):
    """The entry of one method. Unknown fields are an error."""

    name: Key
    title: Line
    summary: Text  # one sentence, shown on the board
    # built-in: a class of this suite. python: a class from outside, which runs in its own process. command: a command
    # line. videos: a folder of finished videos. recipe: the code of a paper, which `baselines setup` prepares.
    # published: the entry has only the numbers that papers print; to run the method, a user writes a TOML file.
    kind: Literal["built-in", "python", "command", "videos", "recipe", "published"]
    revision: Label
    # A ceiling or a control receives the ground truth, so it has no rank and is never marked as the best.
    role: Literal["ceiling", "control", "floor", "method"] = "method"
    trained_on_split: bool = False  # True: it returns training clips, on which the corpus evaluators were trained
    licence: Line
    sees: tuple[str, ...]  # names of the inputs that the method receives
    target: str | None = None  # the class, which is called without arguments
    process: PythonRun | None = None
    command: CommandRun | None = None
    videos: VideosRun | None = None
    recipe: RecipeRun | None = None
    output: OutputForm = OutputForm()
    inputs: Text = ""  # the inputs that the method receives in the comparisons of papers
    how_to_run: Text = ""  # facts from the method's repository that help a user to write a [command]
    # Only for `published`: a [command] that a user can copy into a TOML file. The suite checks it but does not run it.
    example: CommandRun | None = None
    paper: Paper | None = None
    code: Code | None = None
    weights: tuple[WeightFile, ...] = ()
    published_as: tuple[Line, ...] = ()  # the names of the method in published.csv
    notes: tuple[Text, ...] = ()

    @field_validator("sees")
    @classmethod
    def _known_inputs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(INPUTS)):
            raise ValueError(f"{', '.join(unknown)}: the inputs are {', '.join(INPUTS)}")
        return value

    @field_validator("target")
    @classmethod
    def _module_and_class(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(TARGET, value):
            raise ValueError("it must be module:Class")
        return value

    @model_validator(mode="after")
    def _has_the_tables_of_its_kind(self) -> Entry:
        own = {"built-in": "target", "python": "target", "command": "command", "videos": "videos", "recipe": "recipe"}
        needed = own.get(self.kind)
        for field in ("target", "command", "videos", "recipe"):
            if (getattr(self, field) is not None) != (field == needed):
                raise ValueError(f"a {self.kind} method {'needs' if field == needed else 'has no'} `{field}`")
        if self.example and self.kind != "published":
            raise ValueError("an `example` is for published methods; this method can be run")
        for run in filter(None, (self.command, self.example)):
            if hidden := sorted(run.sees() - set(self.sees)):
                raise ValueError(f"the command is given {', '.join(hidden)}, which `sees` does not name")
        for weight in self.weights if self.recipe else ():
            if not is_relative(weight.file):
                raise ValueError(f"the weight file {printable(weight.file[:60])!r} is not a path inside a folder")
        if self.recipe and (self.code is None or not re.fullmatch(r"[0-9a-f]{40}", self.code.commit or "")):
            raise ValueError("a recipe needs the 40 digits of `code.commit`")
        return self

    def forms(self) -> tuple[Entry, ...]:
        """The entry and, for a recipe, one more entry for each variant. The published numbers stay with the first."""
        if self.recipe is None:
            return (self,)
        made = [self]
        for name, variant in self.recipe.variants.items():
            changed = {key: value for key, value in variant.model_dump().items() if value}
            # `recipe` is copied without its variants, so that a variant has no variants.
            recipe = self.recipe.model_copy(update={"variant": name, "variants": {}})
            fields = {"name": f"{self.name}-{name}", "recipe": recipe, "published_as": (), **changed}
            made.append(Entry.model_validate({**self.model_dump(), **fields, "recipe": recipe}))
        return tuple(made)


def read_entry(path: Path) -> Entry:
    """Read an entry from a TOML file. Folders in the file are relative to the file's folder.

    Raises:
        UserError: the file cannot be read or is not a valid entry. The message names the wrong fields.
    """
    table = read_toml(path, "method")
    for name, field in (("process", "folders"), ("command", "folder"), ("videos", "folder")):
        part = table.get(name)
        if isinstance(part, dict) and isinstance(found := part.get(field), str | list):
            there = [
                path.parent / f if isinstance(f, str) else f for f in ([found] if isinstance(found, str) else found)
            ]
            part[field] = there if isinstance(found, list) else there[0]
    if isinstance(recipe := table.get("recipe"), dict):
        recipe["file"] = path.resolve()
    return checked(Entry, table, f"the method {path}")
