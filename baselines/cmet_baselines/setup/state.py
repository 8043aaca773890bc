"""Stores what `baselines setup` found for a method, and compares the files on the disk with it before each use.

There is one sealed JSON file per method, `FOLDER/NAME/setup.json`. FOLDER is in CMET_EVAL_BASELINES, or in the cache.
"""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from cmet_baselines.adapters.recipe import COMPAT, RECIPES, REQUIREMENTS, RUNNER, Place, RecipeRun, Sha256
from cmet_baselines.entry import Entry, WeightFile
from talking_face.files import sha256_of
from talking_face.names import inside, printable
from talking_face.pretrained.model_files import BASELINES, ModelFiles
from talking_face.pretrained.store import cache_folder
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, read_sealed_json, write_sealed_json
from talking_face.signature import canonical_json, digest
from talking_face.user_files import checked

SEEDED = "-seeded"  # the end of the name of a method with seeded weights


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class KnownFile(_Table):
    """A weight file, as it was when it was first used."""

    path: Path
    sha256: Sha256
    bytes: int


class Smoke(_Table):
    """What the smoke test measured on its video."""

    frames: int
    wanted: int
    size: tuple[int, int]  # height, width, px
    faces: int  # number of frames in which a face was found
    brightness: float  # mean grey value, 0 to 255
    motion: float  # mean absolute difference of successive frames, grey values
    seconds: float  # time for the case, with the loading of the models
    notes: tuple[str, ...]
    revision: str  # the revision of the method that made the video


class State(_Table):
    """One method on this machine."""

    name: str
    seeded: bool
    checkout: Path
    commit: str
    commit_from: Literal["git", "hashes"]  # hashes: the checkout has no .git, so only the called files were compared
    python: Path
    python_version: str
    packages: Sha256  # of the list of installed packages and their versions
    device: str
    device_name: str = ""  # the device with the name of the GPU; empty: the same as `device`
    options: dict[str, int] = {}
    weights: dict[str, KnownFile]
    smoke: Smoke | None = None


def baselines_folder(files: ModelFiles) -> Path:
    """The folder of all methods that are set up."""
    return files.baselines or cache_folder(files).parent / "baselines"


def method_folder(name: str, seeded: bool, files: ModelFiles) -> Path:
    """The folder of one method, with its state and, if `seeded`, its seeded weights."""
    return inside(baselines_folder(files), name + (SEEDED if seeded else ""))


def state_file(name: str, seeded: bool, files: ModelFiles) -> Path:
    """The path of a method's state."""
    return method_folder(name, seeded, files) / "setup.json"


def write_state(state: State, files: ModelFiles) -> Path:
    """Stores the state of a method. Returns its path. Raises UserError if the folder cannot be written."""
    path = state_file(state.name, state.seeded, files)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_sealed_json(path, state.model_dump(mode="json"), indent=1)
    except OSError as error:
        detail = f"{printable(str(path))} cannot be written ({error.strerror or error})"
        raise UserError(f"{detail}; name another folder in {BASELINES}") from None
    return path


def read_state(entry: Entry, seeded: bool, files: ModelFiles) -> State | None:
    """The state of a method; None if it was never set up. Raises UserError if the file is damaged."""
    path = state_file(base_name(entry), seeded, files)
    remedy = f"delete it and run {command(entry, seeded)}"
    try:
        value = read_sealed_json(path, remedy)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{printable(str(path))} cannot be read ({error.strerror or error})") from None
    try:
        return checked(State, value, str(path))
    except UserError:
        raise Damaged(path, "it has another form", remedy) from None


def command(entry: Entry, seeded: bool = False, more: str = "") -> str:
    """What a user types to set up a method: the name of a recipe of this suite, or the path of another one's file."""
    recipe = recipe_of(entry)
    name = base_name(entry) if recipe.folder.parent == RECIPES else shlex.quote(printable(str(recipe.file)))
    return f"`cmet-eval baselines setup {name}{' --seeded' if seeded else ''}{more}`"


def recipe_of(entry: Entry) -> RecipeRun:
    """The recipe of an entry of kind `recipe`."""
    assert entry.recipe is not None, entry.name
    return entry.recipe


def base_name(entry: Entry) -> str:
    """The name that is set up: a variant uses the checkout and the weights of its method."""
    variant = recipe_of(entry).variant
    return entry.name.removesuffix(f"-{variant}") if variant else entry.name


def needed_weights(entry: Entry) -> tuple[WeightFile, ...]:
    """The weight files of the form of the method that the entry describes."""
    variant = recipe_of(entry).variant
    return tuple(weight for weight in entry.weights if weight.variants is None or variant in weight.variants)


