"""`compare` against scipy and a drawn sheet; `verify` on a run, and on one whose videos or numbers were changed."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats

from cmet_eval import cli
from cmet_eval.protocol.draw import Draw
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs import evaluate
from cmet_eval.runs.metrics import Scoring
from cmet_leaderboards.bands import Bands
from cmet_leaderboards.compare import compare
from cmet_leaderboards.results import read_results, write_results
from cmet_leaderboards.row import ResultRow
from talking_face.execution.options import RunOptions
from talking_face.reasons import UserError

METRICS = ("psnr:frame-mean", "ssim:wang2004")
METHODS = ("ground-truth", "static-reference", "source-video")


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run")
    evaluate.run(
        METHODS,
        ("neutral-base",),
        data=shards,
        out=out,
        draw=Draw(seeds=1),
        scoring=Scoring(METRICS),
        options=RunOptions(workers=0, quiet=True),
    )
    return out


def main(monkeypatch: pytest.MonkeyPatch, *words: str | Path) -> int:
    monkeypatch.setattr(sys, "argv", ["cmet-eval", *map(str, words)])
    with pytest.raises(SystemExit) as end:
        cli.main()
    return int(end.value.code or 0)


def values(done: Path, method: str, metric: str, speakers: Sequence[str]) -> np.ndarray:
    """(speakers,) means."""
    frame = read_results(done / "results").frame()
    mine = frame[(frame["method"] == method) & (frame["metric"] == metric)]
    return np.array([mine.loc[mine["speaker"] == speaker, "value"].mean() for speaker in speakers])


def test_compare_is_the_paired_t_test_and_names_the_widest_pair(done: Path) -> None:
    results = read_results(done / "results")
    frame = results.frame()
    speakers = sorted(frame["speaker"].unique())
    (found,) = compare(results, "source-video", "static-reference@1")
    assert [contrast.column.metric for contrast in found.metrics] == list(METRICS)
    wide = frame[frame["metric"] == METRICS[0]].pivot(index="pair_id", columns="method", values="value")
    apart = (wide["source-video"] - wide["static-reference"]).abs()
    assert found.metrics[0].extremes[0].pair_id == apart.idxmax()
    for contrast in found.metrics:
        a, b = (values(done, m, contrast.column.metric, speakers) for m in ("source-video", "static-reference"))
        assert contrast.paired and contrast.paired.interval
        if contrast.paired.interval.over == "speakers":
            assert contrast.paired.p == pytest.approx(stats.ttest_rel(a, b).pvalue, rel=1e-6)
        assert -contrast.paired.difference == pytest.approx(np.mean(a - b))
    noisy = Bands({found.metrics[0].column.signature: 1e3}, "test")
    (again,) = compare(results, "source-video", "static-reference", bands=noisy)
    assert again.metrics[0].paired and again.metrics[0].paired.verdict == "noise"


def test_compare_refuses_rows_that_share_no_table(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done / "results", tmp_path / "results")
    path = next((tmp_path / "results").rglob("source-video*"))
    rows = [{**row, "suite_version": "9.9.9"} for row in pq.read_table(path).to_pylist()]
    path.unlink()
    write_results(map(ResultRow.of, rows), tmp_path / "results", {})
    results = read_results(tmp_path / "results")
    with pytest.raises(UserError, match=r"may not be compared: suite version 9\.9\.9 and .*Score both"):
        compare(results, "source-video", "static-reference")
    with pytest.raises(UserError, match=r"no method of these rows; there are ground-truth@1"):
        compare(results, "nobody", "static-reference")


def test_compare_writes_table_and_sheet(
    done: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("compare", "source-video", "static-reference", "--run", done / "results", "--data", shards)
    assert main(monkeypatch, *words, "--clips", "2", "--out", tmp_path) == 0
    shown, stored = capsys.readouterr().out, (tmp_path / "neutral-base.md").read_text()
    assert "| SSIM (wang2004) ↑ |" in stored and re.search(r"^SSIM \(wang2004\) ↑  ", shown, re.M)
    assert "p (Holm)" in shown and "verdict (Holm)" in shown and "95% interval (alone)" in shown
    assert not re.search(r"&lt;|\|", shown)  # <0.001 and tables are written as Markdown in the file only
    sheet = cv2.imread(str(tmp_path / "neutral-base.png"))
    # Two blocks of a head and three lines of 160 px. Each line has dark letters left of its frames.
    assert sheet is not None and sheet.shape == (2 * (52 + 3 * 168), 1200, 3)
    names = sheet[52:556, 16:200].reshape(3, 168, 184, 3).min(axis=(1, 2, 3))
    assert (names < 80).all() and "Noise bands: bands.csv" in stored
    first = (tmp_path / "neutral-base.png").read_bytes()
    assert main(monkeypatch, *words, "--clips", "2", "--out", tmp_path) == 0
    assert (tmp_path / "neutral-base.png").read_bytes() == first


@pytest.mark.parametrize(
    "words, hint",
    [
        ("compare source-vido ground-truth", "did you mean source-video?"),
        ("compare source-video ground-truth --setting neutral-bas", "did you mean neutral-base?"),
        ("verify --method source-vido", "--method source-vido; did you mean source-video?"),
    ],
)
def test_a_wrong_name_of_the_rows_has_a_hint(
    words: str, hint: str, done: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(monkeypatch, *words.split(), "--run", done, "--data", shards) == 2
    said = capsys.readouterr().err
    assert hint in said and said.count("\n") == 1


def test_verify_finds_a_changed_video_and_a_changed_number(
    done: Path, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("results", "videos", "pairs"):
        shutil.copytree(done / part, tmp_path / part)
    words = (
        "verify",
        "--run",
        tmp_path,
        "--data",
        shards,
        "--workers",
        "0",
        "--quiet",
    )
    assert main(monkeypatch, *words) == 0
    assert "3 of 36 videos" in (said := capsys.readouterr().out) and "6 the same to the bit; all agree" in said

    path = next((tmp_path / "results").rglob("static-reference*"))
    record, rows = pq.read_schema(path).metadata, pq.read_table(path).to_pylist()
    rows[0]["value"] += 1e-3
    path.unlink()
    write_results(map(ResultRow.of, rows), tmp_path / "results", {})
    assert record
    spoilt = rows[-1]["pair_id"]
    video = tmp_path / "videos" / "static-reference" / "neutral-base" / f"{pair_file_name(spoilt)}.mp4"
    video.write_bytes(video.read_bytes() + b"\0")
    assert main(monkeypatch, *words, "--method", "static-reference", "--share", "1") == 1
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3 and "2 differences" in lines[-1]
    assert f"static-reference, {spoilt}: the video's SHA-256 is" in lines[0]
    assert f"static-reference, {rows[0]['pair_id']}: {rows[0]['metric']} is " in lines[1]
