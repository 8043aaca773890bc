"""Kills `run` with an outside method a few times; `python -m tests.hostile.kills` does so for all commands."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.hostile.kills import Stage, tries_of


def test_a_killed_run_with_an_outside_method_leaves_nothing_and_a_second_run_repairs_it(
    shards: Path, tmp_path: Path
) -> None:
    stage = Stage(tmp_path / "stage")
    stage.folder.mkdir()
    shutil.copytree(shards, stage.shards)
    stage.write_methods()
    kind = next(kind for kind in stage.kinds() if kind.name == "run, command")
    tally = tries_of(stage, kind, 3, 1, tmp_path)
    assert tally.tried == 3 and tally.clean, "\n".join(tally.examples)
