"""Honest bundles pass and have the same bytes; what `submit` needs; the sample; the workflow of pull requests."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from cmet_eval.bundles.sample import sample_of
from cmet_eval.protocol.pair_files import read_pairs
from tests.cmet_eval.bundles.forging import Run, swap_video


def test_honest_bundles_pass_and_have_the_same_bytes(done: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    for method in ("mine", "static-reference", "source-video@1"):
        for name in ("a.zip", "b.zip", "folder"):
            status, out, _ = run("submit", done, "--method", method, "--out", tmp_path / method / name)
            assert status == 0 and "check it" in out
        assert (tmp_path / method / "a.zip").read_bytes() == (tmp_path / method / "b.zip").read_bytes()
        for name in ("a.zip", "folder"):
            words = ("verify", tmp_path / method / name, "--data", shards, "--workers", "0", "--quiet")
            status, out, err = run(*words)
            assert (status, err) == (0, "") and "1 of 12 videos, chosen by the digest" in out and "to the bit" in out
    words = ("verify", tmp_path / "mine" / "a.zip", "--data", shards, "--workers", "0", "--quiet")
    status, out, _ = run(*words, "--videos", done / "videos", "--share", "0.5", "--seed", "7")
    assert status == 0 and "6 of 12 videos, drawn with seed 7" in out
    assert "no video was scored again" in run("verify", tmp_path / "mine" / "a.zip")[1]


def test_the_sample_follows_from_the_pair_list_alone(done: Path) -> None:
    pairs = read_pairs(done / "pairs" / "neutral-base.parquet")
    many = replace(pairs, pairs=tuple(replace(pairs.pairs[0], pair_id=f"a/{i}") for i in range(240)))
    ids = [pair.pair_id for pair in many.pairs]
    chosen = sample_of(many, ids)
    assert len(chosen) == 12 and chosen == sample_of(many, set(reversed(ids)))
    assert set(chosen) != set(sample_of(replace(many, pairs=many.pairs[:-1]), ids[:-1]))
    without = sample_of(many, [pair for pair in ids if pair != chosen[0]])
    assert len(without) == 12 and set(chosen[1:]) < set(without)
    # Every pair is chosen equally often: over many lists, the counts are those of draws at random.
    counts = np.zeros(240)
    for n in range(100):
        other = replace(many, pairs=tuple(replace(pair, seed=n) for pair in many.pairs))
        counts[[ids.index(pair) for pair in sample_of(other, ids)]] += 1
    assert counts.mean() == 5 and 0.7 < counts.var() / (5 * 0.95) < 1.4


def test_what_submit_needs_is_named(done: Path, tmp_path: Path, run: Run) -> None:
    out = ("--out", tmp_path / "x")
    for words, text in (
        ((done, *out), "name one of mine@1, source-video@1, static-reference@1 with --method"),
        ((done, "--method", "min", *out), "--method min fits 0 methods"),
        ((done, "--method", "mine", "--out", tmp_path), "exists; name another --out"),
        ((done, "--method", "mine", "--videos", tmp_path, *out), "name the folder of the scored videos with --videos"),
        ((done / "results", "--method", "mine", "--pairs", "no.parquet", *out), "no file no.parquet"),
    ):
        status, _, err = run("submit", *words)
        assert status == 2 and text in err and err.count("\n") == 1, err
    status, _, err = run("verify", tmp_path / "nothing")
    assert status == 2 and "no folder" in err
    status, _, err = run("verify", done, "--run", done)
    assert status == 2 and "--run is not an option of `cmet-eval verify BUNDLE`" in err


def test_a_score_that_was_left_out_is_not_a_difference(done: Path, shards: Path, tmp_path: Path, run: Run) -> None:
    """Rows with the reason `trained-on` have a score when the video alone is scored again."""
    from cmet_leaderboards.results import write_results
    from cmet_leaderboards.row import ResultRow

    for part in ("videos", "pairs"):
        shutil.copytree(done / part, tmp_path / part)
    path = next((done / "results").rglob("static-reference*"))
    rows = [{**row, "value": None, "reason": "trained-on"} for row in pq.read_table(path).to_pylist()]
    write_results(map(ResultRow.of, rows), tmp_path / "results", {})
    status, out, _ = run("verify", "--run", tmp_path, "--data", shards, "--workers", "0", "--quiet")
    assert status == 0 and "all agree" in out


def test_the_workflow_checks_the_bundles_that_are_new(bundle: Path, tmp_path: Path) -> None:
    script = Path(__file__).parents[3] / ".ci" / "bundles"
    for place in ("suite", "proposed"):
        (tmp_path / place / "leaderboards/submissions").mkdir(parents=True)
        shutil.copytree(bundle, tmp_path / place / "leaderboards/submissions/old")
    new = shutil.copytree(bundle, tmp_path / "proposed/leaderboards/submissions/new")
    (new.parent / "link").symlink_to(new)

    def check() -> tuple[int, str]:
        words = [str(script), str(tmp_path / "suite"), str(tmp_path / "proposed")]
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        done = subprocess.run(words, capture_output=True, text=True, env={**os.environ, "PATH": path})
        return done.returncode, done.stdout + done.stderr

    status, text = check()
    assert status == 1 and "submissions/link is refused, link: " in text and "submissions/new is" not in text
    assert "submissions/new" in text and "submissions/old" not in text
    (new.parent / "link").unlink()
    assert check()[0] == 0
    swap_video(new)
    swap_video(new.parent / "old")  # a bundle of the board that the request changes
    status, text = check()
    assert status == 1 and text.count("is refused, swapped-video: ") == 2
    shutil.rmtree(new.parent)
    new.parent.symlink_to(tmp_path / "suite/leaderboards/submissions")
    assert check() == (1, "leaderboards/submissions is a link\n")
