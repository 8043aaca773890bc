"""The training loop of the reference models, on Accelerate: one process or several, any precision, killed at any time.

A run that was killed goes on from its last checkpoint to the very same curve and, on the CPU, the same final bytes:
batches are drawn from (seed, step), torch's generators are seeded anew at each step, and networks, optimizers and the
scaler of float16 stand in the checkpoint.
"""

from __future__ import annotations

import csv
import io
import json
import os
import re
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cmet_pipelines.shards import ShardSet
from cmet_reference.training import checkpoints
from cmet_reference.training.stage import ClosedForm, Stage
from talking_face.progress import Progress
from talking_face.reasons import ClipError, UserError
from talking_face.signature import canonical_json

PRECISIONS = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}  # ours -> Accelerate's
ROW_EVERY = 10  # steps a row of the curve stands for
KEPT = 2  # checkpoints of an unfinished run: the last one, and the one before should the last be damaged


def fit(
    stage: Stage,
    out: Path,
    *,
    seed: int = 0,
    device: str = "auto",
    precision: str = "fp32",
    workers: int = 0,
    every: int = 1000,
    threads: int = 1,
    resume: bool = True,
    quiet: bool = False,
    config: Mapping[str, Any] | None = None,
    data: Mapping[str, Path] | None = None,
    built_on: Mapping[str, str] | None = None,
) -> dict[str, Any]:
    """Train a stage and write OUT/NAME.safetensors, its card NAME.json and its curve NAME.csv.

    What is finished with the same settings is not trained again; what was interrupted goes on. Under `accelerate
    launch` every process draws batches of its own: W processes see W times the samples a step.

    Args:
        stage: see `Stage`; its network is trained in place and left in evaluation mode on the CPU.
        out: folder of the three files; an unfinished run keeps its checkpoints in OUT/NAME.unfinished.
        seed: of dropout and whatever else draws from torch during a step.
        device: auto (a GPU where there is one), cpu, cuda or cuda:N.
        precision: fp32, bf16 or fp16 (autocast; weights stay float32).
        workers: processes that make batches ahead; 0 makes them between the steps.
        every: steps from one checkpoint, with its held-out figures, to the next.
        threads: of torch on the CPU; sums of floats depend on their number.
        resume: False discards what was done before.
        config: the settings the stage was made from, for the header.
        data: shard sets it was trained on, by name; all clips of their training split count as seen.
        built_on: revisions of earlier checkpoints the stage was made from, by kind.

    Returns:
        the card. `seconds` is the time in steps (or in a closed form's `solve`), `waiting_share` of it was spent
        waiting for batches.

    Raises:
        UserError: an unfinished run had other settings; a loss is not finite; a worker died; no such device; the GPU is
            full.
    """
    import torch

    with repeatable(threads):
        run = _Run(stage, out, _accelerator(device, precision), seed, workers, every)
        sets = {name: ShardSet(folder) for name, folder in (data or {}).items()}
        seen = [shards.clips[shards.clips["split"] == "train"] for shards in sets.values()]
        trained_on = {
            "config": config or {},
            "steps": stage.steps,
            "seed": seed,
            "precision": precision,
            "threads": threads,
            "processes": run.processes,
            "data": {name: shards.digest for name, shards in sets.items()},
            "built_on": built_on or {},
            "clips": sorted({str(i) for clips in seen for i in clips["clip_id"]}),
            "speakers": sorted({str(i) for clips in seen for i in clips["speaker"]}),
        }
        trained_on = json.loads(canonical_json(trained_on))  # as it will be read again: no tuples
        card = run.finished(trained_on) if resume else None
        if card is not None and run.main and not quiet:
            print(f"{stage.name}: trained before with these settings; --fresh trains it again", file=sys.stderr)
        if card is None:
            state = run.taken_up(trained_on) if resume else None
            try:
                card = run.go(state, trained_on, quiet)
            except torch.OutOfMemoryError:
                raise UserError(
                    f"{stage.name}: the GPU's memory is full; give its settings a smaller batch, or train in bf16"
                ) from None
            except (RuntimeError, ConnectionError, EOFError) as error:
                # A worker that dies while a batch is handed over breaks the connection first.
                if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                    raise
                raise UserError(
                    f"{stage.name}: a process that makes batches died, as when memory or /dev/shm is full; train with "
                    "fewer --workers"
                ) from None
        stage.net.eval().to(torch.device("cpu"))
    return card


