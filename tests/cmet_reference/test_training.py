"""The training loop: a killed run ends in the same bytes; optimizers, processes, checkpoints, the card."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import pickle
import re
import signal
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
import torch
from click.testing import Result
from torch import nn
from typer.testing import CliRunner

from cmet_eval.cli import build
from cmet_reference.training import checkpoints, config, models, rehearsal
from cmet_reference.training.batches import loader
from cmet_reference.training.curve import read_curve
from cmet_reference.training.loop import fit
from cmet_reference.training.options import Provenance, TrainOptions
from cmet_reference.training.stage import Optimizer
from talking_face.pretrained.model_files import CHECKPOINTS, ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.pretrained.tensor_files import read_sealed_tensors, write_sealed_tensors
from talking_face.reasons import ClipError, NoSpace, Reason, UserError
from talking_face.sealed import Damaged, write_sealed_json, write_sealed_table

SPAWN = multiprocessing.get_context("spawn")  # a fork would wait for threads that earlier tests started


class Line:
    """A small net with dropout and batch norm that learns a line; `pause` makes a step as slow as a real one."""

    def __init__(self, steps: int = 30, pause: float = 0.0, rate: float = 1e-2) -> None:
        self.name, self.steps, self.pause, self.rate = "line", steps, pause, rate
        torch.manual_seed(5)
        self.net = nn.Sequential(nn.Linear(3, 16), nn.BatchNorm1d(16), nn.Dropout(0.2), nn.Linear(16, 1))

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {"net": Optimizer(list(self.net.parameters()), self.rate, 0.01, annealed=True)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        if self.pause:
            time.sleep(self.pause)
        x = np.random.default_rng((1, step)).normal(size=(8, 3)).astype(np.float32)
        return {"x": x, "y": x @ np.float32([[1], [2], [3]])}

    def loss(self, batch: Mapping[str, Any], optimizer: str) -> tuple[Any, Mapping[str, Any]]:
        far = self.net(batch["x"]) - batch["y"]
        return far.square().mean(), {"l1": far.abs().mean()}

    def held_out(self) -> Mapping[str, float]:
        assert not self.net.training
        return {"at_one": float(self.net(torch.ones(1, 3, device=self.net[0].weight.device)))}

    def record(self) -> Mapping[str, Any]:
        return {"width": 16}


class Duel(Line):
    """Two optimizers: `judge` learns to distinguish guesses from the truth, `guess` learns to be judged true."""

    def __init__(self, steps: int = 20) -> None:
        super().__init__(steps)
        self.name = "duel"
        self.net = nn.ModuleDict({"guess": nn.Linear(3, 1), "judge": nn.Linear(1, 1)})

    def optimizers(self) -> Mapping[str, Optimizer]:
        return {name: Optimizer(list(self.net[name].parameters()), 1e-2) for name in ("judge", "guess")}

    def loss(self, batch: Mapping[str, Any], optimizer: str) -> tuple[Any, Mapping[str, Any]]:
        made = self.net["guess"](batch["x"])
        if optimizer == "judge":
            return self.net["judge"](made.detach()).mean() - self.net["judge"](batch["y"]).mean(), {}
        return -self.net["judge"](made).mean(), {"size": made.abs().mean()}

    def held_out(self) -> Mapping[str, float]:
        return {}


def losses(path: Path) -> list[dict[str, float]]:
    """A curve without the columns that say how long it took."""
    return [
        {k: v for k, v in row.items() if k not in ("samples_per_second", "waiting_share")} for row in read_curve(path)
    ]


def one_of_two(rank: int, port: str, out: Path) -> None:
    """What `accelerate launch --cpu --num_processes 2` sets for each process."""
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "ACCELERATE_USE_CPU": "true"}
    os.environ |= {key: str(value) for key, value in place.items()}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    fit(Duel(), out, TrainOptions(quiet=True))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 40 steps."""
    out = tmp_path_factory.mktemp("whole")
    fit(Line(40), out, TrainOptions(checkpoint_every=4, quiet=True))
    return out


