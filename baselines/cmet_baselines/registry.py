"""Finds methods by a name in the catalogue, by the path of a user's TOML file, or by `module:Class`."""

from __future__ import annotations

import importlib
import re
import shutil
from collections.abc import Mapping
from functools import cache, lru_cache
from pathlib import Path
from typing import Protocol, Required, TypedDict, cast, runtime_checkable

from cmet_baselines.adapters.command import CommandMethod
from cmet_baselines.adapters.own_process import OwnProcessMethod, PythonRun
from cmet_baselines.adapters.recipe import RECIPES, RecipeMethod
from cmet_baselines.adapters.videos import VideosMethod, folder_revision
from cmet_baselines.entry import FROM_CHECKPOINT, TARGET, Entry, read_entry
from cmet_baselines.method import INPUTS, Method
from cmet_baselines.setup import state as set_up
from talking_face.names import check_label, check_name, did_you_mean, printable
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, UserError
from talking_face.signature import digest

# In a checkout, the catalogue is a folder next to the package. In an installed wheel, it is inside the package.
_HERE = Path(__file__).resolve().parent
_FOLDER = next(folder for folder in (_HERE / "catalogue", _HERE.parent / "catalogue") if folder.is_dir())


# Fields that are not stored in result rows. The values of environment variables can be credentials.
_OF_THIS_MACHINE: Mapping[str, bool | Mapping[str, bool]] = {
    "process": True,
    "videos": True,
    "recipe": True,
    "command": {"environment": True},
}
# Methods of this suite that implement a paper, and the entry with the paper's numbers.
_IMPLEMENTS = {"cmet": "cmet-published", "cem-net": "cem-net-published", "cem-net-flow": "cem-net-published"}


class MethodRecord(TypedDict, total=False):
    """A method's facts as plain values, for boards and for `baselines show`.

    A method with an entry has all fields of `cmet_baselines.entry.Entry` except `process`, `videos` and
    `command.environment`.
    """

    name: Required[str]
    title: Required[str]
    summary: Required[str]
    kind: Required[str]
    revision: Required[str]
    role: Required[str]
    sees: Required[list[str]]
    target: str | None
    trained_on_split: bool
    licence: str
    command: dict[str, object] | None
    output: dict[str, object]
    inputs: str
    how_to_run: str
    example: dict[str, object] | None
    paper: dict[str, object] | None
    code: dict[str, object] | None
    weights: list[dict[str, object]]
    published_as: list[str]
    notes: list[str]
    departures: list[str]  # short names of the differences from the paper, for the reference models


@runtime_checkable
class FromCheckpoints(Protocol):
    """A method of this suite with facts that depend on its checkpoints."""

    def about(self) -> dict[str, object]:
        """`title` and `departures` of the method's record; {} for methods whose entry has all facts."""
        ...


@cache
def catalogue() -> dict[str, Entry]:
    """{name: entry} of all entries, sorted by name. Raises UserError if a file is wrong; the message names the file."""
    entries: dict[str, Entry] = {}
    for path in (*_FOLDER.glob("*.toml"), *RECIPES.glob("*/*.toml")):
        entry = read_entry(path)
        if entry.name != path.stem:
            raise UserError(f"{path} should be named {entry.name}.toml")
        if twice := sorted(entries.keys() & {form.name for form in entry.forms()}):
            raise UserError(f"{path}: there are two entries {twice[0]}")
        entries |= {form.name: form for form in entry.forms()}
    return dict(sorted(entries.items()))


def shown(name: str) -> str:
    """The name of a method as records and messages show it: of a .toml file only the file's name, without folders."""
    return Path(name).name if name.endswith(".toml") else name


def get_method(name: str, files: ModelFiles | None = None) -> Method:
    """The method with this name.

    Args:
        name: name of a method in the catalogue, path of a user's .toml file, or `module:Class` in the current folder.
        files: where trained weights of a built-in method are searched for. None: in the folders that the environment
            variables name.

    Raises:
        UserError: the name is unknown, the method cannot be run, or the class does not have all members of `Method`.
            For an unknown name, the message contains the most similar name.
    """
    return _method(name, Path.cwd(), files or ModelFiles.from_environment())


def implemented(name: str) -> str:
    """The name of the entry with the paper that a method implements; the method's own name if there is none.

    The variants of a recipe implement the paper of the recipe.
    """
    entry = catalogue().get(name)
    if entry is not None and entry.recipe is not None:
        return set_up.base_name(entry)
    return _IMPLEMENTS.get(name, name)


