"""The training curve: mean losses over a few steps as rows of a CSV file."""

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
    """Mean losses over the steps since the last row, and their cost."""

    def __init__(self) -> None:
        self.began = time.perf_counter()
        self.steps: dict[str, int] = {}
        self.sums: dict[str, Tensor | float] = {}
        self.samples, self.waited, self.seconds = 0, 0.0, 0.0

    def add(self, losses: Mapping[str, Tensor | float]) -> None:
        """Add the losses of one step. Sums stay on the device, so that the CPU waits for it only once a row."""
        for key, value in losses.items():
            value = float(value) if isinstance(value, (int, float)) else value.detach().float()
            self.sums[key] = self.sums.get(key, 0.0) + value
            self.steps[key] = self.steps.get(key, 0) + 1

    def means(self, accelerator: Accelerator) -> dict[str, float]:
        """The losses, means over steps and processes, with `samples_per_second` and `waiting_share`."""
        import torch

        means = torch.stack(
            [torch.as_tensor(self.sums[k] / self.steps[k], device=accelerator.device) for k in self.sums]
        )
        means = accelerator.reduce(means.float(), "mean").tolist()
        self.seconds = max(time.perf_counter() - self.began, 1e-9)
        cost = {"samples_per_second": self.samples / self.seconds, "waiting_share": self.waited / self.seconds}
        return dict(zip(self.sums, means, strict=True)) | cost


class Curve:
    """A CSV file with one row for several steps. `step` is the last of them; losses are means. No step occurs twice."""

    def __init__(self, path: Path, last_step: int) -> None:
        """Drop the rows after `last_step`: the run that wrote them did not reach its next checkpoint."""
        self.path = path
        self.rows = [row for row in read_curve(path) if row["step"] <= last_step] if last_step else []
        self.columns = list(dict.fromkeys(key for row in self.rows for key in row))
        self._write()

    def add(self, row: Mapping[str, float], durable: bool = False) -> None:
        """Append a row. With `durable` it is on the disk when this returns."""
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
    """The rows of a curve, without empty cells and without a truncated last line; [] where the file is absent."""
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