def test_a_killed_run_ends_in_the_same_bytes(whole: Path, tmp_path: Path) -> None:
    """Also with another number of workers."""
    run = SPAWN.Process(
        target=fit, args=(Line(40, 0.05), tmp_path, TrainOptions(checkpoint_every=4, workers=2, quiet=True))
    )
    run.start()
    at_eight = tmp_path / "line.unfinished" / "step-000000008.safetensors"
    deadline = time.monotonic() + 60
    while not at_eight.exists() and run.is_alive() and time.monotonic() < deadline:
        time.sleep(0.01)
    run.kill()
    run.join()
    assert run.exitcode == -signal.SIGKILL
    left = sorted((tmp_path / "line.unfinished").glob("step-*"))
    assert left and len(left) <= 2 and not (tmp_path / "line.safetensors").exists()
    fit(Line(40), tmp_path, TrainOptions(checkpoint_every=4, workers=1, quiet=True))
    assert (tmp_path / "line.safetensors").read_bytes() == (whole / "line.safetensors").read_bytes()
    assert losses(tmp_path / "line.csv") == losses(whole / "line.csv")
    assert not (tmp_path / "line.unfinished").exists()


def test_the_curve_and_the_card(whole: Path) -> None:
    rows = read_curve(whole / "line.csv")
    assert [row["step"] for row in rows] == sorted({*range(4, 41, 4), *range(10, 41, 10)})
    assert rows[-1]["loss"] < rows[0]["loss"] / 2
    assert "held_out/at_one" in rows[0] and "held_out/at_one" not in rows[2]  # steps 4 and 10
    assert all(0 <= row["waiting_share"] <= 1 and row["samples_per_second"] > 0 for row in rows)
    card = json.loads((whole / "line.json").read_text())
    assert card["parameters"] == 3 * 16 + 16 + 32 + 17
    assert card["held_out"]["at_one"] == rows[-1]["held_out/at_one"]
    assert card["sha256"].startswith(checkpoints.revision(whole / "line.safetensors"))
    assert card["trained_on"] == checkpoints.trained_on(whole / "line.safetensors")


def test_a_finished_training_is_kept(whole: Path) -> None:
    """And the network is filled with it; other settings train anew."""
    before = (whole / "line.json").stat().st_mtime_ns
    stage = Line(40)
    stage.loss = None  # type: ignore[assignment,method-assign]
    fit(stage, whole, TrainOptions(quiet=True))
    assert (whole / "line.json").stat().st_mtime_ns == before
    state, record = checkpoints.load(whole / "line.safetensors", "line")
    assert record == {"width": 16}
    torch.testing.assert_close(stage.net.state_dict(), state, rtol=0, atol=0)
    with pytest.raises(TypeError, match="NoneType"):
        fit(stage, whole, TrainOptions(seed=1, quiet=True))


def finished(tmp_path: Path) -> Path:
    fit(Line(), tmp_path, TrainOptions(quiet=True))
    return tmp_path / "line.safetensors"


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


def test_optimizers_step_in_turn_as_by_hand(tmp_path: Path) -> None:
    fit(Duel(), tmp_path, TrainOptions(quiet=True))
    stage = Duel()
    optimizers = {
        n: torch.optim.Adam(p.parameters, lr=p.learning_rate, betas=p.betas) for n, p in stage.optimizers().items()
    }
    for step in range(stage.steps):
        batch = {key: torch.from_numpy(value) for key, value in stage.batch(step).items()}
        for name, optimizer in optimizers.items():
            stage.net.zero_grad()
            stage.loss(batch, name)[0].backward()
            optimizer.step()
    state, _ = checkpoints.load(tmp_path / "duel.safetensors", "duel")
    torch.testing.assert_close(state, dict(stage.net.state_dict()), rtol=1e-6, atol=1e-7)
    assert {"judge/loss", "guess/loss", "guess/size"} <= read_curve(tmp_path / "duel.csv")[0].keys()


def test_two_processes_are_one_with_both_batches(tmp_path: Path) -> None:
    """Gradients are means over the processes, each of which has batches of its own."""
    port = str(20000 + os.getpid() % 9000)
    both = [SPAWN.Process(target=one_of_two, args=(rank, port, tmp_path)) for rank in range(2)]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        process.kill()
    assert [process.exitcode for process in both] == [0, 0]

    class Both(Duel):
        def batch(self, step: int) -> Mapping[str, np.ndarray]:
            parts = [super(Both, self).batch(2 * step + rank) for rank in range(2)]
            return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    fit(Both(), tmp_path / "one", TrainOptions(quiet=True))
    two, _ = checkpoints.load(tmp_path / "duel.safetensors", "duel")
    one, _ = checkpoints.load(tmp_path / "one" / "duel.safetensors", "duel")
    torch.testing.assert_close(two, one, rtol=1e-5, atol=1e-6)
    assert checkpoints.trained_on(tmp_path / "duel.safetensors")["processes"] == 2


