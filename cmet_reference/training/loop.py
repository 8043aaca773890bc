"""The training loop of all stages. It uses the library Accelerate, with one or several processes and any precision.

It is safe to kill a run at any time. The next run resumes from the last checkpoint and continues the same curve. On the
CPU, the resumed run ends with the same bytes as a run without interruption, for three reasons: Batches depend only on
seed and step. The random generators of torch are seeded again at each step. The checkpoint contains the network, the
optimizers and the gradient scaler of float16.
"""

from __future__ import annotations

import errno
import json
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np

from cmet_pipelines.shards import ShardSet
from cmet_reference.departures import departures_of_checkpoint
from cmet_reference.training import checkpoints
from cmet_reference.training.batches import TimedBatch, timed_batches
from cmet_reference.training.checkpoints import Card, TrainedOn
from cmet_reference.training.curve import Curve, LossMeter
from cmet_reference.training.options import Provenance, TrainOptions
from cmet_reference.training.runtime import make_accelerator, repeatable
from cmet_reference.training.stage import ClosedForm, Described, Stage
from cmet_reference.training.state import Learner, RunState, UnfinishedRun, finished_card
from talking_face.files import STRAY, check_writable
from talking_face.pretrained.model_files import folder_name
from talking_face.progress import Progress
from talking_face.reasons import NoSpace, UserError
from talking_face.signature import canonical_json, digest

if TYPE_CHECKING:
    from torch import Tensor, nn

ROW_EVERY = 10  # steps per row of the curve
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def fit(stage: Stage, out: Path, options: TrainOptions | None = None, provenance: Provenance | None = None) -> Card:
    """Train a stage and write OUT/NAME.safetensors, its card NAME.json and its curve NAME.csv.

    A finished training with the same settings is kept (see `finished_card`). An interrupted training is resumed. With
    `accelerate launch`, every process draws its own batches, so W processes use W times as many samples per step.

    Args:
        stage: the stage to train. At the end its network is in evaluation mode on the CPU.
        out: folder of the three files; an unfinished run stores its checkpoints in OUT/NAME.unfinished.
        options: how to train.
        provenance: the settings, data and earlier checkpoints to record.

    Returns:
        the card.

    Raises:
        UserError: an unfinished run has other settings; a file of an earlier training is damaged; a loss is not finite;
            a worker process died; the device is absent; the GPU's memory is full.
        NoSpace: the disk is full; the last checkpoint is kept.
        OSError: a file cannot be read, or the folder cannot be written; this is checked before the training.
    """
    import torch

    options, provenance = options or TrainOptions(), provenance or Provenance()
    with repeatable(options.threads):
        run = TrainingRun(stage, out, options)
        trained_on = header_of(stage, options, provenance, run.accelerator.num_processes)
        card = finished_card(run.path, stage.net, trained_on, run.main) if options.resume else None
        if card is None:
            if run.main:
                run.check_places()
            state = run.unfinished.restore(run.learner, trained_on, run.main) if options.resume else None
            # Twice, because torch's handler of dead workers can raise a second time, while the first error is handled.
            with _explained(stage.name, run.unfinished), _explained(stage.name, run.unfinished):
                card = run.train(state, trained_on)
        elif run.main and not options.quiet:
            run.say("trained before with these settings; --fresh trains it again")
        stage.net.eval().to(torch.device("cpu"))
    return card


def header_of(stage: Stage, options: TrainOptions, provenance: Provenance, processes: int) -> TrainedOn:
    """The inputs and settings of a training, for the header of its checkpoint."""
    shard_sets = {name: ShardSet(folder) for name, folder in provenance.data.items()}
    seen = [shards.clips[shards.clips["split"] == "train"] for shards in shard_sets.values()]
    trained_on: TrainedOn = {
        "config": {key: _without_paths(value) for key, value in provenance.config.items()},
        "steps": stage.steps,
        "seed": options.seed,
        "precision": options.precision,
        "threads": options.threads,
        "processes": processes,
        "data": {name: shards.digest for name, shards in shard_sets.items()},
        "built_on": provenance.built_on,
        "clips": sorted({str(i) for clips in seen for i in clips["clip_id"]}),
        "speakers": sorted({str(i) for clips in seen for i in clips["speaker"]}),
    }
    return cast(TrainedOn, json.loads(canonical_json(trained_on)))  # as if read from a header, where tuples are lists


def _without_paths(value: object) -> object:
    """A setting with only the last part of each absolute path, because checkpoints are published.

    A digest of the whole setting is added, so that settings with different paths stay different.
    """
    if isinstance(value, Mapping):
        return {key: _without_paths(item) for key, item in value.items()}
    if not isinstance(value, str) or value == folder_name(value):
        return value
    return f"{folder_name(value)} ({digest(value, 8)})"