@contextmanager
def repeatable(threads: int = 1) -> Iterator[None]:
    """A fixed number of threads of torch inside; its random state is put back afterwards."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        torch.set_num_threads(before)


@dataclass
class _State:
    """Where a run stands after `step` steps."""

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    samples: int = 0


class _Run:
    """One stage in training: the prepared network, its optimizers and its files."""

    def __init__(self, stage: Stage, out: Path, accelerator: Any, seed: int, workers: int, every: int) -> None:
        import torch

        self.stage, self.accelerator, self.seed, self.workers, self.every = stage, accelerator, seed, workers, every
        self.path = out / f"{stage.name}.safetensors"
        self.unfinished = out / f"{stage.name}.unfinished"
        self.processes, self.main = accelerator.num_processes, accelerator.is_main_process
        stage.net.to(accelerator.device)
        known = {id(parameter) for parameter in stage.net.parameters()}
        self.optimizers: dict[str, Any] = {}
        self.players = dict(stage.players())
        for name, player in self.players.items():
            if any(id(parameter) not in known for parameter in player.parameters):
                raise ValueError(f"{stage.name}: {name} steps parameters that are not of `net` and would not be saved")
            # AdamW without decay is Adam.
            self.optimizers[name] = torch.optim.AdamW(
                list(player.parameters), lr=player.rate, weight_decay=player.weight_decay, betas=player.betas
            )

    # -- files ---------------------------------------------------------------------------------------------------------

    def finished(self, trained_on: Mapping[str, Any]) -> dict[str, Any] | None:
        """The card of a finished run with these settings, if there is one; fills the network."""
        try:
            card = json.loads(self.path.with_suffix(".json").read_text("utf-8"))
            if checkpoints.trained_on(self.path) != trained_on:
                return None
            if card["sha256"][:12] != checkpoints.revision(self.path):
                return None
            self.stage.net.load_state_dict(checkpoints.load(self.path, self.stage.name)[0])
            return card
        except (FileNotFoundError, RuntimeError, ValueError, KeyError, TypeError, UserError):
            return None  # absent, damaged, or of a network that has changed since

    def taken_up(self, trained_on: Mapping[str, Any]) -> _State | None:
        """Fill network and optimizers from the last good checkpoint of an unfinished run, if there is one."""
        for path in sorted(self.unfinished.glob("step-*.safetensors"), reverse=True):
            try:
                tensors, record = checkpoints.load(path, f"{self.stage.name}-unfinished")
            except UserError as error:
                if self.main:
                    print(f"{error}; going on from the one before", file=sys.stderr)
                continue
            began = record["trained_on"]
            if began != trained_on:
                other = ", ".join(key for key in trained_on if began.get(key) != trained_on[key])
                raise UserError(
                    f"{self.unfinished} was begun with other settings ({other}); train with those to go on, or with "
                    "--fresh to begin again"
                )
            try:
                self._fill(tensors, record)
            except (RuntimeError, ValueError, KeyError) as error:
                raise UserError(
                    f"{path} does not fit {self.stage.name} as it is now ({str(error).splitlines()[0]}); train with "
                    "--fresh"
                ) from None
            return _State(**record["state"])
        return None

    def _fill(self, tensors: Mapping[str, Any], record: Mapping[str, Any]) -> None:
        self.stage.net.load_state_dict({key[4:]: value for key, value in tensors.items() if key.startswith("net/")})
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Any]] = {}
            for key, value in tensors.items():
                match = re.fullmatch(rf"player/{re.escape(name)}/(\d+)/(\w+)", key)
                if match:
                    state.setdefault(int(match[1]), {})[match[2]] = value
            groups = [{**group, "betas": tuple(group["betas"])} for group in record["groups"][name]]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.load_state_dict(record["scaler"])

    def _keep(self, state: _State, trained_on: Mapping[str, Any]) -> None:
        """A checkpoint to go on from; the oldest ones go."""
        tensors = {f"net/{key}": value for key, value in self.stage.net.state_dict().items()}
        groups = {}
        for name, optimizer in self.optimizers.items():
            whole = optimizer.state_dict()
            groups[name] = whole["param_groups"]
            for index, entries in whole["state"].items():
                tensors |= {f"player/{name}/{index}/{key}": value for key, value in entries.items()}
        scaler = self.accelerator.scaler
        record = {
            "state": vars(state),
            "groups": groups,
            "scaler": scaler.state_dict() if scaler is not None else {},
            "trained_on": trained_on,
        }
        path = self.unfinished / f"step-{state.step:09d}.safetensors"
        checkpoints.save(path, tensors, record, kind=f"{self.stage.name}-unfinished")
        for old in sorted(self.unfinished.glob("step-*.safetensors"))[:-KEPT]:
            old.unlink()

    # -- training ------------------------------------------------------------------------------------------------------

    def go(self, state: _State | None, trained_on: Mapping[str, Any], quiet: bool) -> dict[str, Any]:
        """All steps that are left, and the files."""
        import accelerate
        import torch

        stage, device = self.stage, self.accelerator.device
        if state is None and self.main:
            shutil.rmtree(self.unfinished, ignore_errors=True)
        state = state or _State()
        curve = Curve(self.path.with_suffix(".csv"), state.step) if self.main else None
        model = self.accelerator.prepare_model(_loss_module(stage))
        optimizers = {name: self.accelerator.prepare_optimizer(o) for name, o in self.optimizers.items()}
        held_out: dict[str, float] | None = None
        if device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        if isinstance(stage, ClosedForm):
            began = time.perf_counter()
            stage.solve()
            state.seconds = time.perf_counter() - began
        row = _Row()
        already = state.step
        # Workers are forked here, before a bar has its thread.
        batches = self._batches(state.step)
        with Progress(stage.steps, "steps", stage.name, quiet or not self.main, already=already) as progress:
            stage.net.train()
            for batch, samples, waited in batches:
                here = np.random.SeedSequence((self.seed, state.step, self.accelerator.process_index))
                torch.manual_seed(int(here.generate_state(1, np.uint32)[0]))
                for name, optimizer in optimizers.items():
                    for group in self.optimizers[name].param_groups:
                        group["lr"] = self.players[name].rate_at(state.step, stage.steps)
                    optimizer.zero_grad(set_to_none=True)
                    loss, parts = model(batch, name)
                    self.accelerator.backward(loss)
                    optimizer.step()
                    before = f"{name}/" if len(optimizers) > 1 else ""
                    row.count({f"{before}{key}": value for key, value in {"loss": loss, **parts}.items()})
                state.step += 1
                row.samples += samples * self.processes
                row.waited += waited
                checkpoint = state.step % self.every == 0 or state.step == stage.steps
                if checkpoint or state.step % ROW_EVERY == 0:
                    values = row.values(self.accelerator)
                    bad = [key for key, value in values.items() if not np.isfinite(value)]
                    if bad:
                        raise UserError(
                            f"{stage.name}: {', '.join(bad)} not finite in the steps before {state.step}; lower the "
                            "rate, or train in fp32"
                        )
                    state.seconds += row.seconds
                    state.waited += row.waited
                    state.samples += row.samples
                    if checkpoint and self.main:
                        held_out = self._judged()
                        values |= {f"held_out/{key}": value for key, value in held_out.items()}
                    if curve is not None:
                        curve.add({"step": state.step, **values}, checkpoint)
                        if checkpoint and state.step < stage.steps:
                            self._keep(state, trained_on)
                    self.accelerator.wait_for_everyone()
                    row = _Row()
                progress.advance()
        if self.main:
            card = {
                "parameters": sum(p.numel() for p in stage.net.parameters()),
                "held_out": self._judged() if held_out is None else held_out,
                "seconds": round(state.seconds, 1),
                "samples_per_second": round(state.samples / max(state.seconds, 1e-9), 1),
                "waiting_share": round(state.waited / max(state.seconds, 1e-9), 4),
                "workers": self.workers,
                "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
                "peak_device_mb": torch.cuda.max_memory_allocated(device) >> 20 if device.type == "cuda" else None,
                "commit": checkpoints.commit(),
                "torch": torch.__version__,
                "accelerate": accelerate.__version__,
                "trained_on": trained_on,
            }
            checkpoints.save(self.path, stage.net.state_dict(), stage.record(), card)
            shutil.rmtree(self.unfinished, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        return json.loads(self.path.with_suffix(".json").read_text("utf-8"))

    def _judged(self) -> dict[str, float]:
        import torch

        self.stage.net.eval()
        torch.manual_seed(self.seed)
        with torch.no_grad():
            figures = {key: float(value) for key, value in self.stage.held_out().items()}
        self.stage.net.train()
        return figures

    def _batches(self, start: int) -> Iterator[tuple[dict[str, Any], int, float]]:
        """(tensors on the device, samples, seconds waited) of every step that is left."""
        first, many = self.accelerator.process_index, self.processes
        wanted = range(start * many + first, self.stage.steps * many, many)
        pin = self.accelerator.device.type == "cuda"
        return self._waited_for(iter(loader(self.stage, wanted, self.workers, pin)), len(wanted), pin)

    def _waited_for(self, made: Iterator[Any], steps: int, pin: bool) -> Iterator[tuple[dict[str, Any], int, float]]:
        for _ in range(steps):
            began = time.perf_counter()
            arrays = next(made)
            waited = time.perf_counter() - began
            if isinstance(arrays, Exception):
                raise arrays
            samples = next((len(a) for a in arrays.values() if a.ndim), 1)
            yield {key: a.to(self.accelerator.device, non_blocking=pin) for key, a in arrays.items()}, samples, waited


def loader(stage: Stage, steps: Sequence[int], workers: int, pin: bool = False) -> Any:
    """A DataLoader that gives the batches of these steps in order, as tensors on the CPU, made by `workers` processes.

    A UserError or ClipError of a batch is given in its place, for the caller to raise.
    """
    from torch.utils.data import DataLoader

    if workers and "cv2" in sys.modules:
        # A pool of threads does not come along when a process forks, and OpenCV waits for its own for ever. Of one
        # thread there is no pool. torch sees to its own.
        sys.modules["cv2"].setNumThreads(1)
    return DataLoader(
        _Steps(stage, steps),  # type: ignore[arg-type]
        batch_size=None,
        collate_fn=_same,
        num_workers=workers,
        pin_memory=pin,
        # Forked workers share the clips in memory; spawned ones would be sent a copy each.
        multiprocessing_context="fork" if workers and sys.platform == "linux" else None,
    )


class _Steps:
    """The batches of a stage as a map-style data set."""

    def __init__(self, stage: Stage, steps: Sequence[int]) -> None:
        self.stage, self.steps = stage, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: int) -> dict[str, Any] | Exception:
        import torch

        try:
            batch = self.stage.batch(self.steps[index])
        except (UserError, ClipError) as error:
            return error
        return {key: torch.from_numpy(np.require(value, None, ["C", "W"])) for key, value in batch.items()}


def _same(item: Any) -> Any:
    return item


class _Row:
    """A stretch of steps: mean losses, and what it cost."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.steps: dict[str, int] = {}
        self.sums: dict[str, Any] = {}
        self.samples, self.waited, self.seconds = 0, 0.0, 0.0

    def count(self, losses: Mapping[str, Any]) -> None:
        """Adds on the device: a number is asked for only once a row."""
        for key, value in losses.items():
            value = value.detach().float() if hasattr(value, "detach") else float(value)
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.steps[key] = self.steps.get(key, 0) + 1

    def values(self, accelerator: Any) -> dict[str, float]:
        import torch

        means = torch.stack(
            [torch.as_tensor(self.sums[k] / self.steps[k], device=accelerator.device) for k in self.sums]
        )
        means = accelerator.reduce(means.float(), "mean").tolist()
        self.seconds = max(time.perf_counter() - self.began, 1e-9)
        cost = {"samples_per_second": self.samples / self.seconds, "waiting_share": self.waited / self.seconds}
        return dict(zip(self.sums, means, strict=True)) | cost


