"""Commands, the Python interface and `accelerate launch` work next to foreign packages named `metrics`, `pipelines` ...

A research repository often has packages of these names. Here each of them raises an error when it is imported.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from talking_face.media import write_video

FOREIGN = ("metrics", "pipelines", "baselines", "leaderboards", "utils", "models", "datasets")
CLI = ("-m", "cmet_eval.cli")

INTERFACE = """
import numpy as np
from cmet_metrics.psnr import psnr
from cmet_metrics.registry import get_metric
from cmet_baselines.registry import catalogue
from cmet_pipelines.shards import ShardSet
from cmet_leaderboards.results import read_results
a = np.zeros((2, 32, 32, 3), np.uint8)
assert psnr(a, a + 1).min() > 40
print(get_metric("psnr").signature())
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A foreign repository."""
    folder = tmp_path_factory.mktemp("repository")
    for name in FOREIGN:
        (folder / name).mkdir()
        (folder / name / "__init__.py").write_text(f"raise RuntimeError('the foreign {name} was imported')\n")
    return folder


def run(repository: Path, command: Sequence[str], path: str = ".") -> subprocess.CompletedProcess[str]:
    """Runs a Python command line in the repository, with `path` as PYTHONPATH."""
    environment = os.environ | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, *command], cwd=repository, env=environment, capture_output=True, text=True)
    assert "was imported" not in done.stdout + done.stderr, done.stderr[-2000:]
    return done


def test_commands(repository: Path) -> None:
    shown = run(repository, [*CLI, "--help"])
    assert shown.returncode == 0 and "leaderboard" in shown.stdout, shown.stderr
    listed = run(repository, [*CLI, "baselines", "list"])
    assert listed.returncode == 0 and "static-reference" in listed.stdout, listed.stderr
    missing = run(repository, [*CLI, "score", "--videos", ".", "--pairs", "p.csv", "--data", ".", "--method-name", "a"])
    assert missing.returncode == 2 and "holds no shards" in missing.stderr, missing.stderr


def test_preprocess_in_worker_processes(repository: Path) -> None:
    """A clip without a face: the workers and their children import what they need, and find no face."""
    write_video(
        repository / "data" / "grey.mp4", np.full((10, 96, 96, 3), 90, np.uint8), audio=np.zeros(6400, np.int16)
    )
    (repository / "data" / "labels.csv").write_text("file,speaker,emotion\ngrey.mp4,A,happy\n")
    done = run(repository, [*CLI, "preprocess", "clips", "data", "shards", "--workers", "1", "--quiet"])
    assert done.returncode == 1, done.stderr
    assert pq.read_table(repository / "shards" / "ledger.parquet")["reason"].to_pylist()[0] == "no-face"


@pytest.mark.parametrize("absolute", [True, False])
def test_python_interface(repository: Path, absolute: bool) -> None:
    done = run(repository, ["-c", INTERFACE], str(repository) if absolute else ".")
    assert done.returncode == 0 and done.stdout.startswith("psnr|"), done.stderr


def test_accelerate_launch(repository: Path) -> None:
    """The entry of a training on several processes, as far as its shard set, which is absent."""
    pytest.importorskip("accelerate", reason="accelerate is not installed: no training is launched")
    launch = ["-m", "accelerate.commands.launch", "--cpu", "--num_processes", "1", *CLI]
    done = run(repository, [*launch, "train", "cmet", "--data", "absent-shards"])
    assert done.returncode != 0 and "absent-shards" in done.stderr, done.stderr
