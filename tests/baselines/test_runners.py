"""Runs the runners and the seeded weights of recipes against stand-ins with the interfaces of the repositories.

A folder `tests/runner_stand_ins/NAME` has the few files of the interface that the recipe NAME calls. They are ours.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from cmet_baselines.registry import catalogue
from cmet_baselines.setup import smoke
from cmet_baselines.setup.state import recipe_of
from cmet_baselines.setup.weights import write_seeded
from talking_face.pretrained.model_files import ModelFiles
from tests.recipe_stand_in import method_of

STAND_INS = Path(__file__).parents[1] / "runner_stand_ins"
NAMES = sorted(path.name for path in STAND_INS.iterdir())
FORMS = [
    entry.name
    for name in NAMES
    for entry in catalogue().values()
    if entry.recipe is not None and entry.recipe.folder.name == name
]
N_FRAMES = 12


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """{name of a recipe: the folder with its seeded weights}."""
    made = {}
    for name in NAMES:
        made[name] = tmp_path_factory.mktemp(name)
        write_seeded(recipe_of(catalogue()[name]), STAND_INS / name, Path(sys.executable), made[name])
    return made


@pytest.mark.parametrize("form", FORMS)
def test_a_runner_gives_a_video_of_the_wanted_length_and_states_what_it_did(
    form: str, weights: dict[str, Path], tmp_path: Path
) -> None:
    entry = catalogue()[form]
    recipe = recipe_of(entry)
    name = recipe.folder.name
    before = contents(STAND_INS / name)
    files = {weight.file: weights[name] / weight.file for weight in entry.weights}
    method = method_of(form, STAND_INS / name, files)
    emotion = next(iter(recipe.emotions), "happy")
    videos = []
    try:
        for run in range(2):
            case = smoke.make_case(method.sees, N_FRAMES, emotion, ModelFiles(), tmp_path / f"{run}.log")
            videos.append(method.generate(case))
            assert len(case.notes) > 1, "the runner states nothing"
    finally:
        method.close()
    assert videos[0].shape[0] == N_FRAMES and videos[0].dtype == np.uint8
    assert videos[0].std(axis=0).max() > 0, "the video is frozen"
    np.testing.assert_array_equal(videos[0], videos[1], err_msg="the second case of a process gives another video")
    assert contents(STAND_INS / name) == before, "the runner wrote into the checkout"


def contents(folder: Path) -> set[str]:
    return {str(path) for path in folder.rglob("*") if "__pycache__" not in path.parts}