class Curve:
    """A CSV file with a row for a stretch of steps: `step` is its last, losses are its means. One row a step, ever."""

    def __init__(self, path: Path, upto: int) -> None:
        """Rows after step `upto` are dropped: the run that wrote them did not get to its next checkpoint."""
        self.path = path
        self.rows = [row for row in read_curve(path) if row["step"] <= upto] if upto else []
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        self._write()

    def add(self, row: Mapping[str, float], safe: bool = False) -> None:
        """`safe`: it is on the disk before this returns."""
        self.rows.append(dict(row))
        new = [key for key in row if key not in self.columns]
        if new:
            self.columns += new
            self._write()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([row]))
            if safe:
                file.flush()
                os.fsync(file.fileno())

    def _write(self) -> None:
        head = ",".join(self.columns) + "\n" if self.columns else ""
        checkpoints.write(self.path, (head + self._text(self.rows)).encode())

    def _text(self, rows: Sequence[Mapping[str, float]]) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([[repr(row[key]) if key in row else "" for key in self.columns] for row in rows])
        return out.getvalue()


def read_curve(path: Path) -> list[dict[str, float]]:
    """The rows of a curve, without the cells that are empty and a last line that was cut short. [] without a file."""
    if not path.is_file():
        return []
    with path.open(encoding="utf-8", newline="") as file:
        lines = list(csv.reader(file))
    rows = []
    for line in lines[1:]:
        try:
            rows.append({key: float(cell) for key, cell in zip(lines[0], line, strict=True) if cell})
        except ValueError:
            continue
    return [{**row, "step": int(row["step"])} for row in rows if "step" in row]


