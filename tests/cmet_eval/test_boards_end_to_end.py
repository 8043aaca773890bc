"""From a method's file to the board, by the real command: a new method, methods that go wrong, and the same bytes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from cmet_leaderboards.results import read_results

METRICS = ("psnr:frame-mean", "psnr:lower-half", "ssim:wang2004")
# The whole of a new method: a script, and one TOML.
SHAKE = """
import sys, wave
import cv2, numpy as np
picture, sound, output = sys.argv[1:]
face = cv2.imread(picture)
with wave.open(sound) as file:
    frames = round(25 * file.getnframes() / file.getframerate())
video = cv2.VideoWriter(output, cv2.VideoWriter_fourcc(*"mp4v"), 25, face.shape[1::-1])
for t in range(frames):
    video.write(np.roll(face, t % 3 - 1, axis=1))
video.release()
"""
ENTRY = """
name = "{name}"
title = "{title}"
summary = "A script."
kind = "command"
revision = "1"
licence = "MIT"
sees = ["reference-frames", "driving-audio"]
[command]
command = ["{python}", "{script}", "{{reference_image}}", "{{driving_audio}}", "{{output}}"]
deadline_s = {deadline}
"""
# What else a script may do: name -> the script.
TROUBLES = {
    "wrong-rate": SHAKE.replace(", 25, face", ", 50, face"),
    "wrong-length": SHAKE.replace("range(frames)", "range(frames - 2)"),
    "empty-file": "import sys; open(sys.argv[3], 'w')",
    "no-file": "print('done')",
    "never-returns": "import time; time.sleep(600)",
}


def command(*words: object, hash_seed: int = 0, code: int = 0, cwd: Path | None = None) -> str:
    """What the command prints, once it has ended with `code`."""
    line = [sys.executable, "-m", "cmet_eval.cli", *map(str, words)]
    environment = {**os.environ, "PYTHONHASHSEED": str(hash_seed)}
    done = subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == code, done.stdout + done.stderr
    return done.stdout


def options(name: str, values: Sequence[object]) -> list[object]:
    return [word for value in values for word in (name, value)]


def method(folder: Path, name: str, script: str, deadline: float = 60) -> Path:
    """The TOML of a script as a method."""
    (folder / f"{name}.py").write_text(script)
    path = folder / f"{name}.toml"
    path.write_text(
        ENTRY.format(
            name=name, title=name.title(), python=sys.executable, script=folder / f"{name}.py", deadline=deadline
        )
    )
    return path


def board(out: Path) -> dict[str, Any]:
    """The single table of a board's JSON."""
    (table,) = json.loads((out / "board.json").read_text())["tables"]
    return dict(table)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of four pairs by two of our methods, the new one, and those that go wrong."""
    folder = tmp_path_factory.mktemp("boards")
    mine = [method(folder, "shake", SHAKE)]
    mine += [method(folder, n, script, 1 if n == "never-returns" else 60) for n, script in TROUBLES.items()]
    command(
        *("run", "--setting", "neutral-base", "--max-pairs", 4, "--seeds", 1, "--data", shards, "--out", folder),
        *options("--method", ["ground-truth", "static-reference", *mine]),
        *options("--metrics", METRICS),
        "--quiet",
        code=1,  # some scores are missing
    )
    for i in (1, 2):
        command("leaderboard", "--run", folder / "results", "--out", folder / f"board-{i}", hash_seed=i)
    return folder


def test_the_board_is_the_same_to_the_byte(run: Path) -> None:
    one, two = ({p.name: p.read_bytes() for p in (run / f"board-{i}").rglob("*") if p.is_file()} for i in (1, 2))
    assert one == two and len(one) == 12 + len([*(run / "board-1" / "videos").iterdir()])


def test_a_new_method_is_on_the_board_with_every_metric(run: Path) -> None:
    table = board(run / "board-1")
    (shake,) = (row for row in table["methods"] if row["method"] == "shake")
    assert [column["metric"] for column in table["columns"]] == list(METRICS) and shake["title"] == "Shake"
    for cell in shake["cells"]:
        assert cell["scored"] == cell["expected"] == cell["n"] == 4 and cell["compared"] and cell["rank"]
    assert "shake.toml" in shake["command"]
    page = (run / "board-1" / "index.html").read_text()
    assert len(re.findall('<tr class="method" data-method="Shake"', page)) == 1


def test_what_goes_wrong_ends_as_rows_with_reasons_and_the_others_go_on(run: Path) -> None:
    frame = read_results(run / "results").frame()
    assert (frame.groupby("method").size() == 4 * len(METRICS)).all() and frame["method"].nunique() == 8
    reasons = frame.groupby("method")["reason"].agg(lambda column: set(column.dropna()))
    assert reasons.to_dict() == {
        **{"ground-truth": set(), "static-reference": set(), "shake": set()},
        **{"wrong-rate": {"length-mismatch"}, "wrong-length": {"length-mismatch"}},
        **{"empty-file": {"empty-file"}, "no-file": {"missing-output"}, "never-returns": {"deadline"}},
    }
    notes = frame[frame["method"] == "wrong-rate"]["notes"]
    assert notes.str.contains("nearest frame, from 50 to 25 frames/s").all()
    table = board(run / "board-1")
    missing = {(loss["method"], loss["reason"]): loss for loss in table["missing"]}
    assert len(missing) == 5 and all(loss["pairs"] == 4 for loss in missing.values())
    assert "took over 1 s" in missing["Never-Returns", "deadline"]["example"]
    assert ": 10 frames against 12; frames:exact" in missing["Wrong-Length", "length-mismatch"]["example"]
    for row in table["methods"]:
        lost = row["method"] in TROUBLES
        assert all(cell["compared"] != lost and cell["scored"] == (0 if lost else 4) for cell in row["cells"])


def test_a_method_that_fails_on_one_pair_of_twenty_is_compared_on_the_others(shards: Path, tmp_path: Path) -> None:
    (tmp_path / "flaky.py").write_text(
        "import numpy as np\n"
        "class Flaky:\n"
        "    name, revision, sees = 'flaky', '1', {'reference-frames'}\n"
        "    def generate(self, case):\n"
        "        if case.pair_id.startswith('cross-emotion/C/neutral>sad/'): raise RuntimeError('no face in crop')\n"
        "        return np.repeat(case.reference_frames[:1] // 9, case.n_frames, 0)\n"
    )
    command(
        *("run", "--setting", "cross-emotion", "--max-pairs", 20, "--seeds", 1, "--data", shards, "--out", "o"),
        *options("--method", ["static-reference", "flaky:Flaky"]),
        *("--metrics", METRICS[0], "--quiet"),
        code=1,
        cwd=tmp_path,
    )
    command("leaderboard", "--run", tmp_path / "o/results", "--out", tmp_path / "board", "--gallery", 0)
    table = board(tmp_path / "board")
    cells = {row["method"]: row["cells"][0] for row in table["methods"]}
    assert [(c["scored"], c["expected"], c["n"]) for c in (cells["flaky"], cells["static-reference"])] == [
        *[(19, 20, 19), (20, 20, 19)]
    ]
    values = read_results(tmp_path / "o/results").frame().pivot(index="pair_id", columns="method", values="value")
    assert cells["static-reference"]["mean"] == pytest.approx(values.dropna()["static-reference"].mean(), abs=1e-9)
    assert cells["static-reference"]["mean"] != pytest.approx(values["static-reference"].mean(), abs=1e-6)
    assert table["duels"][0][0]["n"] == 19
    markdown = (tmp_path / "board" / "board.md").read_text()
    assert "(19/20)" in markdown and "(20/20 · mean of 19 common)" in markdown
    assert "no face in crop" in markdown and "method-failed" in markdown
    told = command("compare", "static-reference", "flaky", "--run", tmp_path / "o/results", "--data", shards)
    assert re.search("  19 of 20  +static-reference is better", told), told
