"""Writes a small repository of a talking-face method, and its recipe, for tests without the code of a paper."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from cmet_baselines.adapters.recipe import Place, RecipeMethod
from cmet_baselines.entry import Entry, read_entry
from cmet_baselines.registry import catalogue, get_method
from cmet_baselines.setup import state
from cmet_baselines.setup.request import Request
from cmet_baselines.setup.state import KnownFile, Smoke, State
from cmet_baselines.setup.steps import set_up
from talking_face.files import sha256_of
from talking_face.pretrained.model_files import ModelFiles


def method_of(form: str, checkout: Path, weights: dict[str, Path], **options: int) -> RecipeMethod:
    """A method of the catalogue on a stand-in checkout, with seeded weights and the interpreter of the tests."""
    entry = catalogue()[form]
    place = Place(
        checkout=checkout,
        python=Path(sys.executable),
        weights=weights,
        device="cpu",
        device_name="cpu",
        options=options,
        seeded=True,
    )
    return RecipeMethod(form, "1", frozenset(entry.sees), state.recipe_of(entry), place)


# The repository moves a picture by the loudness of the sound, as far as its weights state.
TALKER = """
import numpy as np
from helpers import loudness

CUDA_WANTED = np.float(0)  # breaks on present versions of numpy, as the code of papers does


class Talker:
    def __init__(self, path):
        self.gain = int(np.load(path)[0])

    def write(self, picture, sound, folder, copies=1):
        shifts = loudness(sound) * self.gain
        frames = [np.roll(picture, (3 * t + int(s)) % 9, axis=1) for t, s in enumerate(shifts)]
        for copy in range(copies):
            np.save(folder / f"made{copy}.npy", np.stack(frames))
"""
HELPERS = """
import numpy as np