def _loss_module(stage: Stage) -> Any:
    """The stage's loss as a module's forward, so that Accelerate's autocast and the exchange of gradients see it."""
    from torch import nn

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = stage.net

        def forward(self, batch: Mapping[str, Any], player: str) -> tuple[Any, dict[str, Any]]:
            loss, parts = stage.loss(batch, player)
            # Only the loss may look used to the exchange of gradients.
            return loss, {key: v.detach() if hasattr(v, "detach") else v for key, v in parts.items()}

    return Loss()


def _accelerator(device: str, precision: str) -> Any:
    """An Accelerator for this stage; the state it keeps for the whole process is begun anew."""
    import torch

    try:
        from accelerate import Accelerator, DistributedDataParallelKwargs
        from accelerate.state import AcceleratorState
    except ImportError as error:
        raise UserError(f"training needs {error.name}; run `pip install 'cmet-eval[reference]'`") from None
    cuda = torch.cuda.is_available()
    if not re.fullmatch(r"auto|cpu|cuda(:\d+)?", device) or (device.startswith("cuda") and not cuda):
        raise UserError(f"no device {device!r} here; use auto, cpu, cuda or cuda:N")
    if ":" in device and int(device[5:]) >= torch.cuda.device_count():
        raise UserError(f"no device {device!r} here; there are {torch.cuda.device_count()}")
    if precision not in PRECISIONS:
        raise UserError(f"no precision {precision!r}; known: {', '.join(PRECISIONS)}")
    if precision == "fp16" and (device == "cpu" or not cuda):
        raise UserError("fp16 needs a GPU; use bf16 or fp32")
    AcceleratorState._reset_state(reset_partial_state=not torch.distributed.is_initialized())
    named = {"ACCELERATE_TORCH_DEVICE": device} if ":" in device else {}
    os.environ.update(named)
    try:
        return Accelerator(
            cpu=device == "cpu",
            mixed_precision=PRECISIONS[precision],
            # A player's loss reaches only its own part of the network.
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],
        )
    finally:
        for name in named:
            del os.environ[name]
