"""The small form of tests/every_stage.py: random faces, the settings demo, and what paper lacks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.cmet_reference.cem_net_parts import clips_of
from tests.every_stage import lines, split_again


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Three speakers as in MEAD, of whom one is in the test split, and a set of neutral speech with transcripts."""
    place, found = tmp_path_factory.mktemp("every"), {}
    for name in ("main", "lrs2"):
        records = []
        for i, clip in enumerate(clips_of("abc", frames=20)):
            points = (32 + (clip.landmarks - 128) / 4).astype(np.float32)
            shapes = np.random.default_rng(i).uniform(0, 1, (20, 52)).astype(np.float32)
            labels = {"emotion": clip.emotion, "sentence_id": clip.sentence_id} if name == "main" else {}
            labels |= {"landmarks": points, "landmarks_smoothed": points, "audio": clip.audio, "blendshapes": shapes}
            labels |= {"split": "test" if clip.speaker == "c" else "train", "speaker": clip.speaker}
            labels |= {"transcript": "bin blue" if name == "lrs2" else None, "clip_id": f"{name}/{clip.clip_id}"}
            record = make_record(i, 20, **labels)
            records.append(record)
        found[name] = write_shard_set(place / name, records)
    return found


@pytest.mark.parametrize("split", ["with", "without"])
def test_stages_pass_or_say_what_is_absent(folders: dict[str, Path], split: str, tmp_path: Path) -> None:
    held_out = 1 if split == "with" else 0
    folders = {name: split_again(folder, tmp_path / name, held_out) for name, folder in folders.items()}
    found = dict(line.split(": ", 1) for line in lines(folders, tmp_path / "out", ("demo", "paper")))
    assert not [line for line in found.items() if "FAILED" in line[1]]
    for stage in ("cem-net audio2mouth", "cem-net aee", "cem-net ebm", "cmet cmet"):
        assert found[f"demo {stage}"].startswith("passed"), found
    assert "w600k_r50.onnx" in found["paper cem-net ebm"] and "C-MET" in found["paper cmet cmet"]
    assert ("there is no test split" in found["paper cem-net audio2mouth"]) == (split == "without"), found
