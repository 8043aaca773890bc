"""Small networks to train and helpers that read or damage the files of a training, for several test files."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from cmet_reference.training.curve import read_curve
from cmet_reference.training.loop import fit
from cmet_reference.training.options import TrainOptions
from cmet_reference.training.stage import Optimizer

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


def finished(tmp_path: Path) -> Path:
    fit(Line(), tmp_path, TrainOptions(quiet=True))
    return tmp_path / "line.safetensors"


def flipped(data: bytes, bit: int) -> bytes:
    at = bit // 8
    return data[:at] + bytes([data[at] ^ 1 << bit % 8]) + data[at + 1 :]
