"""Damaged and unusual videos: each gives a row with a reason; none crashes, hangs or is lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from cmet_pipelines.preprocess import preprocess
from cmet_pipelines.processing import ProcessingSettings
from talking_face.execution.options import RunOptions
from talking_face.reasons import Reason
from tests.pipelines.damaged import FORMATS, write_damaged

COUNT = 120  # every format, size, rate and swap, and 28 files harmed at random; damaged.py writes as many as one likes


@pytest.mark.timeout(900)
def test_damaged_and_odd_files_cost_only_themselves(
    tmp_path: Path, unaccounted_in_ledger: Callable[[Path, Path], list[str]]
) -> None:
    names = write_damaged(tmp_path / "in", COUNT)
    before = {name: (tmp_path / "in" / name).stat().st_mtime_ns for name in names}
    settings = ProcessingSettings(deadline_s=120)
    summary = preprocess("clips", tmp_path / "in", tmp_path / "out", settings, run=RunOptions(workers=2, quiet=True))
    rows = {row["source"]: row for row in pq.read_table(tmp_path / "out" / "ledger.parquet").to_pylist()}
    assert sorted(rows) == names and not unaccounted_in_ledger(tmp_path / "in", tmp_path / "out")
    assert {name: (tmp_path / "in" / name).stat().st_mtime_ns for name in names} == before
    failed = {name: row for name, row in rows.items() if row["reason"] in (Reason.CRASHED, Reason.DEADLINE)}
    assert not failed, failed
    assert all(str(tmp_path) not in row["detail"] for row in rows.values())
    # Whole files are taken, whatever camera wrote them; a gif has no sound.
    whole = [name for name in names[: len(FORMATS)] + [n for n in names if "phone" in n or "times" in n]]
    lost = {name: rows[name]["detail"] for name in whole if rows[name]["status"] != "kept"}
    assert len(lost) == 1 and "no sound" in next(iter(lost.values())), lost
    expected = {
        "empty": "empty-file",
        "pointer": "lfs-pointer",
        "text": "not-media",
        "black": "no-face",
        "cut.mp4": "truncated",
    }
    for part, reason in expected.items():
        assert {row["reason"] for name, row in rows.items() if part in name} == {reason}, part
    assert summary.kept + summary.dropped == COUNT
