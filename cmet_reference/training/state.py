"""Saves and restores the state of a training: the network, the optimizers and the counters of an unfinished run."""

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
from talking_face.sealed import Damaged

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.amp import GradScaler
    from torch.optim import Optimizer

KEPT = 2  # number of checkpoints of an unfinished run; if the newer file is damaged, the older is used


@dataclass
class RunState:
    """Counters of a run after `step` steps. The names of the fields are stored in checkpoints."""

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0  # seconds of waiting for batches
    samples: int = 0


@dataclass(frozen=True)
class Learner:
    """The parts of a run that change at each step: the network, its optimizers, and the gradient scaler of float16."""

    net: nn.Module
    optimizers: Mapping[str, Optimizer]
    scaler: GradScaler | None

    def tensors(self) -> dict[str, Tensor]:
        """The tensors of the network and the optimizers, by the names under which they are stored."""
        tensors = {f"net/{key}": value for key, value in self.net.state_dict().items()}
        for name, optimizer in self.optimizers.items():
            for index, entries in optimizer.state_dict()["state"].items():
                tensors |= {f"player/{name}/{index}/{key}": value for key, value in entries.items()}
        return tensors

    def settings(self) -> dict[str, object]:
        """The JSON values of the state: the optimizers' parameter groups, and the state of the scaler."""
        return {
            "groups": {name: optimizer.state_dict()["param_groups"] for name, optimizer in self.optimizers.items()},
            "scaler": self.scaler.state_dict() if self.scaler is not None else {},
        }

    def fill(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Restore the state from the results of `tensors` and `settings`.

        Raises RuntimeError, ValueError or KeyError if the values do not fit the network or the optimizers.
        """
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
    """The folder with the last checkpoints of a run that has not ended."""

    def __init__(self, out: Path, stage: str) -> None:
        self.folder, self.stage = out / f"{stage}.unfinished", stage
        self.kind = f"{stage}-unfinished"

    def save(self, learner: Learner, state: RunState, trained_on: TrainedOn) -> None:
        """Write a checkpoint, and delete all but the newest KEPT checkpoints."""
        record = {"state": vars(state), **learner.settings(), "trained_on": trained_on}
        path = self.folder / f"step-{state.step:09d}.safetensors"
        checkpoints.save(path, learner.tensors(), record, kind=self.kind)
        for old in self._newest_first()[KEPT:]:
            old.unlink()

    def restore(self, learner: Learner, trained_on: TrainedOn, report: bool) -> RunState | None:
        """Restore the learner from the newest undamaged checkpoint. Returns None if the folder has none.

        Args:
            learner: the learner whose network and optimizers are restored.
            trained_on: the settings of this training; the settings in the checkpoint must be equal.
            report: print a line about each damaged checkpoint.

        Raises:
            UserError: the checkpoint has other settings, or does not fit the network.
        """
        paths = self._newest_first()
        for path in paths:
            try:
                tensors, record = checkpoints.load(path, self.kind)
            except UserError as error:
                why = f"{path} is damaged ({error.problem})" if isinstance(error, Damaged) else str(error)
                if report:
                    what = "the checkpoint before it is used" if path != paths[-1] else f"{self.stage} starts again"
                    print(f"{why}; {what}", file=sys.stderr)
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

    def kept(self) -> str:
        """A text that names the newest checkpoint, from which the next run resumes."""
        newest = self._newest_first()[:1]
        return f"{newest[0]} is kept" if newest else "no checkpoint was written before"

    def remove(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _newest_first(self) -> list[Path]:
        return sorted(self.folder.glob("step-*.safetensors"), reverse=True)


def finished_card(path: Path, net: nn.Module, trained_on: TrainedOn, report: bool) -> Card | None:
    """Checks whether a stage was already trained with these settings.

    Returns the card of that training, or None if the stage must be trained:

    - There is no file: None.
    - The file is complete and has these settings: the card. The tensors of the file are loaded into `net`.
    - The file has other settings: None, and a line on stderr.
    - The file has no card, because the process was killed before it wrote one: None, and a line on stderr.
    - The file is damaged, of another version or of another network: an error. Only --fresh replaces such a file.

    Args:
        path: OUT/NAME.safetensors.
        report: print the lines.

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
        raise Damaged(path, f"its SHA-256 is not the one in {path.stem}.json", "train with --fresh")
    try:
        net.load_state_dict(tensors)
    except RuntimeError as error:
        raise misfit(path, stage, error) from None
    return card


def differing(before: Mapping[str, object], after: Mapping[str, object]) -> str:
    """The names of the settings that differ, separated by commas."""
    return ", ".join(key for key in after if before.get(key) != after[key])


def misfit(path: Path, stage: str, error: Exception) -> UserError:
    """The error for a checkpoint whose tensors do not fit the network."""
    return UserError(f"{path} does not fit the network of {stage} ({str(error).splitlines()[0]}); train with --fresh")
