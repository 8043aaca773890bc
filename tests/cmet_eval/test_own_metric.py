"""The first example of docs/how_to/add_a_metric.md: a metric of the user's own, by the commands."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cmet_eval.calibration.degradations import DEGRADATIONS
from cmet_eval.calibration.noise import claim_of
from cmet_eval.protocol.setting import get_setting
from cmet_metrics.psnr import Psnr
from cmet_metrics.registry import get_metric

PAGE = Path(__file__).resolve().parents[2] / "docs" / "how_to" / "add_a_metric.md"
OWN = "brightness:Brightness"


def example() -> str:
    first, _ = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return str(first)


def command(folder: Path, *arguments: str) -> str:
    """Output of `cmet-eval`, started in the folder of the user's file as a console script is."""
    run = [str(Path(sys.executable).with_name("cmet-eval")), *arguments]
    done = subprocess.run(run, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_users_own_metric_by_the_command(shards: Path, tmp_path: Path) -> None:
    """A run with a worker's child process, the board, and a comparison of two methods."""
    (tmp_path / "brightness.py").write_text(example())
    chosen = ["--metrics", OWN, "--metrics", "psnr,frames=min", "--data", str(shards), "--quiet"]
    methods = ["--method", "ground-truth", "--method", "static-reference"]
    command(tmp_path, "run", *methods, *chosen, "--setting", "neutral-base", "--workers", "1", "--out", "out")
    rows = [
        row for path in (tmp_path / "out" / "results").rglob("*.parquet") for row in pq.read_table(path).to_pylist()
    ]
    mine = [row for row in rows if row["metric"] == OWN]
    assert len(mine) == len(rows) / 2 > 0
    assert all(row["value"] is not None and row["unit"] == "levels" and not row["higher_is_better"] for row in mine)
    assert {row["signature"] for row in mine} == {
        "brightness|variant:brightness.Brightness|colour:rgb|range:255|agg:video-mean"
        "|rate:25-nearest|size:as-is|length:exact|start:0|version:1.0.0"
    }
    assert {row["metric"] for row in rows} == {OWN, "psnr:frame-mean,frames=min"}
    command(tmp_path, "leaderboard", "--run", "out/results", "--out", "out/leaderboard", "--metrics", OWN)
    board = (tmp_path / "out" / "leaderboard" / "board.md").read_text()
    assert "Brightness (Brightness, levels" in board and "PSNR (frame-mean" in board
    chosen = ["--run", "out/results", "--data", str(shards), "--metrics", OWN]
    assert "Brightness" in command(tmp_path, "compare", "ground-truth", "static-reference", *chosen)


def test_calibration_reads_the_claims_of_the_users_own_metric(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "brightness.py").write_text(example())
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    metric = get_metric(OWN)
    claims = {how.name: claim_of(metric, how) for how in DEGRADATIONS}
    assert (claims["identity-swap"], claims["reencode"], claims["blur"]) == ("worse", "unchanged", "")


def test_a_record_names_further_settings_in_which_a_metric_is_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    unlike = get_setting("cmet-mead")
    assert not unlike.allows("psnr:pooled") and unlike.allows("fid:cmet-pair") and unlike.allows(OWN)
    monkeypatch.setattr(Psnr, "valid_in", frozenset({unlike.name}))
    assert unlike.allows("psnr:pooled,frames=min") and not get_setting("cmet-crema-d").allows("psnr:pooled")