@contextmanager
def _explained(stage: str, unfinished: UnfinishedRun) -> Iterator[None]:
    """Raises a UserError in place of the errors for a full disk, a full GPU and a dead worker process."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError:
        raise UserError(
            f"{stage}: the GPU's memory is full; give its settings a smaller batch, or train in bf16"
        ) from None
    except (RuntimeError, ConnectionError, EOFError) as error:
        # A worker that dies while it sends a batch causes a ConnectionError or EOFError instead of a RuntimeError.
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        raise UserError(
            f"{stage}: a process that prepares batches died, as when memory or /dev/shm is full; train with fewer "
            "--workers"
        ) from None
    except OSError as error:
        if error.errno not in _FULL:
            raise
        raise NoSpace(
            f"{stage}: a file could not be written ({error.strerror}); {unfinished.kept()}. Make room on the disk and "
            "run the same command again"
        ) from None


class TrainingRun:
    """The training of one stage, with the network, the optimizers and the files of the run."""

    def __init__(self, stage: Stage, out: Path, options: TrainOptions) -> None:
        import torch

        self.stage, self.options = stage, options
        self.accelerator = make_accelerator(options.device, options.precision)
        self.main = self.accelerator.is_main_process
        self.path = out / f"{stage.name}.safetensors"
        self.unfinished = UnfinishedRun(out, stage.name)
        stage.net.to(self.accelerator.device)
        known = {id(parameter) for parameter in stage.net.parameters()}
        self.optimizers = dict(stage.optimizers())
        made: dict[str, torch.optim.Optimizer] = {}
        for name, optimizer in self.optimizers.items():
            if any(id(parameter) not in known for parameter in optimizer.parameters):
                raise ValueError(f"{stage.name}: {name} has parameters outside of `net`, which would not be saved")
            # AdamW with a weight decay of 0 equals Adam.
            made[name] = torch.optim.AdamW(
                list(optimizer.parameters),
                lr=optimizer.learning_rate,
                weight_decay=optimizer.weight_decay,
                betas=optimizer.betas,
            )
        self.learner = Learner(stage.net, made, self.accelerator.scaler)

    def train(self, state: RunState | None, trained_on: TrainedOn) -> Card:
        """Do the remaining steps, then write checkpoint and card. `state`: the run to resume; None: start at step 0."""

        stage, accelerator = self.stage, self.accelerator
        if self.main:
            if state is None:
                self.unfinished.remove()
            for stray in self.path.parent.glob(STRAY):
                if stray.name.startswith(f".{stage.name}."):
                    stray.unlink(missing_ok=True)
        state = state or RunState()
        curve = Curve(self.path.with_suffix(".csv"), state.step) if self.main else None
        self._prepare()
        if isinstance(stage, ClosedForm):
            began = time.perf_counter()
            stage.solve()
            state.seconds = time.perf_counter() - began
        held_out = self._run_steps(state, curve, trained_on)
        if self.main:
            self._write(state, trained_on, self._held_out() if held_out is None else held_out)
        accelerator.wait_for_everyone()
        return cast(Card, checkpoints.read_card(self.path))

    def timed(self, steps: Sequence[int]) -> tuple[float, int | None]:
        """Do these steps, for a measurement. The first step is not measured, because it also prepares the device.

        Returns the mean time of a step with its batch, in seconds, and the greatest memory on the GPU in MB, if any.
        """
        import torch

        device, began = self.accelerator.device, 0.0
        self._prepare()
        self.stage.net.train()
        for index, batch in enumerate(timed_batches(self.stage, steps, 0, device)):
            self._step(steps[index], batch, LossMeter())
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            began = began or time.perf_counter()
        seconds = (time.perf_counter() - began) / max(1, len(steps) - 1)
        self.stage.net.eval().to(torch.device("cpu"))
        return seconds, torch.cuda.max_memory_allocated(device) // 2**20 if device.type == "cuda" else None

    def _prepare(self) -> None:
        """Make the network and the optimizers ready for `_step`."""
        import torch

        self.model = self.accelerator.prepare_model(_loss_module(self.stage))
        self.prepared = {name: self.accelerator.prepare_optimizer(o) for name, o in self.learner.optimizers.items()}
        if self.accelerator.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.accelerator.device)

    def check_places(self) -> None:
        """Raises UserError or OSError if a file of the run cannot be written, before the training takes its time."""
        check_writable(self.path.parent)
        check_writable(self.unfinished.folder)
        for path in (self.path.with_suffix(suffix) for suffix in (".safetensors", ".json", ".csv")):
            if path.is_dir():
                raise UserError(f"{path} is a folder, and a file must be written there; remove or rename the folder")

    def say(self, text: str) -> None:
        """Print a line about this stage on stderr."""
        print(f"{self.stage.name}: {text}", file=sys.stderr)

    def _run_steps(self, state: RunState, curve: Curve | None, trained_on: TrainedOn) -> Mapping[str, float] | None:
        """Do the remaining steps and write the curve and the checkpoints.

        Returns the held-out figures after the last step. The figures are None if no step remained, or if this is not
        the main process.
        """
        stage, processes = self.stage, self.accelerator.num_processes
        meter, held_out = LossMeter(), None
        quiet, already = self.options.quiet or not self.main, state.step
        # This line forks the workers. It must come before the progress bar, because the progress bar starts a thread.
        batches = self._batches(state.step)
        with Progress(stage.steps, "steps", stage.name, quiet, already=already) as progress:
            stage.net.train()
            for batch in batches:
                self._step(state.step, batch, meter)
                state.step += 1
                meter.samples += batch.samples * processes
                meter.waited += batch.waited
                checkpoint = state.step % self.options.checkpoint_every == 0 or state.step == stage.steps
                if checkpoint or state.step % ROW_EVERY == 0:
                    row = self._row(state, meter)
                    if checkpoint and self.main:
                        held_out = self._held_out()
                        row |= {f"held_out/{key}": value for key, value in held_out.items()}
                    if curve is not None:
                        curve.add({"step": state.step, **row}, checkpoint)
                        if checkpoint and state.step < stage.steps:
                            self.unfinished.save(self.learner, state, trained_on)
                    self.accelerator.wait_for_everyone()
                    meter = LossMeter()
                progress.advance()
        return held_out

    def _batches(self, first_step: int) -> Iterator[TimedBatch]:
        """The batches of this process for the remaining steps."""
        rank, processes = self.accelerator.process_index, self.accelerator.num_processes
        steps = range(first_step * processes + rank, self.stage.steps * processes, processes)
        return timed_batches(self.stage, steps, self.options.workers, self.accelerator.device)

    def _step(self, step: int, batch: TimedBatch, meter: LossMeter) -> None:
        """Update the parameters with each optimizer in turn, and add the losses to the meter."""
        import torch

        seed = np.random.SeedSequence((self.options.seed, step, self.accelerator.process_index))
        torch.manual_seed(int(seed.generate_state(1, np.uint32)[0]))
        for name, optimizer in self.prepared.items():
            for group in self.learner.optimizers[name].param_groups:
                group["lr"] = self.optimizers[name].learning_rate_at(step, self.stage.steps)
            optimizer.zero_grad(set_to_none=True)
            loss, parts = self.model(batch.tensors, name)
            self.accelerator.backward(loss)
            optimizer.step()
            prefix = f"{name}/" if len(self.prepared) > 1 else ""
            meter.add({f"{prefix}{key}": value for key, value in {"loss": loss, **parts}.items()})

    def _row(self, state: RunState, meter: LossMeter) -> dict[str, float]:
        """The mean losses in the meter, for a row of the curve.

        The method also adds the meter's time and samples to `state`.

        Raises UserError if a loss is not finite.
        """
        row = meter.means(self.accelerator)
        bad = [key for key, value in row.items() if not np.isfinite(value)]
        if bad:
            raise UserError(
                f"{self.stage.name}: {', '.join(bad)} not finite in the steps before {state.step}; lower the learning "
                "rate, or train in fp32"
            )
        state.seconds += meter.seconds
        state.waited += meter.waited
        state.samples += meter.samples
        return row

    def _held_out(self) -> dict[str, float]:
        import torch

        self.stage.net.eval()
        torch.manual_seed(self.options.seed)
        with torch.no_grad():
            figures = {key: float(value) for key, value in self.stage.held_out().items()}
        self.stage.net.train()
        return figures

    def _write(self, state: RunState, trained_on: TrainedOn, held_out: Mapping[str, float]) -> None:
        """Write the checkpoint and its card, then delete the folder of the unfinished run."""
        import accelerate
        import torch

        device = self.accelerator.device
        cuda = device.type == "cuda"
        card = {
            "parameters": sum(p.numel() for p in self.stage.net.parameters()),
            "held_out": {key: value for key, value in held_out.items() if np.isfinite(value)},  # JSON has no NaN
            "seconds": round(state.seconds, 1),
            "samples_per_second": round(state.samples / max(state.seconds, 1e-9), 1),
            "waiting_share": round(state.waited / max(state.seconds, 1e-9), 4),
            "workers": self.options.workers,
            "device": torch.cuda.get_device_name(device) if cuda else device.type,
            "peak_device_mb": torch.cuda.max_memory_allocated(device) >> 20 if cuda else None,
            "commit": checkpoints.commit(),
            "torch": torch.__version__,
            "accelerate": accelerate.__version__,
            "about": dict(self.stage.about()) if isinstance(self.stage, Described) else {},
            "departures": departures_of_checkpoint(self.stage.name, trained_on["config"]),
            "trained_on": trained_on,
        }
        checkpoints.save(self.path, self.stage.net.state_dict(), self.stage.record(), card)
        self.unfinished.remove()


def _loss_module(stage: Stage) -> nn.Module:
    """A module whose forward computes the stage's loss.

    Accelerate needs a module to apply autocast, and to exchange gradients between processes.
    """
    from torch import nn

    class Loss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = stage.net

        def forward(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, dict[str, Tensor]]:
            loss, parts = stage.loss(batch, optimizer)
            # The parts are detached, so that only the loss counts as used in the exchange of gradients.
            return loss, {key: v.detach() if hasattr(v, "detach") else v for key, v in parts.items()}

    return Loss()
