"""Boards from a million result rows: seconds and memory, each in a process of its own.

    python -m tests.benchmarks.test_bench_board FOLDER [--shape long|wide] [--build]

writes the rows of a shape below FOLDER and, with --build, builds their board. Both shapes have 1 pair in 50 without
values, a pooled metric and a metric with predictions:

    long: 4 settings x 12 methods x 19 metrics x 1,143 pairs = 1,042,416 rows, 16 speakers
    wide: 1 setting x 40 methods x 20 metrics x 1,250 pairs = 1,000,000 rows, 25 speakers

In a plain test run: 3 methods and 16 pairs.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.results import write_results
from cmet_leaderboards.row import ResultRow
from cmet_metrics.base import Metric
from cmet_metrics.registry import get_metric
from talking_face.emotions import EMOTIONS
from talking_face.signature import digest

ALL_SETTINGS = ("cross-emotion", "neutral-base", "reconstruction", "extended")
ALL_METRICS = (
    *("psnr:frame-mean", "psnr:pooled", "psnr:lower-half", "ssim:wang2004", "ssim:y", "m_lmd:eat", "m_lmd:eat-mp"),
    *("m_lmd:native-mp", "f_lmd:eat", "f_lmd:eat-mp", "f_lmd:native-mp", "csim:dlib", "csim:dlib-ref", "ea:fer"),
    *("emotion_leak:fer", "jitter:output", "jitter:ratio", "lip_energy:correlation", "registration:shift"),
    "psnr:mouth",
)
GIB = 1.0  # limit of memory of a board with a million rows


@dataclass(frozen=True)
class Shape:
    """How many rows there are. The settings and metrics are the first of ALL_SETTINGS and ALL_METRICS."""

    settings: int
    methods: int
    metrics: int
    pairs: int
    speakers: int


SHAPES = {"long": Shape(4, 12, 19, 1143, 16), "wide": Shape(1, 40, 20, 1250, 25)}


def make_rows(setting: str, method: int, shape: Shape) -> Iterator[ResultRow]:
    """Rows of one method in one setting; 1 in 50 pairs has a reason in place of its values."""
    rng = np.random.default_rng([ALL_SETTINGS.index(setting), method])
    metrics = [_facts(get_metric(key)) for key in ALL_METRICS[: shape.metrics]]
    same = {
        **{"setting": setting, "method": f"method-{method:02d}", "revision": "1", "codec": "h264-yuv420p", "n": 75},
        **{"data_digest": "d" * 64, "data_signature": "shards|v:1", "pairs_digest": digest(setting), "rules": "r" * 8},
        **{"profile": "embedded", "suite_version": "0.1.0", "detail": "", "notes": "", "intensity": 3},
        "dataset": "mead",
    }
    for i in range(shape.pairs):
        speaker, target = f"S{i % shape.speakers:02d}", EMOTIONS[i // shape.speakers % 8]
        crossed = EMOTIONS[(i // shape.speakers + 1 + i // 128 % 7) % 8]
        reference = crossed if setting == "cross-emotion" else "neutral"
        lost = rng.random() < 0.02
        pair = {
            **same,
            **{"pair_id": f"{setting}/{speaker}/{reference}>{target}/s0/{i:05d}", "speaker": speaker, "seed": i % 5},
            **{"reference_emotion": reference, "target_emotion": target, "ground_truth_clip": f"{speaker}/{i:05d}"},
            "video_sha256": digest([setting, method, i], 64),
        }
        for facts in metrics:
            value = float(method / 10 + (i % shape.speakers) / 20 + rng.normal())
            stats = {} if lost else _stats(str(facts["metric"]), value, target, (i, method, 3))
            score = {"value": None if lost else value, "reason": "no-face" if lost else None, "stats": stats}
            yield ResultRow.of({**pair, **facts, **score})


def _facts(metric: Metric) -> dict[str, object]:
    return {
        **{"metric": metric.key, "signature": str(metric.signature()), "unit": metric.unit},
        **{"higher_is_better": metric.higher_is_better, "ideal": metric.ideal},
    }


def _stats(metric: str, value: float, target: str, predicted: tuple[int, ...]) -> dict[str, float]:
    if metric == "psnr:pooled":
        return {"squared_error": abs(value) * 1e6, "elements": 75 * 256 * 256 * 3.0}
    if metric.startswith("ea:"):
        return {f"{target}>{EMOTIONS[k % 8]}": 1 / 3 for k in predicted}
    return {"frames": 75.0, "first": value, "second": 2 * value}


def write(folder: Path, shape: Shape) -> None:
    """The result files of all methods and settings."""
    for setting in ALL_SETTINGS[: shape.settings]:
        for method in range(shape.methods):
            about = {
                "method": {
                    "title": f"Method {method}",
                    "role": ("ceiling", "floor")[method] if method < 2 else "method",
                },
                "setting": {"title": setting},
                "command": f"cmet-eval run --method method-{method:02d}",
            }
            write_results(make_rows(setting, method, shape), folder, about)


def build_here(folder: Path) -> dict[str, float]:
    """Build the board of FOLDER/results in this process; seconds by the wall, seconds of processor time, the process's
    largest resident size in GiB, and the machine's load over the last minute."""
    started, used = time.perf_counter(), time.process_time()
    build(folder / "results", folder / "board")
    seconds, cpu = time.perf_counter() - started, time.process_time() - used
    gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return {"seconds": seconds, "cpu_seconds": cpu, "gib": gib, "load": os.getloadavg()[0]}


def build_apart(folder: Path) -> dict[str, float]:
    """As `build_here` in a fresh process: its memory is its own."""
    command = [sys.executable, "-m", "tests.benchmarks.test_bench_board", str(folder), "--only-build"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


@pytest.mark.parametrize("name", SHAPES)
def test_a_board_from_many_rows(name: str, benchmark: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    full = bool(request.config.getoption("--benchmark-enable"))
    write(tmp_path / "results", SHAPES[name] if full else replace(SHAPES[name], methods=3, pairs=16, speakers=4))
    found = benchmark.pedantic(build_apart, args=(tmp_path,), rounds=1)
    benchmark.extra_info.update(found)
    if full:
        assert found["gib"] < GIB, found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="long")
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--only-build", action="store_true")
    args = parser.parse_args()
    if not args.only_build:
        write(args.folder / "results", SHAPES[args.shape])
    if args.build or args.only_build:
        print(json.dumps(build_here(args.folder)))
