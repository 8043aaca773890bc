"""Tests the catalogue's entries of outside methods, and the example method in the docs."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cmet_baselines.entry import Entry, read_entry
from cmet_baselines.registry import catalogue, get_method
from cmet_eval.cli import build
from talking_face.reasons import UserError
from tests.baselines.test_methods import make_case

DOCS = Path(__file__).parents[2] / "docs" / "reference" / "baselines.md"
PUBLISHED = [entry for entry in catalogue().values() if entry.kind == "published"]
RECIPES = [entry for entry in catalogue().values() if entry.recipe is not None]


@pytest.mark.parametrize("entry", PUBLISHED + RECIPES, ids=lambda entry: entry.name)
def test_an_outside_method_has_its_facts(entry: Entry) -> None:
    is_variant = entry.recipe is not None and entry.recipe.variant
    assert entry.inputs and entry.licence and (entry.published_as or is_variant) and entry.role == "method"
    if entry.code is not None and entry.code.released:
        assert entry.paper is not None and entry.code.commit is not None
        assert entry.code.commit.startswith(entry.revision) and len(entry.code.commit) == 40
        assert entry.how_to_run or entry.name == "emostyle"  # its README does not state how
    if entry.kind == "published":
        with pytest.raises(UserError, match=r"published numbers; (to run it, get|its code was never released)"):
            get_method(entry.name)


@pytest.mark.parametrize("entry", RECIPES, ids=lambda entry: entry.name)
def test_a_recipe_is_complete_and_its_default_form_sees_no_ground_truth(entry: Entry) -> None:
    recipe = entry.recipe
    assert recipe is not None and recipe.calls and recipe.trained_on and entry.weights
    for name in ("runner.py", "seeded.py", "requirements.txt"):
        assert (recipe.folder / name).is_file()
    assert len((recipe.folder / "runner.py").read_text().splitlines()) <= 150
    assert recipe.variant or not {"upper-half", "ground-truth-pose", "ground-truth"} & set(entry.sees)
    labelled = [form for form in catalogue()[entry.name].forms() if "emotion-label" in form.sees]
    assert recipe.variant or labelled or not recipe.emotions
    assert all(weight.source and weight.licence for weight in entry.weights)


def test_unreleased_code_is_marked_and_no_hash_is_invented() -> None:
    code = catalogue()["cem-net-published"].code
    assert code is not None and not code.released and "ever released" in code.note
    # No repository states the size or the hash of its files.
    assert not [w for entry in PUBLISHED + RECIPES for w in entry.weights if (w.sha256 or w.bytes) and not w.registered]


def test_an_example_command_may_use_only_what_the_method_sees() -> None:
    raw = catalogue()["interface"].model_dump() | {"sees": ("driving-audio",)}
    example = {"command": ["x", "{driving_audio}", "{reference_image}", "{output}"]}
    with pytest.raises(ValueError, match="given reference-frames, which `sees` does not name"):
        Entry.model_validate(raw | {"example": example})
    with pytest.raises(ValueError, match="`example` is for published methods"):
        Entry.model_validate(catalogue()["ground-truth"].model_dump() | {"example": example})


def test_list_groups_by_kind_and_show_marks_published_numbers() -> None:
    listed = CliRunner().invoke(build("baselines"), ["baselines", "list"]).output
    assert listed.index("static-reference") < listed.index("  eat ") and "Published numbers only" in listed
    assert listed.index("Released code of papers") < listed.index("  wav2lip ") < listed.index("Published numbers only")
    shown = CliRunner().invoke(build("baselines"), ["baselines", "show", "eat"]).output
    before, _, numbers = shown.partition("Published numbers, as the papers print them; none is comparable with ours")
    assert "yuangan/EAT_code" in before and "NC" in before and "38.2" not in shown
    assert "Table II, MEAD, cross-emotion" in numbers and "EAT: psnr 23.63, ssim 0.67, m_lmd 4.17" in numbers
    assert "acc_emo 41.56" in numbers and "SadTalker" not in numbers


def test_the_ten_lines_of_the_docs_are_a_method(tmp_path: Path) -> None:
    script, entry = re.findall(r"```(?:python|toml)\n(# (?:shake\.py|shake\.toml)\n.*?)```", DOCS.read_text(), re.S)
    assert len(script.strip().splitlines()) <= 11  # ten, and its name
    (tmp_path / "shake.py").write_text(script)
    path = tmp_path / "shake.toml"
    path.write_text(
        entry.replace("/path/to/its/python", sys.executable).replace('"shake.py"', f'"{tmp_path}/shake.py"')
    )
    assert read_entry(path).kind == "command"
    method = get_method(str(path))
    case = make_case(method.sees)
    frames = method.generate(case)
    assert frames.shape == (case.n_frames, *case.size, 3) and frames.std(axis=0).max() > 0
    assert any(note.startswith("rate: nearest frame, from 30") for note in case.notes)


def test_show_lists_the_differences_of_a_reference_model_also_before_it_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMET_EVAL_CHECKPOINTS", str(tmp_path))
    for name, difference in (
        ("cmet", "cmet, face codec (adapted, demo): "),
        ("cem-net", "ebm, temperature (adapted, "),
    ):
        shown = CliRunner().invoke(build("baselines"), ["baselines", "show", name]).output
        assert difference in shown and "not trained here" in shown and ", adapted" in shown
