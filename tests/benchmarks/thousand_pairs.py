"""Scoring of a thousand pairs: is memory flat, and does a killed run go on where it was?

    python -m tests.benchmarks.thousand_pairs SHARDS OUT [--methods static-reference] [--metrics psnr:frame-mean ...]

Runs `cmet-eval run` on the whole cross-emotion setting (1,120 pairs on the embedded corpus), kills all its processes
half-way through the scoring, and runs it again. Prints for each eighth of the scored videos the largest sum of
proportional set sizes (PSS: shared pages once) of the process tree, and what the second run kept.
"""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil

METRICS = ("psnr:frame-mean", "ssim:wang2004", "m_lmd:eat-mp", "f_lmd:eat-mp")


def main() -> None:
    """Read the command line, run twice, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("shards", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--methods", nargs="+", default=["static-reference"])
    parser.add_argument("--metrics", nargs="+", default=list(METRICS))
    parser.add_argument("--kill-at", type=float, default=0.5, help="share of the scores at which the first run dies")
    args = parser.parse_args()
    command = [sys.executable, "-m", "cmet_eval.cli", "run", "--data", str(args.shards), "--out", str(args.out)]
    command += ["--setting", "cross-emotion", "--quiet"]
    command += [part for name in args.methods for part in ("--method", name)]
    command += [part for name in args.metrics for part in ("--metrics", name)]
    expected = 1120 * len(args.methods)
    first = watch(command, args.out, stop_at=int(args.kill_at * expected))
    report("first run, killed", first)
    second = watch(command, args.out, stop_at=None)
    report("second run", second)


def watch(command: list[str], out: Path, stop_at: int | None) -> list[tuple[float, int, float]]:
    """Run the command; (seconds, scores so far, MiB of the tree) every second. Kills the tree at `stop_at` scores."""
    started, seen = time.monotonic(), []
    process = subprocess.Popen(command, start_new_session=True)
    while process.poll() is None:
        time.sleep(1.0)
        scores = count(out / "scores")
        seen.append((time.monotonic() - started, scores, tree_mib(process.pid)))
        if stop_at is not None and scores >= stop_at:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            break
    if stop_at is None and process.returncode:
        raise SystemExit(f"the run ended with {process.returncode}")
    return seen


def count(folder: Path) -> int:
    """Score files that are whole."""
    return sum(name.endswith(".json") for _, _, names in os.walk(folder) for name in names)


def tree_mib(pid: int) -> float:
    """Sum of the proportional set sizes of a process and all below it, MiB."""
    total = 0
    try:
        root = psutil.Process(pid)
        for process in [root, *root.children(recursive=True)]:
            try:
                total += process.memory_full_info().pss
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total / 2**20


def report(title: str, seen: list[tuple[float, int, float]]) -> None:
    """Peak memory for each eighth of the scores that this run made."""
    scoring = [row for row in seen if row[1] > seen[0][1]]
    low, high = seen[0][1], seen[-1][1]
    print(f"{title}: {high - low} scores ({low} were there) in {seen[-1][0]:.0f} s")
    for part in range(8):
        a, b = low + (high - low) * part / 8, low + (high - low) * (part + 1) / 8
        if inside := sorted(mib for _, scores, mib in scoring if a < scores <= b):
            middle = inside[len(inside) // 2]
            print(f"  scores {a:6.0f} to {b:6.0f}: at most {inside[-1]:6.0f} MiB, median {middle:.0f}")


if __name__ == "__main__":
    main()