def describe(name: str, files: ModelFiles | None = None) -> MethodRecord:
    """The record of a method: the facts of its entry or, for `module:Class`, the facts of the class.

    Args:
        name: the same as for `get_method`.
        files: the same as for `get_method`.

    Raises:
        UserError: the same errors as `get_method`, but no error for a published method.
    """
    entry = _entry(name)
    if entry is not None and entry.kind == "published":
        return cast(MethodRecord, entry.model_dump(mode="json", exclude=_OF_THIS_MACHINE))
    method = get_method(name, files)
    if entry is not None:
        stored = entry.model_dump(mode="json", exclude=_OF_THIS_MACHINE)
        about: Mapping[str, object] = method.about() if isinstance(method, FromCheckpoints) else {}
        return cast(MethodRecord, stored | {"revision": method.revision, **about} | _with_departures(entry, about))
    title, summary = (method.title, method.summary) if isinstance(method, OwnProcessMethod) else ("", "")
    return {
        "name": method.name,
        "title": title or method.name,
        "summary": summary,
        "kind": "python",
        "target": name,
        "revision": method.revision,
        "role": "method",
        "sees": sorted(method.sees),
    }


def _with_departures(entry: Entry, about: Mapping[str, object]) -> dict[str, object]:
    """The summary with the differences from the paper, for boards; {} for methods without such differences."""
    topics = about.get("departures")
    if not isinstance(topics, list) or not topics:
        return {}
    return {"summary": f"{entry.summary} Differs from the paper in: {'; '.join(topics)}."}


def _entry(name: str) -> Entry | None:
    """The entry with this name or in this TOML file; None for `module:Class`. Raises UserError for other names."""
    plain = catalogue().get(name.removesuffix(set_up.SEEDED))
    if plain is not None and plain.kind == "recipe" and plain.name != name:
        return _with_seeded_weights(plain)
    if name.endswith(".toml"):
        given = read_entry(Path(name))
        ours = catalogue().get(given.name.removesuffix(set_up.SEEDED))
        if ours is not None and ours.kind in (("built-in", "recipe") if given.recipe else ("built-in",)):
            raise UserError(f"{name}: {given.name} is a method of this suite; give yours another name")
        if given.kind == "built-in" or given.role in ("ceiling", "control"):
            raise UserError(f"{name}: only this suite's own methods have kind built-in, or role ceiling or control")
        return given
    if (entry := catalogue().get(name)) is not None:
        return entry
    if re.fullmatch(TARGET, name):
        return None
    raise UserError(
        f"no method named {name!r}{did_you_mean(name, catalogue()) or ';'} `cmet-eval baselines list` has all; "
        "your own is module:Class or a .toml file"
    )


@lru_cache(maxsize=64)
def _method(name: str, _folder: Path, files: ModelFiles) -> Method:
    """The method with this name. There is only one object per name and current folder, because weights load slowly."""
    entry = _entry(name)
    if entry is None:
        return _outside_class(name, None)
    if entry.kind == "published":
        raise UserError(_why_not_run(entry))
    if entry.recipe is not None:
        return _of_recipe(entry, files)
    _check_places(entry)
    if entry.command is not None:
        revision = f"{entry.revision}+{digest(entry.command.model_dump(mode='json', exclude={'environment_from'}), 8)}"
        return CommandMethod(entry.name, revision, frozenset(entry.sees), entry.command)
    if entry.videos is not None:
        revision = f"{entry.revision}+{folder_revision(entry.videos.folder)}"
        return VideosMethod(entry.name, revision, frozenset(entry.sees), entry.videos)
    return _class_of(entry, files)


def entry_to_set_up(name: str) -> Entry:
    """The entry that `baselines setup NAME` prepares. Raises UserError if it has no recipe, or is a variant."""
    entry = _entry(name)
    if entry is None or entry.recipe is None:
        ready = ", ".join(e.name for e in catalogue().values() if e.recipe is not None and not e.recipe.variant)
        raise UserError(f"{name} needs no setup, or has no recipe; the methods with a recipe: {ready}")
    base = set_up.base_name(entry.model_copy(update={"name": entry.name.removesuffix(set_up.SEEDED)}))
    if base != entry.name:
        more = " --seeded" if name.endswith(set_up.SEEDED) else ""
        raise UserError(f"{name} is a form of {base}: run `cmet-eval baselines setup {base}{more}`")
    return entry


def readiness(entry: Entry, files: ModelFiles) -> str:
    """Whether a recipe can run here: `ready`, `ready with seeded weights`, or what to type. Reads no weights."""
    for seeded, text in ((False, "ready"), (True, "ready with seeded weights")):
        state = set_up.read_state(entry, seeded, files)
        if state is not None and next(set_up.problems(entry, state, seeded, hashes=False), None) is None:
            return text
    return f"not set up: cmet-eval baselines setup {set_up.base_name(entry)}"


