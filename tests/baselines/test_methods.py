"""Tests that methods receive only declared inputs, and what the trivial methods return."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmet_baselines.entry import FROM_CHECKPOINT, Entry
from cmet_baselines.method import Case, CaseSpec, Method, UndeclaredInput, check_output
from cmet_baselines.registry import catalogue, describe, get_method
from talking_face.reasons import UserError


def make_case(
    sees: frozenset[str],
    n_frames: int = 6,
    source: int = 4,
    size: tuple[int, int] = (8, 8),
    **given: np.ndarray,
) -> Case:
    """A case of random arrays, or of those given by name."""
    rng = np.random.default_rng(0)
    arrays = {
        "reference_frames": rng.integers(0, 255, (3, 8, 8, 3), np.uint8),
        "source_frames": rng.integers(0, 255, (source, 8, 8, 3), np.uint8),
        "driving_audio": rng.integers(-9, 9, n_frames * 640).astype(np.int16),
        "ground_truth_frames": rng.integers(0, 255, (n_frames, 8, 8, 3), np.uint8),
    }
    spec = CaseSpec(
        pair_id="p",
        setting="s",
        speaker="A",
        n_frames=n_frames,
        size=size,
        seed=0,
        target_emotion="happy",
        intensity=3,
    )
    return Case(spec, {name: lambda array=array: array for name, array in (arrays | given).items()}, sees)  # type: ignore[misc]


@pytest.mark.parametrize("name", ["ground-truth", "static-reference", "source-video"])
def test_trivial_methods_run_on_their_declared_inputs(name: str) -> None:
    method = get_method(name)
    assert isinstance(method, Method)
    frames = check_output(method.generate(make_case(method.sees)))
    assert frames.shape == (6, 8, 8, 3)


@pytest.mark.parametrize("entry", [e for e in catalogue().values() if e.kind == "built-in"], ids=lambda e: e.name)
def test_class_and_entry_agree(entry: Entry) -> None:
    if entry.revision != FROM_CHECKPOINT:
        method = get_method(entry.name)
        assert (method.name, method.revision, method.sees) == (entry.name, entry.revision, set(entry.sees))


def test_output_of_the_trivial_methods() -> None:
    case = make_case(frozenset({"ground-truth", "reference-frames", "source-video"}))
    assert np.array_equal(get_method("ground-truth").generate(case), case.ground_truth_frames)
    assert all(np.array_equal(f, case.reference_frames[0]) for f in get_method("static-reference").generate(case))
    held = get_method("source-video").generate(case)
    assert np.array_equal(held[:4], case.source_frames) and np.array_equal(held[5], case.source_frames[3])
    assert case.notes == ["cut-or-hold-last: last of 4 frames held to 6"]
    longer = make_case(frozenset({"source-video"}), source=9)
    assert np.array_equal(get_method("source-video").generate(longer), longer.source_frames[:6])
    assert "cut from 9 to 6" in longer.notes[0]


def test_ground_truth_and_label_stay_hidden_unless_declared() -> None:
    case = make_case(frozenset({"driving-audio"}))
    for attribute in ("ground_truth_frames", "target_emotion", "intensity", "source_frames", "reference_frames"):
        with pytest.raises(UndeclaredInput, match="declares that it sees driving-audio"):
            getattr(case, attribute)
    assert case.driving_audio.shape == (6 * 640,)
    with pytest.raises(ValueError):
        case.driving_audio[0] = 1


def test_a_wrong_name_gets_a_suggestion_and_own_classes_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="did you mean static-reference"):
        get_method("static-referense")
    (tmp_path / "own_method_for_test.py").write_text(
        "class Mine:\n    'A method of my own.'\n    name, revision, sees = 'mine', '2', frozenset()\n"
        "    def generate(self, case): ...\nclass Not: pass\n"
    )
    monkeypatch.chdir(tmp_path)
    assert get_method("own_method_for_test:Mine").name == "mine"
    assert describe("own_method_for_test:Mine")["summary"] == "A method of my own."
    with pytest.raises(UserError, match="has no name, revision"):
        get_method("own_method_for_test:Not")
    with pytest.raises(UserError, match="cannot load"):
        get_method("no_such_module:Thing")


def test_the_catalogue_validates_and_refuses_unknown_fields() -> None:
    assert {"ground-truth", "static-reference", "source-video"} <= set(catalogue())
    raw = catalogue()["ground-truth"].model_dump()
    for bad in ({"speed": 1}, {"sees": ("the-future",)}, {"target": "rm -rf"}):
        with pytest.raises(ValueError):
            Entry.model_validate(raw | bad)


@pytest.mark.parametrize(
    "bad", [None, np.zeros((2, 4, 4), np.uint8), np.zeros((0, 4, 4, 3), np.uint8), np.zeros((1, 4, 4, 3))]
)
def test_output_that_is_not_a_video_is_an_error(bad: object) -> None:
    with pytest.raises(ValueError, match="generate should return"):
        check_output(bad)
