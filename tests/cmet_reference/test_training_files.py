"""Files of a training: damaged, foreign and unfinished ones; checkpoints; full disks."""

from __future__ import annotations

import errno
import os
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cmet_reference.training import checkpoints
from cmet_reference.training.curve import read_curve
from cmet_reference.training.loop import fit
from cmet_reference.training.options import Provenance, TrainOptions
from talking_face.pretrained.model_files import CHECKPOINTS, ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.pretrained.tensor_files import read_sealed_tensors, write_sealed_tensors
from talking_face.reasons import NoSpace, UserError
from talking_face.sealed import Damaged
from tests.cmet_reference.training_parts import Line, finished, flipped


def test_a_finished_training_with_other_settings_is_replaced_with_a_line(tmp_path: Path, capsys) -> None:
    path = finished(tmp_path)
    before = path.read_bytes()
    fit(Line(), tmp_path, TrainOptions(seed=1, quiet=True))
    assert f"{path} has other settings (seed); line is trained again" in capsys.readouterr().err
    assert path.read_bytes() != before


def test_a_training_killed_before_its_card_was_written_is_finished(tmp_path: Path, capsys) -> None:
    path = finished(tmp_path)
    before = path.read_bytes()
    path.with_suffix(".json").unlink()
    fit(Line(), tmp_path, TrainOptions(quiet=True))
    assert f"{path} has no card of this training" in capsys.readouterr().err
    assert path.read_bytes() == before and path.with_suffix(".json").is_file()


def test_a_held_out_figure_that_is_not_finite_is_not_in_the_card(tmp_path: Path) -> None:
    stage = Line(3)
    stage.held_out = lambda: {"of_no_clips": float("nan"), "loss": 0.5}  # type: ignore[method-assign]
    assert fit(stage, tmp_path, TrainOptions(quiet=True))["held_out"] == {"loss": 0.5}