def _with_seeded_weights(entry: Entry) -> Entry:
    """The entry of a recipe with seeded weights. Its name and its title state that the weights are not the method's."""
    changed = {
        "name": entry.name + set_up.SEEDED,
        "title": f"{entry.title}, SEEDED weights",
        "summary": "The code of the method with random weights, which tests only that the code runs.",
        "published_as": (),
        "role": "control",  # so that a board gives random weights no rank
    }
    return entry.model_copy(update=changed)


def _of_recipe(entry: Entry, files: ModelFiles) -> RecipeMethod:
    """The method of a recipe. Raises UserError, in one line, if it is not set up or a file of it has changed."""
    seeded = entry.name.endswith(set_up.SEEDED)
    plain = entry.model_copy(update={"name": entry.name.removesuffix(set_up.SEEDED)})
    state = set_up.read_state(plain, seeded, files)
    if (line := next(set_up.problems(plain, state, seeded), None)) is not None:
        raise UserError(f"{entry.name} cannot run: {line}")
    assert state is not None
    revision = set_up.revision(plain, state)
    return RecipeMethod(entry.name, revision, frozenset(entry.sees), set_up.recipe_of(entry), set_up.place_of(state))


def _check_places(entry: Entry) -> None:
    """Raises UserError if a folder or a program that the entry names is absent, so that a run stops before any work."""
    folders = [*(entry.process.folders if entry.process else ())]
    folders += [run.folder for run in (entry.command, entry.videos) if run is not None and run.folder is not None]
    for folder in folders:
        if not folder.is_dir():
            raise UserError(f"{entry.name}: no folder {printable(str(folder))}")
    programs = [str(entry.process.python)] if entry.process else []
    if entry.command is not None and "{" not in entry.command.command[0]:
        programs.append(entry.command.command[0])
    # A name without a slash is searched for in PATH; a relative path starts in the working directory.
    start = folders[0] if folders else Path()
    search = entry.command.environment.get("PATH") if entry.command else None
    for program in programs:
        if shutil.which(program if "/" not in program else str(start / program), path=search) is None:
            raise UserError(f"{entry.name}: there is no program {printable(program)}, or it cannot be executed")


def _why_not_run(entry: Entry) -> str:
    """The error message for a published method, which cannot be run."""
    if entry.code is None or not entry.code.released:
        way = "its code was never released"
    else:
        way = (
            f"to run it, get {entry.code.repository} and write a .toml with a [command] for it "
            "(docs/how_to/add_a_method.md), or score its videos with `cmet-eval score`"
        )
    return f"{entry.name} is in the catalogue for its published numbers; {way}"


def _class_of(entry: Entry, files: ModelFiles) -> Method:
    """The method of an entry with a `target`. Raises UserError if the class and the entry contradict each other."""
    target = str(entry.target)
    method = _outside_class(target, entry.process) if entry.kind == "python" else _built_in(entry, files)
    revision = method.revision if entry.revision == FROM_CHECKPOINT else entry.revision
    if (method.name, method.revision, frozenset(method.sees)) != (entry.name, revision, frozenset(entry.sees)):
        raise UserError(f"{target} and its entry {entry.name} differ in name, revision or sees")
    return method


def _built_in(entry: Entry, files: ModelFiles) -> Method:
    """A method of this suite. Only the classes with trained weights have an argument, the model files."""
    module_name, _, class_name = str(entry.target).partition(":")
    made = getattr(importlib.import_module(module_name), class_name)
    method: Method = made(files) if entry.revision == FROM_CHECKPOINT else made()
    return method


def _outside_class(target: str, run: PythonRun | None) -> Method:
    """A class from outside the suite, in its own process. Raises UserError if a member of `Method` is missing."""
    try:
        method = OwnProcessMethod(target, run)
    except ClipError as error:
        raise UserError(f"cannot load the method {target}: {error.detail}") from None
    if method.missing_members:
        lacking = ", ".join(method.missing_members)
        raise UserError(f"{target} is not a method: it has no {lacking} (see docs/how_to/add_a_method.md)")
    try:
        check_name(method.name)
        check_label(method.revision)
    except ValueError as error:
        raise UserError(f"{target}: {error}") from None
    if not method.sees <= set(INPUTS):
        raise UserError(f"{target}: sees must be a set of {', '.join(INPUTS)}; it is {', '.join(sorted(method.sees))}")
    return method