def problems(entry: Entry, state: State | None, seeded: bool, *, hashes: bool = True) -> Iterator[str]:
    """One line for each thing that prevents the method from running; nothing for a method that is ready.

    Every called file and every weight file is read and compared with its SHA-256 (about 1 s per GB), once per process.

    Args:
        entry: the method, without `-seeded` in its name.
        state: its state; None: it was never set up.
        seeded: whether the method runs with seeded weights.
        hashes: False: no weight file is read; only its presence is checked.
    """
    again = command(entry, seeded)
    if state is None:
        yield f"{base_name(entry)} is not set up{' with seeded weights' if seeded else ''}; run {again}"
        return
    recipe = recipe_of(entry)
    yield from checkout_problems(recipe, state.checkout)
    assert entry.code is not None
    if state.commit != entry.code.commit:
        yield f"the recipe pins commit {entry.code.commit}, and {state.commit} was set up; run {again}"
    if shutil.which(state.python) is None:
        yield f"the interpreter {printable(str(state.python))} does not exist; run {again}"
    for weight in needed_weights(entry):
        known = state.weights.get(weight.file)
        if known is None:
            yield f"the weight file {weight.file} is missing; run {command(entry, seeded, ' --weights DIR')}"
        elif (line := weight_problem(known, hashes)) is not None:
            yield line
    if state.smoke is None:
        yield f"the smoke test did not pass; run {again}"


def checkout_problems(recipe: RecipeRun, checkout: Path) -> Iterator[str]:
    """One line for each called file of the checkout that is absent, or is not the file of the pinned commit."""
    if not checkout.is_dir():
        yield f"the checkout {printable(str(checkout))} does not exist"
        return
    for name, sha256 in recipe.calls.items():
        path = inside(checkout, name)
        if not path.is_file():
            yield f"{printable(str(checkout))} has no file {name}"
        elif file_hash(path) != sha256:
            yield f"{name} in {printable(str(checkout))} is not the file of the pinned commit; restore it"


def weight_problem(known: KnownFile, hashes: bool = True) -> str | None:
    """What is wrong with a weight file that was used before; None if it is unchanged. `hashes`: as in `problems`."""
    if not known.path.exists():
        return f"the weight file {printable(str(known.path))} is absent"
    if hashes and (found := file_hash(known.path)) != known.sha256:
        return (
            f"the weight file {printable(str(known.path))} has changed since its first use: sha256 {found[:16]}..., "
            f"expected {known.sha256[:16]}...; restore it"
        )
    return None


def file_hash(path: Path) -> str:
    """SHA-256 of a file or of a folder of files. A file is read again when its size or time has changed.

    Raises UserError if it cannot be read.
    """
    try:
        if path.is_dir():
            inner = [(str(file.relative_to(path)), file_hash(file)) for file in _files_of(path)]
            return sha256_of(canonical_json(inner).encode())
        status = path.stat()
        return _hash(path, status.st_mtime_ns, status.st_size)
    except OSError as error:
        raise UserError(f"{printable(str(path))} cannot be read ({error.strerror or error})") from None


def file_bytes(path: Path) -> int:
    """Size of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in _files_of(path)) if path.is_dir() else path.stat().st_size


def _files_of(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


@lru_cache(maxsize=4096)
def _hash(path: Path, _changed: int, _size: int) -> str:
    return sha256_of(path)


def revision(entry: Entry, state: State) -> str:
    """The revision: it changes with runner, shims, checkout, packages, weights, variant, options and rules."""
    recipe = recipe_of(entry)
    own = [recipe.folder / RUNNER, recipe.folder / REQUIREMENTS, *sorted(COMPAT.glob("*.py"))]
    parts: Mapping[str, object] = {
        "ours": {path.name: file_hash(path) for path in own if path.is_file()},
        "rules": recipe.model_dump(mode="json", include={"calls", "size", "length", "emotions", "variant"}),
        "commit": state.commit,
        "packages": state.packages,
        "weights": {w.file: state.weights[w.file].sha256 for w in needed_weights(entry) if w.file in state.weights},
        "options": state.options,
        "sees": sorted(entry.sees),
    }
    kind = "seeded-" if state.seeded else ""
    return f"{entry.revision}+{kind}{digest(parts, 12)}"


def place_of(state: State) -> Place:
    """Where the parts of the method are."""
    return Place(
        checkout=state.checkout,
        python=state.python,
        weights={name: known.path for name, known in state.weights.items()},
        device=state.device,
        device_name=state.device_name or state.device,
        options=state.options,
        seeded=state.seeded,
    )