class Wide(Line):
    """The network of `Line` as after a change to its code."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.2), nn.Linear(8, 1))


def resealed(path: Path, **changes: Any) -> bytes:
    """The bytes of a checkpoint with another header or other tensors, and a digest that fits."""
    file = read_sealed_tensors(path, "")
    other = path.with_name("other")
    write_sealed_tensors(other, changes.pop("tensors", file.tensors()), {**file.record, **changes})
    data = other.read_bytes()
    other.unlink()
    return data


@pytest.mark.parametrize(
    ("damage", "cause"),
    [
        (lambda path: path.read_bytes()[:-1], "is damaged"),
        (lambda path: path.read_bytes()[:20], "is not a safetensors file with a sha256"),
        (lambda path: path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1]), "sha256 is not that of its content"),
        (lambda path: resealed(path, tensors={"w": torch.zeros(1)}), "SHA-256 is not the one in line.json"),
        (lambda path: resealed(path, version="0"), "is of kind line, version 0, not of kind line, version 2"),
    ],
)
def test_a_damaged_file_is_named_and_replaced_only_with_fresh(tmp_path: Path, damage: Any, cause: str) -> None:
    path = finished(tmp_path)
    whole = path.read_bytes()
    damaged = damage(path)
    path.write_bytes(damaged)
    assert damaged != whole
    with pytest.raises(UserError, match=f"{re.escape(str(path))} .*{cause}.*--fresh"):
        fit(Line(), tmp_path, TrainOptions(quiet=True))
    assert path.read_bytes() == damaged  # untouched
    fit(Line(), tmp_path, TrainOptions(resume=False, quiet=True))
    assert path.read_bytes() == whole


def test_a_damaged_card_and_another_network_need_fresh(tmp_path: Path) -> None:
    path = finished(tmp_path)
    with pytest.raises(UserError, match=r"does not fit the network of line .*--fresh"):
        fit(Wide(), tmp_path, TrainOptions(quiet=True))
    path.with_suffix(".json").write_text("{")
    with pytest.raises(UserError, match=r"line\.json is damaged .*--fresh"):
        fit(Line(), tmp_path, TrainOptions(quiet=True))


def test_an_error_of_the_file_system_is_not_a_reason_to_train_again(tmp_path: Path, monkeypatch) -> None:
    finished(tmp_path)

    def refused(path: Path) -> bytes:
        raise PermissionError(f"{path} may not be read")

    monkeypatch.setattr(Path, "read_bytes", refused)
    with pytest.raises(PermissionError):
        fit(Line(), tmp_path, TrainOptions(quiet=True))


def test_other_settings_do_not_resume_an_unfinished_run(tmp_path: Path) -> None:
    class Breaks(Line):
        def batch(self, step: int) -> Mapping[str, np.ndarray]:
            return super().batch(step) if step < 20 else {}

    with pytest.raises(KeyError):
        fit(Breaks(), tmp_path, TrainOptions(checkpoint_every=5, quiet=True))
    with pytest.raises(UserError, match=r"other settings \(seed\).*--fresh"):
        fit(Line(), tmp_path, TrainOptions(checkpoint_every=5, seed=3, quiet=True))
    # A damaged last checkpoint: the one before it serves.
    last = tmp_path / "line.unfinished" / "step-000000020.safetensors"
    last.write_bytes(last.read_bytes()[:-5])
    fit(Line(), tmp_path, TrainOptions(checkpoint_every=5, quiet=True))
    fit(Line(), tmp_path / "again", TrainOptions(checkpoint_every=5, quiet=True))
    assert (tmp_path / "line.safetensors").read_bytes() == (tmp_path / "again" / "line.safetensors").read_bytes()


def test_a_checkpoint_holds_what_it_was_given(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    tied = torch.arange(6.0).reshape(2, 3)
    state = {"a": tied, "b": tied, "turned": tied.T, "n": torch.tensor(3)}
    sha256 = checkpoints.save(path, state, {"labels": ["é"]}, {"trained_on": {"clips": ["c"]}})
    found, record = checkpoints.load(path, "x")
    torch.testing.assert_close(found, state, rtol=0, atol=0)
    assert record == {"labels": ["é"]} and checkpoints.trained_on(path) == {"clips": ["c"]}
    assert sha256.startswith(checkpoints.revision(path))
    assert (
        checkpoints.save(tmp_path / "y" / "x.safetensors", state, {"labels": ["é"]}, {"trained_on": {"clips": ["c"]}})
        == sha256
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["x.json", "x.safetensors", "y"]


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("ran"),)


def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And nothing in them is run."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.safetensors"
    checkpoints.save(path, {"a": torch.zeros(9)}, {})
    with pytest.raises(UserError, match="is of kind x, version 2, not of kind y, version 2"):
        checkpoints.load(path, "y")
    data = path.read_bytes()
    for bad in (b"", b"\xff" * 40, data[:20], pickle.dumps(Evil()), data.replace(b"sealed", b"sailed")):
        path.write_bytes(bad)
        for read in (lambda: checkpoints.load(path, "x"), lambda: checkpoints.trained_on(path)):
            with pytest.raises(UserError, match="not a safetensors file with a sha256"):
                read()
    path.write_bytes(data[:-1])
    with pytest.raises(UserError, match="is damaged"):
        checkpoints.load(path, "x")
    torch.save(Evil(), path)
    with pytest.raises(UserError, match="not a safetensors file"):
        checkpoints.load(path, "x")
    assert not Path("ran").exists()


def test_where_checkpoints_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CHECKPOINTS, raising=False)
    of_data = ModelFiles.from_environment(tmp_path / "shards")
    with pytest.raises(MissingWeights, match="`cmet-eval train cem-net --stage aee --data SHARDS`"):
        checkpoints.find("aee", of_data)
    with_data, named = tmp_path / "shards" / "reference" / "aee.safetensors", tmp_path / "own" / "aee.safetensors"
    for path in (with_data, named):
        checkpoints.save(path, {}, {})
    assert checkpoints.find("aee", of_data) == with_data
    monkeypatch.setenv(CHECKPOINTS, f"{tmp_path / 'none'}{os.pathsep}{named.parent}")
    files = ModelFiles.from_environment(tmp_path / "shards")
    with checkpoints.record_loaded() as seen:
        checkpoints.load(checkpoints.find("aee", files), "aee")
    assert checkpoints.find("aee", files) == named and seen == {"aee": checkpoints.revision(named)}
    assert checkpoints.find("aee", of_data) == with_data  # the environment changes no value that was made before


def test_a_changed_bit_is_found_by_every_reader(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    checkpoints.save(path, {"a": torch.arange(9.0), "b": torch.ones(2)}, {"n": 1}, {"trained_on": {"clips": ["c"]}})
    for file, readers in {
        path: (lambda path: checkpoints.load(path, "x"), checkpoints.trained_on, checkpoints.revision),
        path.with_suffix(".json"): (checkpoints.read_card,),
    }.items():
        whole = file.read_bytes()
        for bit in range(0, 8 * len(whole), 5):
            file.write_bytes(flipped(whole, bit))
            for read in readers:
                with pytest.raises(Damaged, match=re.escape(f"{file} is damaged (")) as caught:
                    read(path)
                assert "\n" not in str(caught.value)
        file.write_bytes(whole)


def test_a_damaged_checkpoint_of_an_unfinished_run_is_left_out_with_a_line(tmp_path: Path, capsys) -> None:
    class Breaks(Line):
        def batch(self, step: int) -> Mapping[str, np.ndarray]:
            return super().batch(step) if step < 20 else {}

    with pytest.raises(KeyError):
        fit(Breaks(), tmp_path, TrainOptions(checkpoint_every=5, quiet=True))
    last = tmp_path / "line.unfinished" / "step-000000020.safetensors"
    last.write_bytes(flipped(last.read_bytes(), 8 * last.stat().st_size - 3))  # in the last tensor
    fit(Line(), tmp_path, TrainOptions(checkpoint_every=5, quiet=True))
    fit(Line(), tmp_path / "again", TrainOptions(checkpoint_every=5, quiet=True))
    assert (tmp_path / "line.safetensors").read_bytes() == (tmp_path / "again" / "line.safetensors").read_bytes()
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{last} is damaged (") and line.endswith("; the checkpoint before it is used")


def test_a_damaged_row_of_a_curve_is_left_out_with_a_line(whole: Path, tmp_path: Path, capsys) -> None:
    rows, path = read_curve(whole / "line.csv"), tmp_path / "line.csv"
    data = (whole / "line.csv").read_bytes()
    for bit in range(0, 8 * len(data), 41):
        path.write_bytes(flipped(data, bit))
        left = read_curve(path)
        assert len(left) < len(rows) and all(row in rows for row in left)
        assert re.fullmatch(r"\S+line\.csv: \d+ rows? left out \(incomplete or damaged\)\n", capsys.readouterr().err)


# -- disks -------------------------------------------------------------------------------------------------------------


def test_a_full_disk_keeps_the_last_checkpoint_and_the_same_command_goes_on(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each write in turn: the curve, two checkpoints, the last checkpoint and its card."""
    real, full_at = Path.replace, 0
    written: list[Path] = []

    def replace(self: Path, target: Path) -> Path:
        written.append(target)
        if len(written) == full_at:
            raise OSError(errno.ENOSPC, "No space left on device", str(self))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", replace)
    fit(Line(12), tmp_path / "count", TrainOptions(checkpoint_every=4, quiet=True))
    for at in range(1, len(written[:]) + 1):
        full_at, out = at, tmp_path / str(at)
        written.clear()
        with pytest.raises(NoSpace, match=r"line: a file could not be written .* Make room") as caught:
            fit(Line(12), out, TrainOptions(checkpoint_every=4, quiet=True))
        kept = sorted((out / "line.unfinished").glob("step-*"))
        assert (f"{kept[-1]} is kept" if kept else "no checkpoint was written before") in str(caught.value)
        assert not list(out.rglob(".*.part*"))
        full_at = 0
        fit(Line(12), out, TrainOptions(checkpoint_every=4, quiet=True))
        assert (out / "line.safetensors").read_bytes() == (tmp_path / "count" / "line.safetensors").read_bytes()