def test_bfloat16(tmp_path: Path) -> None:
    card = fit(Line(40), tmp_path, TrainOptions(precision="bf16", device="cpu", quiet=True))
    rows = read_curve(tmp_path / "line.csv")
    assert rows[-1]["loss"] < 0.75 * rows[0]["loss"]
    assert card["trained_on"]["precision"] == "bf16"
    state, _ = checkpoints.load(tmp_path / "line.safetensors", "line")
    assert state["0.weight"].dtype == torch.float32


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="line: loss, l1 not finite in the steps before"):
        fit(Line(40, rate=1e30), tmp_path, TrainOptions(quiet=True))
    assert not (tmp_path / "line.safetensors").exists()


@pytest.mark.parametrize("workers", [0, 1])
def test_a_clip_that_cannot_be_read_is_named(tmp_path: Path, workers: int) -> None:
    stage = Line()

    def broken(step: int) -> Mapping[str, np.ndarray]:
        raise ClipError(Reason.TRUNCATED, f"clip {step} is cut short")

    stage.batch = broken  # type: ignore[method-assign]
    with pytest.raises(ClipError, match="clip 0 is cut short"):
        fit(stage, tmp_path, TrainOptions(workers=workers, quiet=True))


class Dies(Line):
    """Its fourth batch kills the process that makes it."""

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        os.kill(os.getpid(), signal.SIGKILL if step == 3 else 0)
        return super().batch(step)


def send_error(out: Path, pipe: Any) -> None:
    """Train, and send the error."""
    try:
        fit(Dies(), out, TrainOptions(workers=1, quiet=True))
    except Exception as error:
        pipe.send(f"{type(error).__name__}: {error}")


def test_a_worker_that_dies_is_an_error_of_the_user(tmp_path: Path) -> None:
    # In a process of its own: torch's handler of dead workers may raise a second time, wherever Python then is.
    here, there = SPAWN.Pipe(duplex=False)
    run = SPAWN.Process(target=send_error, args=(tmp_path, there))
    run.start()
    assert here.poll(240)  # the new process imports torch, on a busy machine in minutes
    message = here.recv()
    assert message.startswith("UserError: line: a process that prepares batches died"), message
    run.join(60)


def test_a_full_gpu_is_an_error_of_the_user(tmp_path: Path) -> None:
    class Large(Line):
        def loss(self, batch: Mapping[str, Any], optimizer: str) -> tuple[Any, Mapping[str, Any]]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    with pytest.raises(UserError, match="smaller batch"):
        fit(Large(), tmp_path, TrainOptions(quiet=True))


def test_parameters_outside_of_the_network_are_refused(tmp_path: Path) -> None:
    stage = Line()
    stage.optimizers = lambda: {"net": Optimizer([nn.Parameter(torch.zeros(1))], 1e-3)}  # type: ignore[method-assign]
    with pytest.raises(ValueError, match="outside of `net`"):
        fit(stage, tmp_path, TrainOptions(quiet=True))


def test_workers_give_the_same_batches_in_order() -> None:
    one, two = (list(loader(Line(), range(3, 9), workers)) for workers in (0, 2))
    for a, b, step in zip(one, two, range(3, 9), strict=True):
        assert torch.equal(a["x"], b["x"]) and np.array_equal(a["x"].numpy(), Line().batch(step)["x"])


@pytest.mark.parametrize(
    ("device", "precision", "words"),
    [("tpu", "fp32", "no device 'tpu'"), ("cpu", "fp8", "no precision 'fp8'"), ("cpu", "fp16", "needs a GPU")],
)
def test_what_is_not_here_is_refused(tmp_path: Path, device: str, precision: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        fit(Line(), tmp_path, TrainOptions(device=device, precision=precision, quiet=True))


# -- checkpoints -------------------------------------------------------------------------------------------------------


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


def flipped(data: bytes, bit: int) -> bytes:
    at = bit // 8
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]


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


# -- the command -------------------------------------------------------------------------------------------------------

TINY = """
from test_training import Line
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
