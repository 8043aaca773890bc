"""Tests recipes from setup to result rows with a stand-in repository, and each way in which they can fail."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmet_baselines import registry
from cmet_baselines.adapters.recipe import RecipeMethod
from cmet_baselines.method import Case, CaseSpec
from cmet_baselines.registry import catalogue, describe, get_method
from cmet_baselines.setup import environment, state
from cmet_baselines.setup.request import Request
from cmet_baselines.setup.steps import lacking
from talking_face.reasons import ClipError, Reason, UserError
from tests.baselines.test_methods import make_case
from tests.recipe_stand_in import World, write_recipe


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def failure(method: RecipeMethod) -> tuple[ClipError, Case]:
    """The error of one case, and the case."""
    case = make_case(method.sees)
    try:
        with pytest.raises(ClipError) as caught:
            method.generate(case)
    finally:
        method.close()
    return caught.value, case


def test_a_method_runs_after_its_setup_and_stays_in_memory(world: World) -> None:
    with pytest.raises(
        UserError, match=r"^talker cannot run: talker is not set up; run `cmet-eval baselines setup [^`]+`$"
    ):
        get_method(str(world.entry_path), replace(world.files, cache=Path("another")))
    done = world.set_up()
    assert done.commit == world.commit and done.commit_from == "git" and done.smoke is not None
    assert done.smoke.frames == done.smoke.wanted == 6 and done.smoke.faces == 6 and done.smoke.motion > 0.02
    assert any("face in 6" in line for line in world.said) and list(lacking(world.entry, Request(), world.files)) == []
    method, case = world.method(), make_case(world.method().sees)
    first, second = method.generate(case), method.generate(case)
    assert first.shape == (6, 8, 8, 3) and (first == second).all() and first.std(axis=0).max() > 0
    notes = [note for note in case.notes if "emotion hap" in note]
    assert len(notes) == 2 and len(set(notes)) == 1 and "pid" in notes[0]  # one process for both cases
    assert case.notes[0] == "ran on cpu" and not list(world.checkout.glob("*.npy"))
    method.close()


def test_the_record_has_no_path_of_this_machine(world: World, tmp_path: Path) -> None:
    world.get_ready()
    record = describe(str(world.entry_path), world.files)
    assert record["kind"] == "recipe" and record["revision"].startswith(world.commit[:7] + "+")
    assert str(tmp_path) not in json.dumps(record)


def test_every_part_is_in_the_revision(world: World) -> None:
    done, entry = world.get_ready(), world.entry
    assert entry.recipe is not None
    known = {state.revision(entry, done)}
    other = {"talker.npy": done.weights["talker.npy"].model_copy(update={"sha256": "0" * 64})}
    for change in ({"weights": other}, {"options": {"fault": 5}}, {"packages": "1" * 64}, {"commit": "0" * 40}):
        known.add(state.revision(entry, done.model_copy(update=change)))
    for change in ({"variant": "x"}, {"size": "resize"}, {"calls": {"talker.py": "0" * 64}}):
        known.add(state.revision(entry.model_copy(update={"recipe": entry.recipe.model_copy(update=change)}), done))
    runner = world.entry_path.with_name("runner.py")
    runner.write_text(runner.read_text() + "# another\n")
    known.add(state.revision(entry, done))
    assert len(known) == 9
    assert state.revision(entry, done.model_copy(update={"device": "cuda:0"})) in known


@pytest.mark.parametrize(
    ("fault", "reason", "words"),
    [
        (1, Reason.CRASHED, "ended with 7: working"),
        (2, Reason.DEADLINE, "took over 2 s"),
        (3, Reason.METHOD_FAILED, "ValueError: no face here"),
        (4, Reason.METHOD_FAILED, r"one output \*.npy is wanted, and the repository wrote made0.npy, made1.npy"),
    ],
)
def test_each_failure_of_a_case_has_its_reason(world: World, fault: int, reason: Reason, words: str) -> None:
    world.get_ready(options={"fault": fault})
    error, case = failure(world.method())
    assert f"test-only limits: fault {fault}" in case.notes
    assert error.reason is reason
    assert re.search(words, error.detail), error.detail


def test_a_crash_costs_one_case(world: World) -> None:
    world.get_ready()
    method = world.method()
    case = make_case(method.sees)
    first = method.generate(case)
    os.kill(int(case.notes[-1].rpartition("pid ")[2]), 9)
    with contextlib.suppress(ClipError):  # the request can reach the child before its end is noticed
        method.generate(case)
    assert (method.generate(case) == first).all()
    method.close()


def test_an_emotion_that_the_method_lacks_is_told_before_it_runs(world: World) -> None:
    world.get_ready()
    method = world.method()
    spec = CaseSpec(
        pair_id="p", setting="s", speaker="A", n_frames=6, size=(8, 8), seed=0, target_emotion="contempt", intensity=3
    )
    case = Case(spec, {}, method.sees)
    with pytest.raises(ClipError, match="talker has no contempt; it has happy") as caught:
        method.generate(case)
    assert caught.value.reason is Reason.UNSUPPORTED_LABEL


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (1, "failed, crashed"),
        (2, "failed, deadline"),
        (5, "it has 3 frames, and 6 are wanted"),
        (6, r"it is black .*; it is frozen"),
        (7, r"it is frozen \(mean change of a frame 0.000 grey values\); look at .*smoke.mp4$"),
    ],
)
def test_the_smoke_test_refuses_a_wrong_video(world: World, fault: int, words: str) -> None:
    with pytest.raises(UserError, match=words):
        world.set_up(options={"fault": fault})
    with pytest.raises(UserError, match="talker cannot run: the smoke test did not pass"):
        world.method()


def test_files_that_changed_since_the_setup_are_refused(world: World) -> None:
    world.set_up()
    np.save(world.weights / "talker.npy", np.array([3]))
    (world.checkout / "helpers.py").write_text("loudness = len\n")
    lines = list(lacking(world.entry, Request(), world.files))
    assert len(lines) == 2 and "helpers.py" in lines[0] and "is not the file of the pinned commit" in lines[0]
    assert "talker.npy has changed since its first use: sha256" in lines[1]
    with pytest.raises(UserError, match=r"^talker cannot run: helpers.py in [^\n]+$"):
        world.method()
    with pytest.raises(UserError, match=r"helpers.py .* is not the file of the pinned commit"):
        world.set_up()
    subprocess.run(["git", "checkout", "-q", "."], cwd=world.checkout, check=True)
    with pytest.raises(UserError, match=r"talker.npy is not the one of the first use.*--fresh"):
        world.set_up()
    assert world.set_up(fresh=True).weights["talker.npy"].sha256 != ""
    assert world.method().revision


def test_each_missing_part_stops_the_setup_in_one_line(world: World, tmp_path: Path) -> None:
    for changed, words in (
        ({"checkout": tmp_path / "none"}, "the checkout .* does not exist"),
        ({"weights": tmp_path / "none"}, "the folder of weights .* does not exist"),
        ({"weights": tmp_path}, r"talker has no talker.npy .*put the files into one folder and run"),
        ({"weights": tmp_path, "checkout": None}, "talker has no talker.npy"),  # before it clones
        ({"python": tmp_path / "none"}, "does not exist, or cannot be executed"),
        ({"python": Path("/bin/false")}, "/bin/false ended with 1: it printed nothing"),
        ({"options": {"speed": 1}}, "talker has no option speed; its options: fault"),
        ({"seeded": True}, "--seeded writes the weights itself"),
    ):
        with pytest.raises(UserError, match=words) as caught:
            world.set_up(**changed)
        assert "\n" not in str(caught.value)
    lines = list(lacking(world.entry, Request(python=tmp_path / "none"), world.files))
    assert [line.partition(":")[0] for line in lines] == ["checkout", "environment", "missing", "smoke test"]
    assert "talker.npy; licence: yours; size not known; a page" in lines[2]


def test_another_commit_is_refused_and_a_copy_without_git_is_compared_by_hashes(world: World, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(world.checkout, copy, ignore=shutil.ignore_patterns(".git"))
    assert world.set_up(checkout=copy).commit_from == "hashes"
    assert any("no .git there: only the called files were compared" in line for line in world.said)
    commit = (
        "git",
        "-c",
        "user.name=n",
        "-c",
        "user.email=e@example.org",
        "commit",
        "-q",
        "--allow-empty",
        "-m",
        "Two",
    )
    subprocess.run(commit, cwd=world.checkout, check=True)
    with pytest.raises(
        UserError, match=f"is at commit .*, and the recipe was made for {world.commit}; run `git checkout"
    ):
        world.set_up()


def test_the_repository_is_cloned_at_the_pinned_commit(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """git reads the address of the repository as the folder of the stand-in."""
    subprocess.run(["git", "config", "uploadpack.allowAnySHA1InWant", "true"], cwd=world.checkout, check=True)
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", f"url.{world.checkout}.insteadOf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://github.com/nobody/talker")
    done = world.set_up(checkout=None)
    assert done.checkout == world.files.baselines / "checkouts" / "talker" and done.commit_from == "git"  # type: ignore[operator]
    shutil.rmtree(done.checkout)
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "https://example.org")
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    with pytest.raises(
        UserError, match=r"cannot clone https://github.com/nobody/talker: .*; give a checkout with --checkout"
    ):
        world.set_up(checkout=None)


def write_program(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "$0 $*" >> {path.parent}/calls\n{text}\n')
    path.chmod(0o755)


@pytest.mark.parametrize("tool", ["uv", "python3.99"])
def test_equal_requirements_share_an_environment(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tool: str
) -> None:
    programs, root = tmp_path / "programs", tmp_path / "root"
    # The last argument of both programs is the folder of the new environment, or the list of packages.
    make = 'for last; do :; done; case "$last" in *.txt) ;; *) mkdir -p "$last/bin"; cp "$0" "$last/bin/python";; esac'
    write_program(programs / tool, make)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    recipe = world.entry.recipe
    assert recipe is not None
    recipe = recipe.model_copy(update={"python": "3.99"})
    assert not environment.is_built(environment.environment_folder(recipe, root))
    python = environment.build(recipe, root)
    calls = (programs / "calls").read_text()
    assert python.is_file() and environment.build(recipe, root) == python
    assert "3.99" in calls and str(python.parents[1]) in calls and (programs / "calls").read_text() == calls
    assert f"-r {recipe.folder}/requirements.txt" in calls
    other = write_recipe(tmp_path / "other" / "talker", world.checkout, world.commit)
    same = recipe.model_copy(update={"file": other})
    assert environment.environment_folder(same, root) == python.parents[1]
    other.with_name("requirements.txt").write_text("numpy==2.0.0  # old\n")
    assert environment.environment_folder(same, root) != python.parents[1]


def test_the_versions_that_differ_and_the_absent_python_are_stated(world: World, tmp_path: Path) -> None:
    recipe = world.entry.recipe
    assert recipe is not None
    (recipe.folder / "requirements.txt").write_text("numpy==2.0.0  # old\nno_such-Package==1\n")
    here = environment.probe(Path(sys.executable), gpu=False)
    lines = environment.differences(recipe.model_copy(update={"python": "3.10"}), here)
    assert [line.partition(",")[0].rpartition(" ")[0] for line in lines] == ["Python", "numpy", "no_such-Package"]
    with pytest.raises(UserError, match=r"Python 3.99 is not installed; install it or uv, or give --python"):
        environment.find_python("3.99")


@pytest.fixture
def in_catalogue(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    """The world, with its recipe in the catalogue."""
    for module in (registry, state):
        monkeypatch.setattr(module, "RECIPES", world.entry_path.parents[1])
    monkeypatch.setenv("CMET_EVAL_BASELINES", str(world.files.baselines))
    catalogue.cache_clear()
    yield world
    monkeypatch.undo()
    catalogue.cache_clear()


def test_seeded_weights_are_another_method_by_name_title_and_revision(in_catalogue: World) -> None:
    world = in_catalogue
    seeded = world.entry_path.with_name("seeded.py")
    text = seeded.read_text()
    seeded.write_text(text.replace("np.save(weights / ", "assert 0, (weights / "))
    with pytest.raises(UserError, match=r"seeded weights: seeded.py ended with 1: .*AssertionError"):
        world.set_up(seeded=True, weights=None)
    seeded.write_text(text)
    done = world.set_up(seeded=True, weights=None)
    assert done.seeded and done.weights["talker.npy"].path.is_relative_to(world.files.baselines or "")
    record = describe("talker-seeded")
    assert record["title"] == "Talker, SEEDED weights" and "random weights" in record["summary"]
    assert record["revision"].startswith(f"{world.commit[:7]}+seeded-") and record["published_as"] == []
    method = get_method("talker-seeded")
    assert method.name == "talker-seeded" and isinstance(method, RecipeMethod) and method.datasets == ()
    with pytest.raises(UserError, match="talker is not set up; run `cmet-eval baselines setup talker`"):
        get_method("talker")


def test_a_variant_is_a_method_with_its_own_inputs_and_weights(in_catalogue: World) -> None:
    in_catalogue.get_ready()
    assert get_method("talker").sees == {"reference-frames", "driving-audio", "emotion-label"}
    variant = get_method("talker-upper-half")
    assert variant.sees == {"upper-half", "driving-audio", "emotion-label"}
    assert variant.revision != get_method("talker").revision
    frames = np.random.default_rng(0).integers(0, 255, (6, 8, 8, 3), np.uint8)
    case = make_case(variant.sees, upper_half_frames=frames)
    assert (np.sort(variant.generate(case)[0], axis=1) == np.sort(frames[0], axis=1)).all()
    assert describe("talker-upper-half")["title"] == "Talker, real upper half"
    with pytest.raises(UserError, match=r"talker-better cannot run: the weight file better.npy is missing; run"):
        get_method("talker-better")
    with pytest.raises(UserError, match="talker-better is a form of talker: run `cmet-eval baselines setup talker`"):
        registry.entry_to_set_up("talker-better")
