"""The training curve: a CSV file with the mean losses over a few steps in each row."""

from __future__ import annotations

import csv
import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from talking_face.files import write_text

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor


class LossMeter:
    """Collects the losses of the steps since the last row of the curve, and the time that these steps took."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.steps: dict[str, int] = {}
        self.sums: dict[str, Tensor | float] = {}
        self.samples, self.waited, self.seconds = 0, 0.0, 0.0

    def add(self, losses: Mapping[str, Tensor | float]) -> None:
        """Add the losses of one step. The sums stay on the device; so the CPU waits only once per row."""
        for key, value in losses.items():
            value = float(value) if isinstance(value, (int, float)) else value.detach().float()
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.steps[key] = self.steps.get(key, 0) + 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """The mean losses over steps and processes, `samples_per_second`, and `waiting_share`: time without a batch."""
        import torch

        means = torch.stack(
            [torch.as_tensor(self.sums[k] / self.steps[k], device=accelerator.device) for k in self.sums]
        )
        means = accelerator.reduce(means.float(), "mean").tolist()
        self.seconds = max(time.perf_counter() - self.began, 1e-9)
        cost = {"samples_per_second": self.samples / self.seconds, "waiting_share": self.waited / self.seconds}
        return dict(zip(self.sums, means, strict=True)) | cost


class Curve:
    """The CSV file. A row has the mean losses over several steps; its `step` is the last of these steps."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Open the file, and delete its rows after `last_step`.

        Such rows are from a killed run that did not reach its next checkpoint. The steps of these rows will be
        repeated.
        """
        self.path = path
        self.rows = [row for row in read_curve(path) if row["step"] <= last_step] if last_step else []
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        self._write()

    def add(self, row: Mapping[str, float], durable: bool = False) -> None:
        """Append a row. With `durable`, the row is on the disk when this function returns."""
        self.rows.append(dict(row))
        new = [key for key in row if key not in self.columns]
        if new:
            self.columns += new
            self._write()
            return
        with self.path.open("a", encoding="utf-8", newline="") as file:
            file.write(self._text([row]))
            if durable:
                file.flush()
                os.fsync(file.fileno())

    def _write(self) -> None:
        head = ",".join(self.columns) + "\n" if self.columns else ""
        write_text(self.path, head + self._text(self.rows), durable=True)

    def _text(self, rows: Sequence[Mapping[str, float]]) -> str:
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerows([[repr(row[key]) if key in row else "" for key in self.columns] for row in rows])
        return out.getvalue()


def read_curve(path: Path) -> list[dict[str, float]]:
    """The rows of a curve; [] if the file is absent. Empty cells are left out, and so is a truncated last line."""
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
