"""The command `train`: stages in order, configurations, wrong uses, the estimate of time."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import pyarrow as pa
import pytest
from click.testing import Result
from typer.testing import CliRunner

from cmet_eval.cli import build
from cmet_reference.training import checkpoints, config, models, rehearsal
from cmet_reference.training.options import TrainOptions
from cmet_reference.training.stage import Optimizer
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.sealed import write_sealed_json, write_sealed_table

TINY = """
from tests.cmet_reference.training_parts import Line
from cmet_reference.training import checkpoints
STAGES = ("one", "two", "three")

def stages(config, folders, out, options, files):
    def make(name):
        if name == "two":
            checkpoints.load(out / "one.safetensors", "one")
        stage = Line(config[name]["steps"], rate=config[name]["rate"])
        stage.name = name
        return stage
    return [lambda: make("one"), lambda: make("two"), None]
"""


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model of three stages, the second of which loads the first, in place of `cmet`; and a folder of shards."""
    package = tmp_path / "tiny_model"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "train.py").write_text(TINY)
    (package / "needs.py").write_text("def lacks(config, folders, files, paper):\n    return []\n")
    (package / "demo.toml").write_text("[one]\nsteps = 12\nrate = 0.01\n[two]\nsteps = 3\nrate = 0.01\n")
    (package / "paper.toml").write_text("[one]\nsteps = 12\nrate = 0.01\n[two]\nsteps = 3\nrate = 0.01\nextra = 'x'\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path), str(Path(__file__).parent), *sys.path])
    for name in [name for name in sys.modules if name.startswith("tiny_model")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(models.PACKAGES, "cmet", "tiny_model")
    shards = tmp_path / "shards"
    shards.mkdir()
    card = {"complete": True, "dataset": "clips", "digest": "d1", "signature": "shards", "shards": {}}
    write_sealed_json(shards / "dataset.json", card)
    rows = {"clip_id": ["a/1", "a/2", "b/1"], "speaker": ["a", "a", "b"], "split": ["train", "train", "test"]}
    lengths = [20, 20, 20]
    write_sealed_table(pa.table({**rows, "n_frames": lengths}), shards / "clips.parquet")
    return shards


def command(*words: object) -> Result:
    return CliRunner().invoke(build("train"), ["train", *map(str, words)])


def test_the_command_trains_all_stages_in_order(tiny: Path) -> None:
    result = command("cmet", "--data", tiny)
    assert result.exit_code == 0, result.output
    assert "one: 113 parameters, 12 steps" in result.output and "at_one" in result.output
    assert str(tiny / "reference") in result.output
    card = json.loads((tiny / "reference" / "two.json").read_text())
    seen = card["trained_on"]
    assert seen["clips"] == ["a/1", "a/2"] and seen["speakers"] == ["a"] and seen["data"] == {"main": "d1"}
    assert seen["config"] == {"steps": 3, "rate": 0.01}
    assert seen["built_on"] == {"one": checkpoints.revision(tiny / "reference" / "one.safetensors")}
    assert "trained before" in command("cmet", "--data", tiny).output
    # Another first stage: the second is trained anew on it.
    assert command("cmet", "--data", tiny, "--seed", 1, "--stage", "one").exit_code == 0
    again = command("cmet", "--data", tiny, "--stage", "two")
    assert again.exit_code == 0 and "two: trained before" not in again.output


def test_a_config_of_ones_own(tiny: Path, tmp_path: Path) -> None:
    own = tmp_path / "own.toml"
    own.write_text('base = "demo"\n[one]\nsteps = 2\nrate = 1\nat_default = 3\n[two]\nextra = "y"\n')
    assert config.load("tiny_model", str(own)) == {
        "one": {"steps": 2, "rate": 1.0, "at_default": 3},  # for the model to judge
        "two": {"steps": 3, "rate": 0.01, "extra": "y"},
    }
    for text, words in {
        "[one]\nsteps = 2": "does not name the settings that it changes",
        'base = "demo"\n[on]\nsteps = 2': "there is no on; did you mean one",
        'base = "demo"\n[one]\nsteps = "2"': "steps is '2', and should be like 12",
        'base = "demos"': "no settings called 'demos'; did you mean demo",
        "x = ": "is not TOML",
    }.items():
        own.write_text(text)
        with pytest.raises(UserError, match=words):
            config.load("tiny_model", str(own))


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("cmet", "--stage", "four"), "--stage four; there are one, two, three"),
        (("cmet", "--stage", "three"), "the settings demo have no stage three"),
        (("cmet", "--stage", "two"), "one.safetensors is absent"),
        (("cmet", "--config", "big"), "no settings called 'big'; known: demo, paper"),
        (("cmet", "--steps", "9"), "--steps is not an option of `cmet-eval train cmet`"),
        (("evaluators", "--stage", "one"), "--stage is not an option of `cmet-eval train evaluators`"),
        (("evaluators", "--data", "lrs2=x"), "one shard set"),
        (("cmet", "--data", "lrs2=x", "--data", "lrs2=y"), "another set called lrs2 is given already"),
        (("cmet", "--data", "y"), "another set without a name is given already"),
        (("cmet", "--data", "lrs2=nowhere"), "no folder nowhere"),
    ],
)
def test_wrong_use_is_an_error(tiny: Path, words: tuple[str, ...], says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        raise command(*words, "--data", tiny).exception or AssertionError("no error")


def test_the_learning_rate_rises_and_falls() -> None:
    annealed = Optimizer([], 2.0, annealed=True)
    assert Optimizer([], 2.0).learning_rate_at(7, 100) == 2.0
    assert annealed.learning_rate_at(0, 100) == pytest.approx(2.0 / 5)  # the first of five steps up
    assert annealed.learning_rate_at(50, 100) == pytest.approx(2.0 * 0.505)
    assert annealed.learning_rate_at(99, 100) < 0.022


def test_the_time_of_a_training_is_estimated_from_measured_steps(tiny: Path, tmp_path: Path) -> None:
    folders, options = {"main": tiny}, TrainOptions(device="cpu")
    costs = [*rehearsal.rehearse("cmet", "demo", folders, tmp_path / "out", options, ModelFiles())]
    assert [cost.stage for cost in costs] == ["one", "two"]  # the second loads the first
    one = costs[0]
    assert (one.steps, one.parameters) == (12, 113) and 0 < one.step_s < 10
    assert one.hours == pytest.approx((12 * one.step_s + one.prepare_s) / 3600)
    assert not (tmp_path / "out").exists() and "12 steps of" in one.line()
