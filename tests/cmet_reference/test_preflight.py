"""Before the first step: what a training lacks is named at once, and a few measured steps estimate its time."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from cmet_reference.cem_net.audio2mouth_stage import mouth_figures
from cmet_reference.clips import sample
from cmet_reference.training import preflight
from cmet_reference.training.models import lacks_of, train_model
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.models import models


@pytest.fixture(scope="module")
def no_test_split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shard set with a training split only, without transcripts and sentences."""
    records = [make_record(i, 20, clip_id=f"c/{i}", speaker="A", emotion="happy", split="train") for i in range(2)]
    return write_shard_set(tmp_path_factory.mktemp("preflight") / "shards", records)


def test_paper_stops_and_names_all_that_is_absent_before_a_folder_is_made(no_test_split: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError) as error:
        train_model(
            "cem-net", {"main": no_test_split}, tmp_path / "out", settings="paper", files=ModelFiles(cache=tmp_path)
        )
    text = str(error.value)
    for lack in (
        "audio2mouth: the paper learns it from LRS2",
        "renderer: the paper learns it from LRS2",
        "audio2mouth: " + str(no_test_split) + ": there is no test split",
        "aee: " + str(no_test_split) + ": no clip has a transcript",
        "ebm: w600k_r50.onnx",
        "renderer: vgg19",
    ):
        assert lack in text, text
    assert all(": " in line for line in text.splitlines()[1:]) and not (tmp_path / "out").exists()
    with pytest.raises(UserError) as error:
        train_model(
            "cmet", {"main": no_test_split}, tmp_path / "out", settings="paper", files=ModelFiles(cache=tmp_path)
        )
    assert "codec = 'edtalk:C-MET'" in str(error.value) and "model.pt is absent" in str(error.value)


def test_a_checkout_lacks_each_of_its_files_and_the_demo_lacks_nothing(no_test_split: Path, tmp_path: Path) -> None:
    (tmp_path / "EDTalk/networks").mkdir(parents=True)
    (tmp_path / "EDTalk/networks/generator.py").touch()
    own = tmp_path / "own.toml"
    own.write_text(f'base = "demo"\ncodec = "edtalk:{tmp_path}/EDTalk"\n')
    folders = {"main": no_test_split}
    none = ModelFiles(cache=tmp_path)
    lines = [str(lack) for lack in lacks_of("cmet", str(own), folders, models())]
    assert [line.split()[1].rpartition("/")[2] for line in lines] == ["EDTalk.pt", "Audio2Lip.pt"]
    assert [*lacks_of("cem-net", "demo", folders, models())] == []
    assert {lack.stage for lack in lacks_of("cem-net", "adapted", folders, none)} == {
        "ebm",
        "renderer",
    }
    assert {x.stage for x in lacks_of("cem-net", "adapted", folders, none, "ebm")} == {"ebm"}


def test_memory_and_disk(no_test_split: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert preflight.clip_bytes({"main": no_test_split}) == 40 * (478 * 3 * 4 + 52 * 4 + 640 * 2)
    monkeypatch.setattr(preflight, "clip_bytes", lambda folders: 10**18)
    assert "GB of memory" in str(next(preflight.memory_lacks({})))
    assert [*preflight.disk_lack("ebm", tmp_path / "new" / "out", 1000)] == []
    assert "free space" in str(next(preflight.disk_lack("ebm", tmp_path / "new", 10**18)))


def test_a_split_without_clips_has_no_figures() -> None:
    assert mouth_figures(None, []) == {}  # type: ignore[arg-type]


def test_a_sample_has_two_speakers_and_all_emotions() -> None:
    rows = pd.DataFrame(
        [
            {"speaker": s, "clip_id": f"{s}{e}{k}", "emotion": e, "intensity": np.nan}
            for s in "ABC"
            for e in ("happy", "neutral", None)
            for k in range(30)
        ]
    )
    some = sample(rows, 12)
    assert len(some) == 12 and set(some["speaker"]) == {"A", "B"} and some["emotion"].isna().any()
    assert set(some["emotion"].dropna()) == {"happy", "neutral"} and len(sample(rows, None)) == 270