@pytest.mark.parametrize("what", ["out", "line.safetensors", "line.csv", "line.json", "line.unfinished"])
def test_a_place_that_cannot_be_written_is_found_before_the_training(tmp_path: Path, what: str) -> None:
    stage, out = Line(), tmp_path / "out"
    stage.loss = None  # type: ignore[assignment,method-assign]
    if what == "out":
        out.write_text("a file")
    elif what == "line.unfinished":
        out.mkdir()
        (out / what).write_text("a file")
    else:
        (out / what).mkdir(parents=True)
    with pytest.raises((UserError, NotADirectoryError), match=re.escape(what)):
        fit(stage, out, TrainOptions(quiet=True))


def test_no_file_of_a_training_names_a_folder_outside_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings can name folders; two folders with the same last name are different settings."""
    telltale = tmp_path / "telltale" / "vectors"
    config = {"speech": f"stored:{telltale}", "inner": {"codec": "edtalk:~/telltale/EDTalk"}, "steps": 3}
    card = fit(Line(3), tmp_path / "out", TrainOptions(quiet=True), Provenance(config))
    for path in (tmp_path / "out").rglob("*"):
        assert not path.is_file() or b"telltale" not in path.read_bytes(), path
    stored = card["trained_on"]["config"]
    assert str(stored["speech"]).startswith("stored:vectors (") and stored["steps"] == 3
    other = {**config, "speech": f"stored:{tmp_path / 'other' / 'vectors'}"}
    again = fit(Line(3), tmp_path / "out", TrainOptions(quiet=True), Provenance(other))
    assert again["trained_on"] != card["trained_on"]
