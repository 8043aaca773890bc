"""AITV: reading is counted separately from the method, and the first video of a process from the others."""

from __future__ import annotations

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmet_eval.measuring.score_records import write_record
from cmet_eval.protocol.draw import Draw
from cmet_eval.runs import evaluate
from cmet_eval.runs import generate as generation
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.records import GenerationRecord, Timing
from cmet_eval.runs.timing import Stopwatch, hardware, summarize
from talking_face.execution.options import RunOptions


def test_reading_is_counted_separately() -> None:
    def slow() -> np.ndarray:
        time.sleep(0.05)
        return np.zeros(3)

    with Stopwatch() as watch:
        load = watch.reads(slow)
        assert len(load()) == len(load()) == 3
        time.sleep(0.02)
    assert 0.1 <= watch.reading < watch.seconds and watch.seconds - watch.reading >= 0.02


def test_a_run_times_its_methods_and_names_the_hardware(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(generation, "warm_methods", set())
    keys: dict[str, Any] = {"data": shards, "draw": Draw(4, seeds=1), "scoring": Scoring(["psnr"])}
    keys |= {"options": RunOptions(0, quiet=True), "out": tmp_path}
    summary = evaluate.run(["static-reference"], ["neutral-base"], **keys)
    (times,) = summary.aitv
    assert (times.method, times.setting, times.n, times.n_warm) == ("static-reference", "neutral-base", 4, 3)
    assert times.warm is not None and 0 < times.warm < 1 and times.warm_per_frame
    assert times.hardware == hardware() and "cores" in times.hardware and times.hardware in str(summary)
    assert evaluate.run(["static-reference"], ["neutral-base"], **keys).aitv == summary.aitv


def test_machines_are_not_mixed(tmp_path: Path) -> None:
    whole = GenerationRecord("m", "1", 10, "key", "p", "h264", 10, "0" * 64)
    for i, (machine, seconds) in enumerate((("a", 2.0), ("a", 4.0), ("b", 50.0))):
        timing = Timing(seconds, reading=1.0, warm=i > 0, hardware=machine, workers=1)
        write_record(tmp_path / "m" / "s" / f"{i}.json", replace(whole, timing=timing))
    write_record(tmp_path / "m" / "s" / "without.json", whole)
    a, b = summarize(tmp_path)
    assert (a.hardware, a.n, a.cmet, a.n_warm, a.warm, a.warm_per_frame) == ("a", 2, 3.0, 1, 3.0, 0.3)
    assert (b.hardware, b.n, b.cmet, b.warm_median) == ("b", 1, 50.0, 49.0)
