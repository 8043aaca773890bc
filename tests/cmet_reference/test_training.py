"""The training loop: a killed run ends in the same bytes; optimizers, processes, the curve, the card."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from cmet_reference.training import checkpoints
from cmet_reference.training.batches import loader
from cmet_reference.training.curve import read_curve
from cmet_reference.training.loop import fit
from cmet_reference.training.options import TrainOptions
from cmet_reference.training.stage import Optimizer
from talking_face.reasons import ClipError, Reason, UserError
from tests.cmet_reference.training_parts import SPAWN, Duel, Line, losses, one_of_two


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
