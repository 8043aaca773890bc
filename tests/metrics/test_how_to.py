"""The examples of docs/how_to/add_a_metric.md, as a reader runs them: by the command, and inside the package."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

import cmet_metrics
from cmet_metrics import registry
from cmet_metrics.base import DEFAULT_FILES, Sample
from cmet_metrics.record import arguments_of
from talking_face.media.writing import write_video

REPOSITORY = Path(__file__).resolve().parents[2]
PAGE = REPOSITORY / "docs" / "how_to" / "add_a_metric.md"


def examples() -> tuple[str, str]:
    first, second = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    return first, second


def command(folder: Path, *arguments: str) -> str:
    """Output of `cmet-eval`, started in the folder of the user's file as a console script is."""
    run = [str(Path(sys.executable).with_name("cmet-eval")), *arguments]
    done = subprocess.run(run, capture_output=True, text=True, cwd=folder)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_users_own_metric_by_the_command(tiny_shards: Path, tmp_path: Path) -> None:
    """Run with a worker's child process, then the board and a calibration."""
    (tmp_path / "brightness.py").write_text(examples()[0])
    own = "brightness:Brightness"
    chosen = ["--metrics", own, "--metrics", "psnr,frames=min", "--data", str(tiny_shards), "--quiet"]
    methods = ["--method", "ground-truth", "--method", "static-reference"]
    command(tmp_path, "run", *methods, *chosen, "--setting", "neutral-base", "--workers", "1", "--out", "out")
    rows = [row for path in (tmp_path / "out" / "results").rglob("*.parquet") for row in pq.read_table(path).to_pylist()]
    mine = [row for row in rows if row["metric"] == own]
    assert len(mine) == len(rows) / 2 > 0
    assert all(row["value"] is not None and row["unit"] == "levels" and not row["higher_is_better"] for row in mine)
    assert {row["signature"] for row in mine} == {
        "brightness|variant:brightness.Brightness|colour:rgb|range:255|agg:video-mean|version:1.0.0"
    }
    assert {row["metric"] for row in rows} == {own, "psnr:frame-mean,frames=min"}
    command(tmp_path, "leaderboard", "--results", "out/results", "--out", "out/leaderboard")
    board = (tmp_path / "out" / "leaderboard" / "board.md").read_text()
    assert "Brightness (Brightness, levels" in board and "PSNR (frame-mean" in board


def test_a_file_in_the_package_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "level.py").write_text(examples()[1])
    monkeypatch.setattr(cmet_metrics, "__path__", [*cmet_metrics.__path__, str(tmp_path)])
    importlib.invalidate_caches()
    try:
        again = importlib.reload(registry)
        assert [key for key in again.KEYS if key.startswith("level")] == ["level:mean", "level:median"]
        metric = again.get_metric("level:median,channel=red", DEFAULT_FILES)
        assert metric.key == "level:median,channel=red" and again.get_metric("level").key == "level:mean"
        assert arguments_of(type(metric), "level:median") == {"statistic": "median", "channel": "all"}
        assert str(metric.signature()) == (
            "level|variant:median|statistic:median|channel:red|agg:video-mean|version:1.0.0"
        )
        clip = np.zeros((3, 8, 8, 3), np.uint8)
        assert metric.score(Sample(clip + np.uint8(4)), Sample(clip)).value == 4
    finally:
        monkeypatch.undo()
        sys.modules.pop("cmet_metrics.level", None)
        importlib.reload(registry)
