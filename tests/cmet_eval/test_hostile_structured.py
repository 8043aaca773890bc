"""A part of `python -m tests.hostile.structured`: damaged files of the kinds that need no training and no run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_damaged_files_of_users_end_in_one_line() -> None:
    command = [sys.executable, "-m", "tests.hostile.structured", "--kind", "small", "--tries", "60", "--seed", "3"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "\nall" in done.stdout
