"""Tests recipes in runs: result rows, resume, clips of the training data, and the command `baselines setup`."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from cmet_eval.protocol.draw import Draw, draw_pairs
from cmet_eval.protocol.setting import get_setting
from cmet_eval.runs.evaluate import RunSummary, run
from cmet_eval.runs.leakage import refuse_training_data
from cmet_eval.runs.metrics import Scoring
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.reasons import ClipError, Reason
from tests.recipe_stand_in import World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "world")


def run_two_pairs(worlds: Sequence[World], shards: Path, out: Path) -> RunSummary:
    return run(
        [str(world.entry_path) for world in worlds],
        ["cross-emotion"],
        data=shards,
        out=out,
        draw=Draw(seeds=1, max_pairs=2),
        scoring=Scoring(("psnr:frame-mean",)),
        options=RunOptions(workers=0, quiet=True),
    )


def test_run_gives_rows_and_resumes(
    world: World, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.get_ready()
    monkeypatch.setenv("CMET_EVAL_BASELINES", str(world.files.baselines))
    made = [run_two_pairs([world], shards, tmp_path / "out") for _ in range(2)]
    assert (made[0].generated, made[1].generated) == (2, 0) and not made[0].lost


def test_one_recipe_at_a_time_has_its_models_in_memory(
    tmp_path: Path, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worlds = [World(tmp_path / name, name) for name in ("one", "two")]
    for world in worlds:
        world.get_ready()
        monkeypatch.setenv("CMET_EVAL_BASELINES", str(world.files.baselines))
    shutil.copytree(worlds[0].files.baselines / "one", worlds[1].files.baselines / "one")  # type: ignore[operator]
    run_two_pairs(worlds, shards, tmp_path / "out")
    pids = {}
    for path in sorted((tmp_path / "out" / "records").rglob("*.json")):
        (note,) = [note for note in json.loads(path.read_text())["notes"] if "pid" in note]
        pids.setdefault(path.parents[1].name, set()).add(int(note.rpartition("pid ")[2]))
    assert sorted(pids) == ["one", "two"] and all(len(found) == 1 for found in pids.values())
    (ended,), (kept,) = pids["one"], pids["two"]
    assert Path(f"/proc/{kept}").exists() and not Path(f"/proc/{ended}").exists()


def test_clips_of_the_training_data_are_refused(world: World, shards: Path) -> None:
    world.get_ready()
    method, data = world.method(), ShardSet(shards)
    pair = draw_pairs(data.clips, get_setting("neutral-base"), Draw(seeds=1)).pairs[0]
    (elsewhere,) = method.datasets
    refuse_training_data(method, pair, data)
    method.datasets = (elsewhere.model_copy(update={"dataset": "clips"}),)
    held_out_are = "its held-out speakers are M003"
    with pytest.raises(ClipError, match=rf"talker was trained on clips, so on clips/.*; {held_out_are}") as caught:
        refuse_training_data(method, pair, data)
    assert caught.value.reason is Reason.TRAINED_ON
    held_out = method.datasets[0].model_copy(update={"held_out": (pair.speaker,)})
    for allowed in ((), (held_out,), (elsewhere,)):
        method.datasets = allowed
        refuse_training_data(method, pair, data)


def test_the_command_sets_up_checks_and_refuses(world: World, shards: Path, tmp_path: Path) -> None:
    def cli(*words: object, command: tuple[str, ...] = ("baselines", "setup")) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "cmet_eval.cli", *command, *map(str, words)]
        environ = {**os.environ, "CMET_EVAL_BASELINES": str(world.files.baselines)}
        return subprocess.run(line, env=environ, capture_output=True, text=True, check=False)

    absent = cli(world.entry_path, "--check")
    assert absent.returncode == 1 and absent.stdout.count("\n") == 4, absent
    refused = cli("static-reference")
    assert refused.returncode == 2 and "has no recipe; the methods with a recipe: " in refused.stderr
    assert refused.stderr.count("\n") == 1
    out = tmp_path / "out"
    unready = cli("--method", world.entry_path, "--data", shards, "--out", out, command=("run",))
    assert unready.returncode == 2 and unready.stderr.count("\n") == 1 and not out.exists(), unready
    assert f"talker is not set up; run `cmet-eval baselines setup {world.entry_path}`" in unready.stderr
    world.get_ready()
    present = cli(world.entry_path, "--check")
    assert (present.returncode, present.stdout) == (0, "talker is ready\n")
