"""The resumable state of a training: networks, optimizers and counters, and the checkpoints of an unfinished run."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cmet_reference.training import checkpoints
from cmet_reference.training.checkpoints import Card, TrainedOn
from talking_face.files import sha256_of
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp import GradScaler
    from torch.optim import Optimizer

KEPT = 2  # checkpoints of an unfinished run: the last one, and the one before in case the last is damaged


@dataclass
class RunState:
    """Counters of a run after `step` steps. The field names are stored."""

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    samples: int = 0


@dataclass(frozen=True)
class Learner:
    """Everything of a run that has tensors: the network, its optimizers, and the scaler of float16."""

    net: nn.Module
    optimizers: Mapping[str, Optimizer]
    scaler: GradScaler | None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of network and optimizers under their stored names."""
        tensors = {f"net/{key}": value for key, value in self.net.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, entries in optimizer.state_dict()["state"].items():
                tensors |= {f"player/{name}/{index}/{key}": value for key, value in entries.items()}
        return tensors

    def settings(self) -> dict[str, object]:
        """The JSON half of the state: parameter groups of the optimizers, and the scaler."""
        return {
            "groups": {name: optimizer.state_dict()["param_groups"] for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict() if self.scaler is not None else {},
        }

    def fill(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """The inverse of `tensors` and `settings`. Raises RuntimeError, ValueError or KeyError where they differ."""
        self.net.load_state_dict({key[4:]: value for key, value in tensors.items() if key.startswith("net/")})
        for name, optimizer in self.optimizers.items():
            state: dict[int, dict[str, Tensor]] = {}
            for key, value in tensors.items():
                match = re.fullmatch(rf"player/{re.escape(name)}/(\d+)/(\w+)", key)
                if match:
                    state.setdefault(int(match[1]), {})[match[2]] = value
            groups = [{**group, "betas": tuple(group["betas"])} for group in record["groups"][name]]
            optimizer.load_state_dict({"state": state, "param_groups": groups})
        if self.scaler is not None:
            self.scaler.load_state_dict(record["scaler"])


class UnfinishedRun:
    """The folder of a run that has not ended: its last checkpoints."""

    def __init__(self, out: Path, stage: str) -> None:
        self.folder, self.stage = out / f"{stage}.unfinished", stage
        self.kind = f"{stage}-unfinished"

    def save(self, learner: Learner, state: RunState, trained_on: TrainedOn) -> None:
        """Write a checkpoint and remove the oldest ones."""
        record = {"state": vars(state), **learner.settings(), "trained_on": trained_on}
        path = self.folder / f"step-{state.step:09d}.safetensors"
        checkpoints.save(path, learner.tensors(), record, kind=self.kind)
        for old in self._newest_first()[KEPT:]:
            old.unlink()

    def restore(self, learner: Learner, trained_on: TrainedOn, report: bool) -> RunState | None:
        """Fill the learner from the newest undamaged checkpoint; None where the folder has none.

        Args:
            report: print a line about each damaged checkpoint.

        Raises:
            UserError: the run has other settings, or its checkpoint does not fit the network.
        """
        for path in self._newest_first():
            try:
                tensors, record = checkpoints.load(path, self.kind)
            except UserError as error:
                if report:
                    print(f"{error}; resuming from the checkpoint before it", file=sys.stderr)
                continue
            if record["trained_on"] != trained_on:
                raise UserError(
                    f"{self.folder} has other settings ({differing(record['trained_on'], trained_on)}); use those "
                    "settings to resume it, or --fresh to start again"
                )
            try:
                learner.fill(tensors, record)
            except (RuntimeError, ValueError, KeyError) as error:
                raise misfit(path, self.stage, error) from None
            return RunState(**record["state"])
        return None

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)


def finished_card(path: Path, net: nn.Module, trained_on: TrainedOn, report: bool) -> Card | None:
    """The card of a complete training with these settings, whose tensors are then in `net`; None where to train.

    No file: train. A complete file with these settings: keep it. A file with other settings, or one whose card was not
    written before the process was killed: train, after a line that says so. A file that is damaged, of another version
    or of another network is an error: only --fresh replaces it.

    Args:
        path: OUT/NAME.safetensors.
        report: print these lines.

    Raises:
        UserError: the checkpoint or its card cannot be used; the message names the file and the cause.
    """
    if not path.is_file():
        return None
    stage, say = path.stem, (lambda text: print(text, file=sys.stderr)) if report else (lambda text: None)
    tensors, _ = checkpoints.load(path, stage)
    before = checkpoints.trained_on(path)
    if before != trained_on:
        say(f"{path} has other settings ({differing(before, trained_on)}); {stage} is trained again")
        return None
    card = checkpoints.read_card(path)
    if card is None or card["trained_on"] != trained_on:
        say(f"{path} has no card of this training, which was killed before it wrote one; {stage} is trained again")
        return None
    if card["sha256"] != sha256_of(path):
        raise UserError(f"{path} is damaged (its SHA-256 is not the one in {path.stem}.json); train with --fresh")
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise misfit(path, stage, error) from None
    return card


def differing(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """The names of the settings that differ, separated by commas."""
    return ", ".join(key for key in after if before.get(key) != after[key])


def misfit(path: Path, stage: str, error: Exception) -> UserError:
    """The error for a checkpoint whose tensors are not those of the network."""
    return UserError(f"{path} does not fit the network of {stage} ({str(error).splitlines()[0]}); train with --fresh")
