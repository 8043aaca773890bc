"""The models as methods: their inputs, their revision after a change of weights, and the clips they were trained on."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch

from cmet_baselines.method import Case, CaseSpec, Method, check_output
from cmet_baselines.registry import catalogue, get_method
from cmet_reference import methods
from cmet_reference.cem_net.ebm import EbmNetSettings
from cmet_reference.geometry import RIGID
from cmet_reference.render import skin, skin_stage
from cmet_reference.render.appearance_stage import AppearanceNet
from cmet_reference.render.mesh import MeshRenderer
from cmet_reference.training import checkpoints, config
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import UserError
from tests.cmet_reference.test_flow import pictures, track
from tests.models import models


class Still(methods.TrainedMethod):
    """A model that does not change the face."""

    name, files = "still", ("one", "two")
    sees = frozenset({"reference-frames", "source-video"})

    def landmarks(self, case: methods.Case, base: np.ndarray) -> np.ndarray:
        return base


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two checkpoints, in a folder that is looked in."""
    monkeypatch.setenv("CMET_EVAL_CHECKPOINTS", str(tmp_path))
    for name, clips in (("one", ["a", "b"]), ("two", ["b", "c"])):
        checkpoints.save(tmp_path / f"{name}.safetensors", {"w": torch.zeros(3)}, {}, {"trained_on": {"clips": clips}})
    return tmp_path


def spec(n_frames: int) -> CaseSpec:
    return CaseSpec(
        pair_id="p",
        setting="s",
        speaker="A",
        n_frames=n_frames,
        size=(96, 96),
        seed=0,
        target_emotion="happy",
        intensity=1,
    )


def case(n_frames: int) -> Case:
    marks = track(6)
    frames = pictures(marks)
    arrays = {"reference_frames": frames[:2], "reference_landmarks": marks[:2]}
    arrays |= {"source_frames": frames, "source_landmarks": marks}
    return Case(spec(n_frames), {k: lambda v=v: v for k, v in arrays.items()}, Still.sees)  # type: ignore[misc]


def test_the_source_is_cut_or_held_and_drawn_over(folder: Path) -> None:
    shorter, longer = case(4), case(9)
    out = check_output(Still(models()).generate(shorter))
    assert np.abs(out.astype(int) - shorter.source_frames[:4]).max() <= 2
    assert shorter.notes == ["cut-or-hold-last: cut from 6 to 4 frames"]
    out = check_output(Still(models()).generate(longer))
    assert len(out) == 9 and (out[5:] == out[5]).all()
    assert longer.notes == ["cut-or-hold-last: last of 6 frames held to 9"]


def test_revision_and_what_was_seen_follow_the_files(folder: Path) -> None:
    method = Still(models())
    assert isinstance(method, Method) and method.trained_on == {"a", "b", "c"}
    before = method.revision
    assert before == Still(models()).revision and len(before) == 12
    checkpoints.save(folder / "two.safetensors", {"w": torch.ones(3)}, {}, {"trained_on": {"clips": ["d"]}})
    assert method.revision != before and method.trained_on == {"a", "b", "d"}
    (folder / "one.safetensors").unlink()
    with pytest.raises(MissingWeights, match="cmet-eval train cem-net --stage one"):
        _ = method.revision


def test_a_file_built_on_another_one_is_not_mixed_with_its_successor(folder: Path) -> None:
    header = {"clips": ["a"], "built_on": {"three": "0" * 12}}
    checkpoints.save(folder / "one.safetensors", {"w": torch.zeros(3)}, {}, {"trained_on": header})
    with pytest.raises(MissingWeights, match="three"):
        _ = Still(models()).revision
    checkpoints.save(folder / "three.safetensors", {"w": torch.ones(3)}, {}, {"trained_on": {"clips": ["z"]}})
    with pytest.raises(UserError, match="was trained with three 000000000000, found is"):
        _ = Still(models()).revision
    header["built_on"] = {"three": checkpoints.revision(folder / "three.safetensors")}
    checkpoints.save(folder / "one.safetensors", {"w": torch.zeros(3)}, {}, {"trained_on": header})
    assert Still(models()).trained_on == {"a", "b", "c", "z"}


def test_the_mesh_draws_with_what_it_learnt_where_a_method_has_it(folder: Path) -> None:
    class Knowing(Still):
        files = ("one", "appearance", "skin")

    path, creases = folder / "appearance.safetensors", folder / "skin.safetensors"
    net, settings = AppearanceNet(2), skin.SkinNetSettings(width=4)
    checkpoints.save(path, net.state_dict(), {}, {"trained_on": {"clips": []}})
    with pytest.raises(MissingWeights, match="skin"):
        Knowing(models()).renderer()
    record = {"settings": asdict(settings), "axes": 2}
    checkpoints.save(creases, skin.Skin(settings, 2).state_dict(), record, {"trained_on": {"clips": []}})
    assert Still(models()).renderer().revision == MeshRenderer().revision
    drawn, before = Knowing(models()).renderer(), Knowing(models()).revision
    assert drawn.revision == MeshRenderer(expression=skin_stage.corrected(path, creases)).revision
    assert drawn.revision != MeshRenderer().revision
    net.unit.fill_(1.0)
    checkpoints.save(path, net.state_dict(), {}, {"trained_on": {"clips": []}})
    assert Knowing(models()).revision != before and Knowing(models()).renderer().revision != drawn.revision


