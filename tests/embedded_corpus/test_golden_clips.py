"""Drawn pictures and sounds are those of the committed table, up to the rounding of another processor.

`python -m tests.embedded_corpus.test_golden_clips` writes the table again. A change needs a higher `GENERATOR`.
"""

from __future__ import annotations

import csv
from pathlib import Path

import cv2
import numpy as np
import pytest

from embedded_corpus.clip import ClipSpec, render_clip

FILE = Path(__file__).with_name("golden_clips.csv")
SPECS = [
    ClipSpec("M901", "angry", 3, 1, ("s02",), seconds=0.6, width=320, height=180),
    ClipSpec("W903", "surprised", 2, 5, ("s07",), seconds=0.6, width=320, height=180),
]
FRAMES = (0, 8, 17)
GRID = (8, 6)  # blocks across and down


def measure(spec: ClipSpec) -> dict[str, list[float]]:
    """Mean colours of the blocks of some frames, and the RMS of ten parts of the sound."""
    frames, sound, truth = render_clip(spec)
    rows = {
        f"{spec.key}/{k}": cv2.resize(frame.astype(np.float32), GRID, interpolation=cv2.INTER_AREA).ravel().tolist()
        for k, frame in enumerate(frames)
        if k in FRAMES
    }
    parts = sound.astype(np.float64).reshape(10, -1)
    rows[f"{spec.key}/sound"] = np.sqrt((parts**2).mean(axis=1)).tolist()
    rows[f"{spec.key}/mouth"] = truth["frames"]["mouth_open_px"]
    return rows


def read() -> dict[str, list[float]]:
    with FILE.open(newline="", encoding="utf-8") as file:
        return {name: [float(value) for value in values] for name, *values in csv.reader(file)}


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.key)
def test_clips_are_those_of_the_table(spec: ClipSpec) -> None:
    expected = read()
    for name, values in measure(spec).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-3, atol=0.05, err_msg=name)


if __name__ == "__main__":
    with FILE.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file, lineterminator="\n")
        for one in SPECS:
            table.writerows([name, *(f"{value:.3f}" for value in values)] for name, values in measure(one).items())
