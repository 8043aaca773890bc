"""Tests which folder of a run a command reads: the named one, or the newest below `work/`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cmet_eval.run_folder import run_folder
from talking_face.reasons import UserError


def rows(folder: Path, age_s: float) -> Path:
    """A result file in `folder` that is `age_s` seconds old."""
    folder.mkdir(parents=True)
    (folder / "a.parquet").write_bytes(b"")
    os.utime(folder / "a.parquet", (1e9 - age_s,) * 2)
    return folder


def test_the_newest_run_is_the_default_and_is_named(monkeypatch, capsys, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    rows(Path("work/old/results/neutral-base"), 200)
    rows(Path("work/experiment/new/results/neutral-base"), 100)
    rows(Path("elsewhere/results"), 0)
    Path("work/empty/results").mkdir(parents=True)
    assert run_folder(None) == (Path("work/experiment/new"), Path("work/experiment/new/results"))
    assert capsys.readouterr().err == "run: work/experiment/new (the newest; --run names another)\n"


def test_a_run_can_be_named_by_its_rows(tmp_path: Path) -> None:
    results = rows(tmp_path / "mine" / "results" / "neutral-base", 0).parent
    (tmp_path / "rows").mkdir()
    run = tmp_path / "mine"
    assert run_folder(run) == (run, results) and run_folder(results) == (run, results)
    assert run_folder(results / "neutral-base") == (run, results / "neutral-base")
    file = results / "neutral-base" / "a.parquet"
    assert run_folder(file) == (run, file)
    assert run_folder(tmp_path / "rows") == (tmp_path / "rows", tmp_path / "rows")


def test_without_a_run_the_line_says_what_to_type(monkeypatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no run below work/ here; name its folder with --run, or make one"):
        run_folder(None)
    (tmp_path / "demo").mkdir()
    with pytest.raises(UserError, match="no folder demoo; did you mean demo; name the folder of a run with --run"):
        run_folder(Path("demoo"))
