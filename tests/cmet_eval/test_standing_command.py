"""Tests `cmet-eval standing` by the real command: it adds runs, builds the site, and refuses with one line."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from cmet_leaderboards.results import write_results
from tests.leaderboards.test_board import record, rows
from tests.leaderboards.test_site import drawn, files

ROWS = Path(__file__).parents[2] / "leaderboards" / "results"


def standing(*words: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cmet_eval.cli", "standing", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=170, check=False)


def run_with(folder: Path, level: float, revision: str) -> Path:
    """The result rows of a reference model and of a floor, in the folder of a run with the card of an evaluator."""
    write_results(rows("cmet", level, drawn, revision=revision, origin="drawn"), folder / "results", record("cmet"))
    write_results(rows("weak", 1, drawn, origin="drawn"), folder / "results", record("source-video", "floor"))
    cards = folder / "shards" / "evaluators"
    cards.mkdir(parents=True)
    card = {
        "sha256": "e" * 64,
        "held_out": {"accuracy": 0.5, "said": {}},
        "trained_on": {"kind": "emotion", "clips": []},
    }
    (cards / "corpus_emotion.json").write_text(json.dumps(card))
    return folder


def test_two_seeds_are_added_and_the_site_is_the_same_when_built_again(tmp_path: Path) -> None:
    place = ("--results", tmp_path / "rows", "--out", tmp_path / "site")
    for seed, level in enumerate((3, 5)):
        run = run_with(tmp_path / f"run{seed}", level, f"r{seed}")
        done = standing(*place, "--add", run, "--training-seed", str(seed))
        assert done.returncode == 0, done.stderr
        assert "2 records of 1 boards" in done.stdout and done.stdout.rstrip().endswith("site/index.html")
    stored = {path.name: json.loads(path.read_text()) for path in (tmp_path / "rows").rglob("*.json")}
    assert [stored[f"cmet@r{seed}.json"]["method"]["training_seeds"] for seed in (0, 1)] == [[0], [1]]
    assert stored["weak@1.json"]["method"]["training_seeds"] == [1]  # not in the catalogue, so perhaps trained
    assert {"numpy", "python", "cmet-eval"} <= stored["cmet@r0.json"]["environment"].keys()
    (card,) = stored["board.json"]["evaluators"]
    assert card == {"kind": "emotion", "sha256": "e" * 64, "held_out_accuracy": 0.5}
    before = files(tmp_path / "site")
    assert "mean over 2 training seeds (0, 1)" in before["methods/cmet.html"].decode()
    assert standing(*place).returncode == 0 and files(tmp_path / "site") == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--add", "RUN", "--training-seed", "0"], "cmet with the training seed 0 is there already as revision r0"),
        (["--add", "RUN", "--gallery", "1"], "origin"),
        (["--add", "RUN", "--gallery", "1", "--videos", "cmet=nowhere"], "no folder nowhere"),
        (["--gallery", "1"], "--gallery is not an option of `cmet-eval standing` without `--add`; leave it out"),
        (["--results", "nowhere"], "no folder nowhere; give the rows with --results, or add a run with --add RUN"),
    ],
)
def test_it_refuses_with_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    place = ("--results", tmp_path / "rows", "--out", tmp_path / "site")
    if "RUN" in words:
        first = standing(*place, "--add", run_with(tmp_path / "a", 3, "r0"), "--training-seed", "0")
        assert first.returncode == 0, first.stderr
    run = tmp_path / "b"
    if message == "origin":
        message = "are unknown, so its videos are not stored; leave out --gallery"
        write_results(rows("cmet", 3, data_digest="e" * 64), run / "results", record("cmet"))
    elif "RUN" in words:
        run_with(run, 5, "r1")
    before = files(tmp_path / "rows")
    done = standing(*place, *(run if word == "RUN" else word for word in words))
    assert done.returncode == 2 and message in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert files(tmp_path / "rows") == before


@pytest.mark.skipif(not ROWS.is_dir(), reason="no committed rows")
def test_the_committed_rows_are_whole_and_give_the_same_site_twice(tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = standing("--out", tmp_path / name)
        assert done.returncode == 0, done.stderr
    one, two = files(tmp_path / "one"), files(tmp_path / "two")
    assert one == two and "index.html" in one
    assert sum(path.stat().st_size for path in ROWS.rglob("*") if path.is_file()) < 4_000_000