def loudness(sound):
    parts = sound[: len(sound) // 640 * 640].reshape(-1, 640).astype(float)
    return np.abs(parts).mean(axis=1)[:-1] / 1000  # the last frame is absent, as in the code of papers
"""
RUNNER = '''
"""Runs the stand-in."""

import os
import time

import compat
import numpy as np


class Runner:
    """`Talker.write` of the stand-in."""

    def __init__(self, setup):
        compat.numpy_names()
        from talker import Talker

        assert setup.device == "cpu" and setup.variant in ("", "upper-half")
        self.setup, self.fault = setup, setup.options.get("fault", 0)
        self.talker = Talker(setup.weights["talker.npy"])

    def generate(self, case):
        print("working", flush=True)
        if self.fault == 1:
            os._exit(7)
        if self.fault == 2:
            time.sleep(60)
        if self.fault == 3:
            raise ValueError("no face here")
        picture = case.upper_half_frames[0] if self.setup.variant else case.reference_frames[0]
        with compat.inside(self.setup.work / case.pair_id.replace("/", "-")) as folder:
            self.talker.write(picture, compat.with_silence(case.driving_audio, 640), folder, 1 + (self.fault == 4))
            frames = np.load(compat.only(folder, "*.npy"))
        case.note(f"640 samples of silence; emotion {self.setup.emotions.get(case.target_emotion)}; pid {os.getpid()}")
        return {5: frames[:-3], 6: frames * 0, 7: frames[[0] * len(frames)]}.get(self.fault, frames)
'''
SEEDED = '''
"""Writes seeded weights of the stand-in."""

import numpy as np


def write(checkout, weights, seed):
    assert (checkout / "talker.py").is_file()
    np.save(weights / "talker.npy", np.random.default_rng(seed).integers(1, 4, 1))
'''
ENTRY = """
name = "{name}"
title = "Talker"
summary = "A picture that moves with the sound."
kind = "recipe"
revision = "{short}"
licence = "yours"
sees = ["reference-frames", "driving-audio", "emotion-label"]
inputs = "a picture"

[code]
released = true
repository = "nobody/talker"
commit = "{commit}"

[[weights]]
file = "talker.npy"
source = "a page"
licence = "yours"

[[weights]]
file = "better.npy"
source = "a page"
licence = "yours"
variants = ["better"]

[recipe]
python = "3.11"
deadline_s = 2
smoke_frames = 6
trained_on = [{{ dataset = "elsewhere", except = ["M003"] }}]
emotions = {{ happy = "hap", sad = "sad", angry = "ang", neutral = "neu" }}
options = {{ fault = "number of the fault to show" }}

[recipe.calls]
"talker.py" = "{talker}"
"helpers.py" = "{helpers}"

[recipe.variants.upper-half]
title = "Talker, real upper half"
sees = ["upper-half", "driving-audio", "emotion-label"]

[recipe.variants.better]
title = "Talker, better weights"
"""


def write_repository(folder: Path) -> str:
    """Writes the repository with one commit, which is always the same. Returns the commit."""
    folder.mkdir(parents=True)
    (folder / "talker.py").write_text(TALKER)
    (folder / "helpers.py").write_text(HELPERS)
    who = ("-c", "user.name=n", "-c", "user.email=e@example.org")
    dates = {"GIT_AUTHOR_DATE": "2020-01-01T00:00:00Z", "GIT_COMMITTER_DATE": "2020-01-01T00:00:00Z"}
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-q", "-m", "All")):
        subprocess.run(["git", *words], cwd=folder, check=True, env=os.environ | dates)
    done = subprocess.run(["git", "rev-parse", "HEAD"], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout.strip()


def write_recipe(folder: Path, repository: Path, commit: str, name: str = "talker") -> Path:
    """Writes the recipe of the repository into `folder`. Returns the path of its entry."""
    folder.mkdir(parents=True)
    (folder / "runner.py").write_text(RUNNER)
    (folder / "seeded.py").write_text(SEEDED)
    (folder / "requirements.txt").write_text("# nothing but the standard packages\n")
    hashes = {name: sha256_of(repository / f"{name}.py") for name in ("talker", "helpers")}
    path = folder / "talker.toml"
    path.write_text(ENTRY.format(name=name, short=commit[:7], commit=commit, **hashes))
    return path


class World:
    """A repository, its recipe, its weights, and an empty folder for what is set up."""

    def __init__(self, folder: Path, name: str = "talker") -> None:
        self.name = name
        self.checkout, self.weights = folder / "their code", folder / "weights"
        self.commit = write_repository(self.checkout)
        self.entry_path = write_recipe(folder / "talker", self.checkout, self.commit, name)
        self.weights.mkdir()
        np.save(self.weights / "talker.npy", np.array([2]))
        self.files = ModelFiles(cache=folder / "cache", baselines=folder / "set-up")
        self.said: list[str] = []

    @property
    def entry(self) -> Entry:
        return read_entry(self.entry_path)

    @property
    def request(self) -> Request:
        return Request(self.checkout, self.weights, Path(sys.executable), device="cpu")

    def set_up(self, **changed: object) -> State:
        return set_up(self.entry, replace(self.request, **changed), self.files, self.said.append)  # type: ignore[arg-type]

    def method(self) -> RecipeMethod:
        found = get_method(str(self.entry_path), self.files)
        assert isinstance(found, RecipeMethod)
        return found

    def get_ready(self, **changed: object) -> State:
        """Store a state as a setup does, without its smoke test."""
        path = self.weights / "talker.npy"
        known = KnownFile(path=path, sha256=sha256_of(path), bytes=path.stat().st_size)
        seen = Smoke(
            frames=6, wanted=6, size=(8, 8), faces=6, brightness=9, motion=9, seconds=1, notes=(), revision="1"
        )
        facts = {"checkout": self.checkout, "commit": self.commit, "commit_from": "git", "packages": "0" * 64}
        facts |= {
            "python": sys.executable,
            "python_version": "3.11.0",
            "device": "cpu",
            "device_name": "cpu",
            "weights": {path.name: known},
        }
        made = State.model_validate({"name": self.name, "seeded": False, **facts, "smoke": seen, **changed})
        state.write_state(made, self.files)
        return made
