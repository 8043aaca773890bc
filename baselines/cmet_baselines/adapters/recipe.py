"""Defines the `recipe` adapter, which runs the code of a paper in its own checkout and its own environment.

A recipe is a folder with the catalogue entry, our `runner.py`, our `seeded.py` and `requirements.txt`. The runner stays
in memory between pairs. `cmet_baselines.setup` prepares the checkout, the environment and the weights.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from cmet_baselines.adapters.command import LONGEST_S
from cmet_baselines.adapters.conform import LengthRule, SizeRule, fit_size, longest_s
from cmet_baselines.adapters.own_process import HostProcess, PythonRun
from cmet_baselines.method import Case, check_output
from cmet_baselines.trivial import fit_length
from talking_face.names import Key, Name, printable
from talking_face.reasons import ClipError, Reason
from talking_face.user_files import Line, Text

# In a checkout, the recipes are next to the package. In an installed wheel, they are inside the package.
_PACKAGE = Path(__file__).resolve().parents[1]
RECIPES = next(place for place in (_PACKAGE / "recipes", _PACKAGE.parent / "recipes") if place.is_dir())
COMPAT = RECIPES / "compat"  # the folder of the module `compat`, which all runners share
RUNNER, SEEDED, REQUIREMENTS = "runner.py", "seeded.py", "requirements.txt"  # the files of a recipe


def is_relative(text: str) -> bool:
    """Whether a text is a path that stays inside its folder."""
    outside = text.startswith(("/", "~")) or ".." in text.split("/") or "\\" in text
    return bool(text) and text.isprintable() and not outside


def _relative(text: str) -> str:
    if not is_relative(text):
        raise ValueError(f"{printable(text[:60])!r} is not a path inside the checkout")
    return text


def _sha256(text: str) -> str:
    if len(text) != 64 or set(text) - set("0123456789abcdef"):
        raise ValueError("it must be 64 hexadecimal digits")
    return text


RelativePath = Annotated[str, AfterValidator(_relative)]  # pydantic type: a path inside the checkout
Sha256 = Annotated[str, AfterValidator(_sha256)]  # pydantic type: 64 hexadecimal digits


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, populate_by_name=True)


class TrainedOn(_Table):
    """A dataset on which the published weights were trained."""

    dataset: Key  # as in the ids of clips
    # The speakers of the dataset that were held out; the weights were trained on all others.
    held_out: tuple[Name, ...] = Field(default=(), alias="except")
    # The parts of the dataset's own split on which the weights were trained; empty: all parts.
    splits: tuple[Name, ...] = ()

    def has(self, dataset: str, speaker: str, split: str | None) -> bool:
        """Whether the weights were trained on this clip, as far as is known: without a split, they were."""
        if dataset != self.dataset or speaker in self.held_out:
            return False
        return not self.splits or split is None or split in self.splits


class Variant(_Table):
    """Another form of a method, in which it receives other inputs or other weights."""

    title: Line
    summary: Text = ""  # empty: the summary of the default form
    sees: tuple[str, ...] = ()  # empty: the inputs of the default form
    inputs: Text = ""  # empty: the inputs that the papers gave


class RecipeRun(_Table):
    """The table `[recipe]` of an entry. Unknown fields are an error."""

    python: str = Field(pattern=r"^3\.\d{1,2}$")  # the version of Python that the environment needs
    calls: dict[RelativePath, Sha256]  # the files of the checkout that the runner calls, at the pinned commit
    # For one pair. The time to load the models is not part of it.
    deadline_s: float = Field(default=600.0, gt=0, le=LONGEST_S)
    size: SizeRule = "as-is"
    length: LengthRule = "as-is"
    emotions: dict[Name, Text] = Field(default_factory=dict)  # {this suite's label: the method's}; empty: sees no label
    trained_on: tuple[TrainedOn, ...] = ()
    variants: dict[Key, Variant] = Field(default_factory=dict)
    options: dict[Name, Text] = Field(
        default_factory=dict
    )  # {test-only limit: what it limits}; the values are integers
    smoke_frames: int = Field(default=25, ge=5, le=250)  # number of frames of the smoke test
    file: Path = Path()  # the entry's file; `read_entry` sets it
    variant: str = ""  # the variant of this entry; the catalogue sets it

    @property
    def folder(self) -> Path:
        """The folder of the recipe."""
        return self.file.parent


class RecipeMethod:
    """The published code of a method, run by the runner of its recipe.

    Attributes:
        datasets: on which the weights were trained; empty for seeded weights.
    """

    def __init__(self, name: str, revision: str, sees: frozenset[str], recipe: RecipeRun, place: Place) -> None:
        self.name, self.revision, self.sees, self._recipe, self._place = name, revision, sees, recipe, place
        self.deadline_s = START_S + recipe.deadline_s  # for a first pair: the models are loaded, then the pair is made
        self.datasets = () if place.seeded else recipe.trained_on
        self._process: HostProcess | None = None

    def generate(self, case: Case) -> np.ndarray:
        """The video of the case, in the form of the setting.

        Raises:
            ClipError: unsayable (the method lacks the emotion), method-failed, crashed, deadline, too-long; also
                no-face if the size rule needs a face.
        """
        recipe = self._recipe
        if recipe.emotions and "emotion-label" in self.sees and case.target_emotion not in recipe.emotions:
            known = ", ".join(recipe.emotions)
            raise ClipError(Reason.UNSUPPORTED_LABEL, f"{self.name} has no {case.target_emotion}; it has {known}")
        if self._process is None:
            self._process = start(recipe, self._place, case.log)
        case.note(f"ran on {self._place.device_name}")
        if self._place.options:
            case.note("test-only limits: " + ", ".join(f"{key} {n}" for key, n in sorted(self._place.options.items())))
        frames = check_output(self._process.generate(case, label="emotion-label" in self.sees))
        if len(frames) > longest_s(case) * case.fps:
            raise ClipError(Reason.TOO_LONG, f"{self.name} made {len(frames)} frames, and {case.n_frames} are wanted")
        if len(frames) != case.n_frames:
            case.note(f"length: {len(frames)} frames of {case.n_frames}")
        return fit_length(fit_size(frames, case, recipe.size), case, recipe.length)

    def close(self) -> None:
        """End the process of the runner."""
        if self._process is not None:
            self._process.close()
            self._process = None


class Place(_Table):
    """Where the parts of a method are on this machine."""

    checkout: Path
    python: Path
    weights: dict[str, Path]
    device: str  # cpu, or cuda:0
    device_name: str  # cpu, or the name of the GPU
    options: dict[str, int]
    seeded: bool


START_S = 300.0  # time to import the repository and to load the models


def start(recipe: RecipeRun, place: Place, log: Path | None) -> HostProcess:
    """The process of the runner, with its models loaded. What it prints is written to `log`.

    Raises ClipError if the runner cannot be created.
    """
    setup = {
        "checkout": str(place.checkout.resolve()),
        "weights": {name: str(path.resolve()) for name, path in place.weights.items()},
        "device": place.device,
        "variant": recipe.variant,
        "options": place.options,
        "emotions": recipe.emotions,
    }
    folders = (COMPAT, place.checkout.resolve())
    run = PythonRun(folders=folders, python=place.python, deadline_s=recipe.deadline_s)
    process = HostProcess(f"{recipe.folder / RUNNER}:Runner", run, setup)
    try:
        process.describe(log)
    except ClipError:
        process.close()
        raise
    return process
