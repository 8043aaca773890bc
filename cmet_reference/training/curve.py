"""The training curve: a CSV file with the mean losses over a few steps in each row.

The last column, `check`, holds a digest of the row. If a bit of the file is changed, its reader leaves out the row.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from talking_face.files import sha256_of, write_text
from talking_face.names import counted

if TYPE_CHECKING:
    from accelerate import Accelerator
    from torch import Tensor

CHECK = "check"  # the column with the digest of a row


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
        head = ",".join([*self.columns, CHECK]) + "\n" if self.columns else ""
        write_text(self.path, head + self._text(self.rows), durable=True)

    def _text(self, rows: Sequence[Mapping[str, float]]) -> str:
        lines = []
        for row in rows:
            cells = [repr(row[key]) if key in row else "" for key in self.columns]
            lines.append(",".join([*cells, _check(dict(zip(self.columns, cells, strict=True)))]) + "\n")
        return "".join(lines)


def read_curve(path: Path) -> list[dict[str, float]]:
    """The rows of a curve; [] if the file is absent. Empty cells are left out.

    A row whose `check` does not fit its cells is damaged, or its process was killed while it wrote. The row is left
    out, and a line on stderr gives the number of such rows.
    """
    if not path.is_file():
        return []
    head, *lines = path.read_bytes().decode("utf-8", "replace").split("\n")
    rows, damaged = [], 0
    for line in filter(None, lines):
        try:
            cells = dict(zip(head.split(","), line.split(","), strict=True))
            if cells.pop(CHECK) != _check(cells):
                raise ValueError
            row = {key: float(cell) for key, cell in cells.items() if cell}
            rows.append({**row, "step": int(row["step"])})
        except (ValueError, KeyError):
            damaged += 1
    if damaged:
        print(f"{path}: {counted(damaged, 'row')} left out (incomplete or damaged)", file=sys.stderr)
    return rows


def _check(cells: Mapping[str, str]) -> str:
    """The first 8 hex digits of the SHA-256 of a row: its names and cells, without empty cells."""
    return sha256_of("\n".join(f"{name},{cells[name]}" for name in sorted(cells) if cells[name]).encode())[:8]
