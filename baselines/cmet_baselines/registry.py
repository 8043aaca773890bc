"""The catalogue: one TOML a method, validated, in `catalogue/`; and `get_method`, which makes one by name."""

from __future__ import annotations

import difflib
import importlib
import re
import tomllib
from functools import cache, lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cmet_baselines.adapters.command import CommandMethod, CommandRun
from cmet_baselines.adapters.own_process import OwnProcessMethod, PythonRun
from cmet_baselines.adapters.videos import VideosMethod, VideosRun, folder_revision
from cmet_baselines.method import INPUTS, Method
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, UserError
from talking_face.signature import digest

# In a checkout the catalogue is the folder beside the package; an installed wheel carries it inside.
_HERE = Path(__file__).resolve().parent
_FOLDER = next(folder for folder in (_HERE / "catalogue", _HERE.parent / "catalogue") if folder.is_dir())
_NAME = r"^[a-z0-9][a-z0-9.-]*$"
_TARGET = r"^[\w.]+:\w+$"
FROM_CHECKPOINT = "checkpoint"  # a revision that is the hash of trained weights


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Paper(_Table):
    """Where the method was published."""

    title: str
    venue: str
    year: int
    arxiv: str | None = None


class Code(_Table):
    """The authors' code, or the statement that there is none."""

    released: bool
    repository: str | None = None  # owner/name
    commit: str | None = None  # that our notes were read from; None: not recorded
    note: str = ""

    @model_validator(mode="after")
    def _repository_where_released(self) -> Code:
        if self.released != (self.repository is not None):
            raise ValueError("`repository` says where released code lies; without it, released = false")
        return self


class WeightFile(_Table):
    """A file of the method's weights. Where size and hash are unknown they stay out."""

    file: str
    bytes: int | None = None
    sha256: str | None = Field(default=None, pattern=r"^[0-9a-f]{64}$")
    source: str = ""


class OutputForm(_Table):
    """The form of what a method returns, before anything is brought to the setting's."""

    # What the authors' code and papers do not say is not known.
    fps: Annotated[float, Field(gt=0)] | Literal["as-source", "not-known"] = 25.0
    size: int | Literal["as-setting", "as-source", "not-known"] = "as-setting"  # px of a square, or whose size it has
    crop: str = ""  # how the face lies in it
    length: str = "as-driving-audio"  # or the name of the rule that brings it there


