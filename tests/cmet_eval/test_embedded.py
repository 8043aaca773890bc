"""Checkpoints of the embedded corpus: which are trained, in which order, and when one that is there is kept."""

from __future__ import annotations

import multiprocessing
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from cmet_eval import demo as embedded
from cmet_eval.cli import build
from cmet_eval.demo import stages_of, train_checkpoints
from cmet_eval.runs import evaluate
from cmet_eval.runs.score_submissions import Scored
from cmet_reference import methods
from cmet_reference.cmet.codec import NEEDED_STAGES
from cmet_reference.training import checkpoints, config, models
from talking_face.execution.options import RunOptions
from talking_face.pretrained import trained_evaluators
from talking_face.reasons import UserError


@pytest.fixture
def corpus(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny shard set where the corpus's would be, and a training that writes its header and nothing else."""
    shutil.copytree(shards, tmp_path / "shards")

    def train(model: str, folders: Mapping[str, Path], settings: str, only: str, options: object) -> dict[str, Any]:
        chosen = config.load(models.PACKAGES[model], settings)
        header = {"config": chosen.get(only, chosen), "data": {"main": "d" * 32}, "clips": []}
        path = folders["main"] / checkpoints.FOLDER / f"{only}.safetensors"
        checkpoints.save(path, {"w": torch.zeros(1)}, {}, {"trained_on": header})
        return {only: {"seconds": 1.0}}

    monkeypatch.setattr(models, "train_model", train)
    return tmp_path


def test_what_is_missing_is_trained_in_order_and_kept(corpus: Path) -> None:
    assert train_checkpoints(corpus, stages_of(["static-reference"])) == ""
    told = train_checkpoints(corpus, stages_of(["cmet", "static-reference"]))
    assert told == "trained on the embedded corpus: audio2mouth in 1 s, cmet in 1 s, appearance in 1 s, skin in 1 s"
    assert train_checkpoints(corpus, stages_of(["cmet"])).startswith(
        "trained before: audio2mouth, cmet, appearance, skin in"
    )
    assert train_checkpoints(corpus, stages_of(["ground-truth-face"])).startswith("trained before: appearance, skin in")
    assert train_checkpoints(corpus, stages_of(["cem-net"])) == "trained on the embedded corpus: aee in 1 s, ebm in 1 s"


def test_other_data_other_settings_and_damaged_files_are_trained_again(corpus: Path, capsys) -> None:
    train_checkpoints(corpus, stages_of(["cmet"]))
    path = corpus / "shards" / checkpoints.FOLDER / "cmet.safetensors"
    header = checkpoints.trained_on(path)
    for changed in (
        {"data": {"main": "e" * 32}},
        {"config": {**header["config"], "steps": 1}},
        {"built_on": {"audio2mouth": "0"}},
    ):
        checkpoints.save(path, {"w": torch.zeros(1)}, {}, {"trained_on": {**header, **changed}})
        assert train_checkpoints(corpus, stages_of(["cmet"])) == "trained on the embedded corpus: cmet in 1 s"
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    assert train_checkpoints(corpus, stages_of(["cmet"])) == "trained on the embedded corpus: cmet in 1 s"
    assert f"{path} is damaged (" in capsys.readouterr().out


def test_the_face_of_the_ground_truth_needs_what_the_mesh_learns_alone(corpus: Path) -> None:
    told = train_checkpoints(corpus, stages_of(["ground-truth-face"]))
    assert told == "trained on the embedded corpus: appearance in 1 s, skin in 1 s"


@pytest.mark.parametrize("workers", [1, 2])
def test_both_trainings_are_done_and_a_failure_of_either_is_told(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr(embedded, "train_checkpoints", lambda _, stages, quiet: asked.append((*stages,)) or "trained")
    with pytest.raises(UserError, match="holds no shards"):  # the evaluators'
        list(embedded.train_networks(tmp_path, ["cmet"], RunOptions(workers, quiet=True)))
    assert [name for stages in asked for name in stages] == ["audio2mouth", "cmet", "appearance", "skin"]
    assert len(asked) == workers, "with two workers, the stages of the renderer are left to the second process"

    def fails(*how: Any) -> str:
        raise UserError("no such package")

    monkeypatch.setattr(embedded, "train_checkpoints", fails)
    with pytest.raises(UserError, match="no such package"):
        next(embedded.train_networks(tmp_path, ["cmet"], RunOptions(workers, quiet=True)))
    assert not multiprocessing.active_children()


def test_evaluators_that_the_user_names_are_not_trained_again(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for kind, name in trained_evaluators.FILES.items():
        told = trained_evaluators.TrainedOn(kind, "another corpus", (), (), 0)
        trained_evaluators.save(tmp_path / "others" / name, {"w": torch.zeros(1)}, told)
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path / "others"))
    (said,) = embedded.train_networks(corpus, [], RunOptions(2, quiet=True))
    assert said.startswith("named by CMET_EVAL_WEIGHTS: corpus-syncnet@")
    assert not (corpus / "shards" / trained_evaluators.FOLDER).exists()


def test_stages_are_those_of_the_models_and_their_methods() -> None:
    for model in models.PACKAGES:
        assert {checkpoints.model_of(stage) for stage in models.stage_names(model)} == {model}
    known = {stage for model in models.PACKAGES for stage in models.stage_names(model)}
    drawn = {*methods.CMet.files, *NEEDED_STAGES["blendshape"]}  # the demo's codec
    assert set(embedded.STAGES[methods.CMet.name]) == drawn <= known
    for method in (methods.CemNet, methods.LabelLookup, methods.GroundTruthFace):
        assert set(embedded.STAGES[method.name]) == set(method.files) <= known


@pytest.mark.parametrize(
    ("words", "pairs", "seeds"), [([], 64, 1), (["--seeds", "3"], 64, 3), (["--max-pairs", "5"], 5, 1)]
)
def test_without_data_a_quarter_of_an_hour_is_the_default(
    words: list[str], pairs: int, seeds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("make_corpus", "make_shards", "train_networks"):
        monkeypatch.setattr(embedded, name, lambda *how: "")
    asked: dict[str, Any] = {}

    def run(*names: Any, **how: Any) -> evaluate.RunSummary:
        asked.update(how)
        return evaluate.RunSummary(Scored((), 0, 0, {}, ()), 0, 0, 0, 0.0)

    monkeypatch.setattr(evaluate, "run", run)
    result = CliRunner().invoke(build("run"), ["run", "--method", "static-reference", *words])
    assert result.exit_code == 0, result.output
    assert (asked["draw"].max_pairs, asked["draw"].seeds) == (pairs, seeds)
