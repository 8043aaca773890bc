"""Tests the runners of ETK, SadTalker, EAMM and EAT with stand-ins of their repositories: frames, notes and silence."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from cmet_baselines.adapters.recipe import COMPAT, RecipeMethod
from cmet_baselines.method import Case
from cmet_baselines.registry import catalogue
from cmet_baselines.setup.weights import find
from talking_face.faces.points68 import to_68
from talking_face.media.writing import write_video
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError
from tests.baselines.test_methods import make_case
from tests.recipe_checkouts import write_checkout
from tests.recipe_stand_in import World, method_of

Start = Callable[..., RecipeMethod]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    made = []

    def started(name: str, **options: int) -> RecipeMethod:
        main = name.partition("-")[0]
        checkout, weights = write_checkout(main, tmp_path)
        if main == "eamm":
            (checkout / "test" / "video").mkdir(parents=True)
            frames = np.full((9, 256, 256, 3), 60, np.uint8)
            write_video(checkout / "test" / "video" / "happy.mp4", frames, 25.0, np.zeros(5760, np.int16), 16000)
        made.append(method_of(name, checkout, weights, **options))
        return made[-1]

    yield started
    for method in made:
        method.close()


def case_of(method: RecipeMethod, grey: int = 50) -> Case:
    """A case of six frames whose pictures are 256 px and of one grey value."""
    points = np.random.default_rng(1).uniform(60, 200, (4, 478, 3)).astype(np.float32)
    frames = np.full((4, 256, 256, 3), grey, np.uint8)
    arrays = {"reference_frames": frames, "source_frames": frames, "ground_truth_frames": frames + 7}
    arrays |= {"reference_landmarks": points, "source_landmarks": points, "ground_truth_landmarks": points}
    return make_case(method.sees, size=(256, 256), **arrays, other_take_frames=frames)


def levels(frames: np.ndarray) -> list[int]:
    """The grey value in the middle of each frame."""
    return [int(frame[128, 128].mean().round()) for frame in frames]


def test_etk_takes_the_output_of_the_label_and_loses_no_frame(start: Start) -> None:
    method = start("etk")
    case = case_of(method)
    frames = method.generate(case)
    assert frames.shape == (6, 256, 256, 3)
    # In the stand-in, red counts the frames by two half levels, green is the number of the label, and blue is 0.
    assert frames[:, 100, 100].tolist() == [[63 + t, 3, 0] for t in range(6)]
    text = " ".join(case.notes)
    assert "output HAP of six; 10 frames of silence appended" in text and "6 wanted, 6 given" in text
    assert "the first reference frame" in text and "by 68 points of dlib" in text


def test_etk_aligns_by_our_points_where_dlib_finds_no_face(start: Start) -> None:
    method = start("etk-first-frame")
    case = case_of(method, grey=249)  # the ground truth's pictures are black: 249 + 7 has no ninth bit
    method.generate(case)
    assert "the first real frame" in case.notes[1] and "dlib found no face" in case.notes[1]


@pytest.mark.parametrize(("limit", "wanted"), [(0, [10, 30, 50, 70, 90, 110]), (2, [10, 30, 10, 30, 10, 30])])
def test_sadtalker_puts_its_crop_back_to_its_place(start: Start, limit: int, wanted: list[int]) -> None:
    method = start("sadtalker", suite_points=1, frames=limit)
    case = case_of(method)
    assert levels(method.generate(case)) == wanted == levels(method.generate(case))
    text = " ".join(case.notes)
    assert "its crop of 128x64 px is put back to (12, 23)" in text and "6 wanted, 6 given" in text
    assert ("2 frames drawn" in text) == bool(limit) and "points of MediaPipe in place of facexlib's" in text


def test_sadtalker_without_the_option_uses_facexlib(start: Start) -> None:
    method = start("sadtalker")
    with pytest.raises(ClipError, match="LookupError: facexlib finds no face"):
        method.generate(case_of(method))


@pytest.mark.parametrize(("name", "note"), [("eamm", "test/video/happy.mp4"), ("eamm-other-take", "another take")])
def test_eamm_gives_the_video_with_emotion_and_loses_no_frame(start: Start, name: str, note: str) -> None:
    method = start(name)
    case = case_of(method)
    assert levels(method.generate(case)) == levels(method.generate(case)) == [100, 101, 102, 103, 104, 105]
    text = " ".join(case.notes)
    assert f"emotion video: {note}" in text and "pose of the 4 source frames" in text
    assert "640 samples of silence behind the sound; frames: 6 wanted, 6 given" in text


@pytest.mark.parametrize(("name", "whose"), [("eat", "source"), ("eat-real-pose", "real")])
def test_eat_is_driven_by_the_pose_of_the_source_video(start: Start, name: str, whose: str) -> None:
    method = start(name)
    case = case_of(method)
    assert levels(method.generate(case)) == levels(method.generate(case)) == [100, 101, 102, 103, 104, 105]
    text = " ".join(case.notes)
    assert f"pose of the 4 {whose} frames, forwards and backwards" in text and "label hap" in text
    assert "6 wanted, 6 given" in text


@pytest.mark.parametrize("name", ["eamm", "eat"])
def test_a_picture_without_a_face_is_named(start: Start, name: str) -> None:
    method = start(name)
    with pytest.raises(ClipError, match="dlib finds 0 faces in a first frame, and one is needed"):
        method.generate(case_of(method, grey=0))


def test_the_table_of_68_points_is_that_of_the_suite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(COMPAT))
    import compat

    points = np.random.default_rng(0).normal(size=(2, 478, 3))
    assert np.array_equal(compat.points_68(points), to_68(points))


def test_a_weight_that_an_installed_package_has_is_found(tmp_path: Path) -> None:
    (points,) = [weight for weight in catalogue()["eamm"].weights if weight.registered]
    found = find(points, None, ModelFiles(cache=tmp_path))
    assert found is not None and found.name == points.file and tmp_path not in found.parents


def test_seeded_weights_are_used_with_a_file_of_the_suite(tmp_path: Path) -> None:
    world, name = World(tmp_path / "world"), "shape_predictor_68_face_landmarks.dat"
    more = f'[[weights]]\nfile = "{name}"\nsource = "a page"\nlicence = "yours"\nregistered = "dlib_68"\n\n[recipe]\n'
    world.entry_path.write_text(world.entry_path.read_text().replace("[recipe]\n", more, 1))
    assert set(world.set_up(seeded=True, weights=None).weights) == {"talker.npy", name}
