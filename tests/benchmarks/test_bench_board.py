"""A board from a million result rows: seconds and memory, in a process of its own.

    python -m tests.benchmarks.test_bench_board FOLDER [--pairs 1143] [--build]

writes the rows below FOLDER (12 methods, 16 speakers, 19 metrics of which some pool and one has a confusion, four
settings: 1,042,416 rows with the default pairs) and, with --build, builds their board. In a plain test
run: 16 pairs, 3 methods.
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
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cmet_leaderboards.board import build
from cmet_leaderboards.results import write_results
from cmet_leaderboards.row import ResultRow
from cmet_metrics.registry import get_metric
from talking_face.emotions import EMOTIONS
from talking_face.signature import digest

SETTINGS = ("neutral-base", "cross-emotion", "reconstruction", "extended")
METHODS = 12
SPEAKERS = 16
METRICS = (
    *("psnr:frame-mean", "psnr:pooled", "psnr:lower-half", "ssim:wang2004", "ssim:y", "m_lmd:eat", "m_lmd:eat-mp"),
    *("m_lmd:native-mp", "f_lmd:eat", "f_lmd:eat-mp", "f_lmd:native-mp", "csim:dlib", "csim:dlib-ref", "ea:fer"),
    *("emotion_leak:fer", "jitter:output", "jitter:ratio", "lip_energy:correlation", "registration:shift"),
)


def make_rows(setting: str, method: int, n_pairs: int) -> Iterator[ResultRow]:
    """Rows of one method in one setting; 1 in 50 pairs has a reason in place of its values."""
    rng = np.random.default_rng([SETTINGS.index(setting), method])
    name = f"method-{method:02d}"
    metrics = [get_metric(key) for key in METRICS]
    same = {
        **{"setting": setting, "method": name, "revision": "1", "codec": "h264-yuv420p", "dataset": "mead", "n": 75},
        **{"data_digest": "d" * 64, "data_signature": "shards|v:1", "pairs_digest": digest(setting), "rules": "r" * 8},
        **{"profile": "embedded", "suite_version": "0.1.0", "detail": "", "notes": "", "intensity": 3},
    }
    for i in range(n_pairs):
        speaker, target = f"S{i % SPEAKERS:02d}", EMOTIONS[i // SPEAKERS % 8]
        reference = "neutral" if setting != "cross-emotion" else EMOTIONS[(i // SPEAKERS + 1 + i // 128 % 7) % 8]
        lost = rng.random() < 0.02
        pair = {
            **same,
            **{"pair_id": f"{setting}/{speaker}/{reference}>{target}/s0/{i:05d}", "speaker": speaker, "seed": i % 5},
            **{"reference_emotion": reference, "target_emotion": target, "ground_truth_clip": f"{speaker}/{i:05d}"},
            "video_sha256": digest([setting, method, i], 64),
        }
        for metric in metrics:
            value = float(method / 10 + (i % SPEAKERS) / 20 + rng.normal())
            stats: dict[str, float] = {"frames": 75.0, "first": value, "second": 2 * value}
            if metric.key == "psnr:pooled":
                stats = {"squared_error": abs(value) * 1e6, "elements": 75 * 256 * 256 * 3.0}
            if metric.name == "ea":
                stats = {f"{target}>{EMOTIONS[k % 8]}": 1 / 3 for k in (i, method, 3)}
            yield ResultRow.of(
                {
                    **pair,
                    **{"metric": metric.key, "signature": str(metric.signature()), "unit": metric.unit},
                    **{
                        "higher_is_better": metric.higher_is_better,
                        "ideal": metric.ideal,
                        "value": None if lost else value,
                    },
                    **{"reason": "no-face" if lost else None, "stats": {} if lost else stats},
                }
            )


def write(folder: Path, n_pairs: int, methods: int = METHODS) -> None:
    """The result files of all methods and settings."""
    for setting in SETTINGS:
        for method in range(methods):
            about = {
                "method": {
                    "title": f"Method {method}",
                    "role": ("ceiling", "floor")[method] if method < 2 else "method",
                },
                "setting": {"title": setting},
                "command": f"cmet-eval run --method method-{method:02d}",
            }
            write_results(make_rows(setting, method, n_pairs), folder, about)


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


def test_a_board_from_many_rows(benchmark: Any, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    full = bool(request.config.getoption("--benchmark-enable"))
    write(tmp_path / "results", *((1143, METHODS) if full else (16, 3)))
    found = benchmark.pedantic(build_apart, args=(tmp_path,), rounds=1)
    benchmark.extra_info.update(found)
    if full:
        assert found["seconds"] < 20 and found["gib"] < 2, found


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--pairs", type=int, default=1143)
    parser.add_argument("--build", action="store_true")
    parser.add_argument("--only-build", action="store_true")
    args = parser.parse_args()
    if not args.only_build:
        write(args.folder / "results", args.pairs)
    if args.build or args.only_build:
        print(json.dumps(build_here(args.folder)))