def test_the_face_of_the_ground_truth_has_its_shape_and_the_source_s_pose() -> None:
    """The real face: the source's with other soft points, turned by 0.3 rad, half as large, elsewhere, and shorter."""
    base, rng = track(6), np.random.default_rng(0)
    changed = rng.normal(0, 2.0, (4, 478, 3))
    changed[:, RIGID] = 0
    turn = np.array([[np.cos(0.3), np.sin(0.3), 0], [-np.sin(0.3), np.cos(0.3), 0], [0, 0, 1]])
    real = (0.5 * (base[:4] + changed) @ turn + [7, -3, 0]).astype(np.float32)
    given = {"reference_landmarks": base[:2], "ground_truth_landmarks": real}
    shown = Case(spec(6), {k: lambda v=v: v for k, v in given.items()}, methods.GroundTruthFace.sees)  # type: ignore[misc]
    out = methods.GroundTruthFace(ModelFiles()).landmarks(shown, base)
    assert out == pytest.approx(base + changed[[0, 1, 2, 3, 3, 3]], abs=1e-3)  # px


@pytest.mark.parametrize("name", [n for n, e in catalogue().items() if e.revision == "checkpoint"])
def test_an_untrained_model_says_what_to_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMET_EVAL_CHECKPOINTS", str(tmp_path))
    with pytest.raises(MissingWeights, match="cmet-eval train"):
        get_method(name)


def trained_with(folder: Path, settings: str, model: str) -> None:
    """Checkpoints of all stages of a model, with headers that name the settings of the training, and no networks."""
    table = config.load({"cem-net": "cmet_reference.cem_net", "cmet": "cmet_reference.cmet"}[model], settings)
    for stage in ["cmet"] if model == "cmet" else table:
        card = {"trained_on": {"config": table if model == "cmet" else table[stage]}}
        record = {"codec": str(table.get("codec", "")).partition(":")[0], "net": asdict(EbmNetSettings())}
        checkpoints.save(folder / f"{stage}.safetensors", {"w": torch.zeros(3)}, record, card)


def test_the_bare_names_are_for_checkpoints_of_the_settings_paper(tmp_path: Path) -> None:
    files = ModelFiles(checkpoints=(tmp_path,))
    cem_net, flow, cmet = methods.CemNet(files), methods.CemNetFlow(files), methods.CMet(files)
    trained_with(tmp_path, "adapted", "cem-net")
    trained_with(tmp_path, "adapted", "cmet")
    assert [method.about()["title"] for method in (cem_net, flow, cmet)] == [
        "CEM-Net, adapted",
        "CEM-Net, adapted, flow renderer",
        "C-MET, adapted",
    ]
    assert "appearance" in cem_net.stages() and "skin" in cem_net.about()["departures"]  # type: ignore[operator]
    trained_with(tmp_path, "paper", "cem-net")
    trained_with(tmp_path, "paper", "cmet")
    assert [method.about()["title"] for method in (cem_net, flow, cmet)] == ["CEM-Net", "CEM-Net", "C-MET"]
    assert cem_net.stages() == ("audio2mouth", "aee", "ebm", "renderer")  # the paper's renderer draws
    assert "face codec" not in cmet.about()["departures"]  # type: ignore[operator]
    trained_with(tmp_path, "demo", "cem-net")
    assert cem_net.about()["title"] == "CEM-Net, adapted" and cmet.about()["title"] == "C-MET"


@pytest.mark.parametrize(
    ("changed", "used"),
    [({"audio": "emotion-classifier"}, ("emotion-classifier",)), ({"audio_emotion": 0}, ()), ({}, ("aee",))],
)
def test_the_memory_says_which_network_it_reads(tmp_path: Path, changed: dict[str, object], used: tuple[str]) -> None:
    record = {"net": asdict(EbmNetSettings()) | changed}
    checkpoints.save(tmp_path / "ebm.safetensors", {"w": torch.zeros(3)}, record, {"trained_on": {"config": {}}})
    stages = methods.CemNet(ModelFiles(checkpoints=(tmp_path,))).stages()
    assert stages == ("audio2mouth", *used, "ebm", "appearance", "skin")


def test_an_imported_checkpoint_of_the_authors_is_c_met(tmp_path: Path) -> None:
    record = {"codec": "edtalk", "imported": {"step": 200_000}}
    checkpoints.save(tmp_path / "cmet.safetensors", {"w": torch.zeros(3)}, record, {"trained_on": {"clips": []}})
    assert methods.CMet(ModelFiles(checkpoints=(tmp_path,))).about()["title"] == "C-MET"