class Entry(_Table):
    """One method. Unknown fields are an error."""

    name: str = Field(pattern=_NAME)
    title: str
    summary: str  # one sentence, shown on the board
    # built-in: a class of this suite. python: an outside class, in a process of its own. command: a command line.
    # videos: a folder that is there. published: numbers of papers only, until a user's own file says how to run it.
    kind: Literal["built-in", "python", "command", "videos", "published"]
    revision: str
    # A ceiling and a control see the ground truth and take no part in ranks and "best".
    role: Literal["ceiling", "control", "floor", "method"] = "method"
    trained_on_split: bool = False  # its pictures are training clips, which the corpus evaluators know
    licence: str
    sees: tuple[str, ...]
    target: str | None = Field(default=None, pattern=_TARGET)  # module:Class, called without arguments
    process: PythonRun | None = None
    command: CommandRun | None = None
    videos: VideosRun | None = None
    output: OutputForm = OutputForm()
    inputs: str = ""  # what it is given in the papers' comparisons, in words
    how_to_run: str = ""  # facts from its repository, for whoever writes a [command]
    # published: a [command] to start one's own file from; not run by the suite, and the same checks hold for it.
    example: CommandRun | None = None
    paper: Paper | None = None
    code: Code | None = None
    weights: tuple[WeightFile, ...] = ()
    published_as: tuple[str, ...] = ()  # its names in published.csv
    notes: tuple[str, ...] = ()

    @field_validator("sees")
    @classmethod
    def _known_inputs(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := sorted(set(value) - set(INPUTS)):
            raise ValueError(f"{', '.join(unknown)}: the inputs are {', '.join(INPUTS)}")
        return value

    @model_validator(mode="after")
    def _has_what_its_kind_needs(self) -> Entry:
        needs = {"built-in": ["target"], "python": ["target"], "command": ["command"], "videos": ["videos"]}
        for field in ("target", "command", "videos"):
            if (getattr(self, field) is not None) != (field in needs.get(self.kind, ())):
                verb = "needs" if field in needs.get(self.kind, ()) else "has no"
                raise ValueError(f"a {self.kind} method {verb} `{field}`")
        if self.example and self.kind != "published":
            raise ValueError("an `example` is for published methods; this one has its own way to run")
        for run in filter(None, (self.command, self.example)):
            if hidden := sorted(run.sees() - set(self.sees)):
                raise ValueError(f"the command is given {', '.join(hidden)}, which `sees` does not name")
        return self


def read_entry(path: Path) -> Entry:
    """The entry of a TOML file; folders in it are relative to the file. Raises UserError naming what is wrong."""
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
        wrong = "; ".join(f"{'.'.join(map(str, item['loc'])) or 'entry'}: {item['msg']}" for item in error.errors())
        raise UserError(f"{path} is not a valid method: {wrong}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path} is not TOML: {error}") from None


@cache
def catalogue() -> dict[str, Entry]:
    """Every entry by name, sorted. Raises UserError naming the file that is wrong."""
    entries: dict[str, Entry] = {}
    for path in sorted(_FOLDER.glob("*.toml")):
        entry = read_entry(path)
        if entry.name != path.stem:
            raise UserError(f"{path} should be named {entry.name}.toml")
        entries[entry.name] = entry
    return entries


def get_method(name: str, files: ModelFiles | None = None) -> Method:
    """The method of that name: in the catalogue, in a `.toml` of the user's, or `module:Class` of the current folder.

    Args:
        files: where a built-in method with trained weights finds them; None: where the environment says.

    Raises:
        UserError: no such method (with the nearest name), one that cannot be run, or a class that is no `Method`.
    """
    return _made(name, Path.cwd(), files)


def describe(name: str, files: ModelFiles | None = None) -> dict[str, object]:
    """A plain record of a method for boards: its entry's, or what a `module:Class` says of itself."""
    entry = _entry(name)
    if entry is not None and entry.kind == "published":
        return entry.model_dump(mode="json")
    method = get_method(name, files)
    if entry is not None:
        return entry.model_dump(mode="json", exclude={"process", "videos"}) | {"revision": method.revision}
    about: dict[str, Any] = getattr(method, "about", {})
    return {
        "name": method.name,
        "title": about.get("title") or method.name,
        "summary": about.get("summary", ""),
        "kind": "python",
        "target": name,
        "revision": method.revision,
        "role": "method",
        "sees": sorted(method.sees),
    }


def _entry(name: str) -> Entry | None:
    """The entry that a name or a path of a .toml means; None for `module:Class`. Raises UserError for neither."""
    if name.endswith(".toml"):
        given = read_entry(Path(name))
        if (ours := catalogue().get(given.name)) is not None and ours.kind == "built-in":
            raise UserError(f"{name}: {given.name} is a method of this suite; give yours another name")
        if given.kind == "built-in" or given.role in ("ceiling", "control"):
            raise UserError(f"{name}: kind built-in and the roles ceiling and control are the suite's own")
        return given
    if (entry := catalogue().get(name)) is not None:
        return entry
    if re.match(_TARGET, name):
        return None
    near = difflib.get_close_matches(name, catalogue(), n=1)
    hint = f"; did you mean {near[0]}?" if near else ""
    known = ", ".join(catalogue())
    raise UserError(f"no method named {name!r}{hint} (known: {known}, or your own as module:Class or a .toml file)")


@lru_cache(maxsize=64)
def _made(name: str, _folder: Path, files: ModelFiles | None) -> Method:
    entry = _entry(name)
    if entry is None:
        return _outside(name, None)
    if entry.kind == "published":
        released = entry.code is not None and entry.code.released
        way = "write a .toml with a [command] for it (docs/baselines.md), or score its videos with `cmet-eval score`"
        raise UserError(
            f"{entry.name} stands in the catalogue for its published numbers; "
            + (
                f"to run it, get {entry.code.repository} and {way}"
                if released and entry.code
                else "its code was never released"
            )
        )
    if entry.kind == "command":
        assert entry.command is not None
        revision = f"{entry.revision}+{digest(entry.command.model_dump(mode='json'), 8)}"
        return CommandMethod(entry.name, revision, frozenset(entry.sees), entry.command)
    if entry.kind == "videos":
        assert entry.videos is not None
        if not entry.videos.folder.is_dir():
            raise UserError(f"{entry.name}: no folder {entry.videos.folder}")
        revision = f"{entry.revision}+{folder_revision(entry.videos.folder)}"
        return VideosMethod(entry.name, revision, frozenset(entry.sees), entry.videos)
    assert entry.target is not None
    method = _outside(entry.target, entry.process) if entry.kind == "python" else _built_in(entry, files)
    known = (
        entry.name,
        method.revision if entry.revision == FROM_CHECKPOINT else entry.revision,
        frozenset(entry.sees),
    )
    if (method.name, method.revision, frozenset(method.sees)) != known:
        raise UserError(f"{entry.target} and its entry {entry.name} differ in name, revision or sees")
    return method


def _built_in(entry: Entry, files: ModelFiles | None) -> Method:
    """A method of this suite. The class of one with trained weights takes the model files, other classes nothing."""
    module_name, _, class_name = str(entry.target).partition(":")
    made = getattr(importlib.import_module(module_name), class_name)
    method: Method = made(files) if entry.revision == FROM_CHECKPOINT else made()
    return method


def _outside(target: str, run: PythonRun | None) -> Method:
    """A class outside of the suite, once it has said that it is a method."""
    try:
        method = OwnProcessMethod(target, run)
    except ClipError as error:
        raise UserError(f"cannot load the method {target}: {error.detail}") from None
    about = method.about
    missing = [member for member in ("name", "revision") if not isinstance(about[member], str)]
    missing += [] if about["generates"] else ["generate"]
    if missing:
        raise UserError(f"{target} is not a method: it has no {', '.join(missing)} (see docs/baselines.md)")
    if not set(about["sees"]) <= set(INPUTS):
        raise UserError(f"{target}: sees must be a set of {', '.join(INPUTS)}; it is {', '.join(about['sees'])}")
    return method
