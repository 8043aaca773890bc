"""`cmet-eval measure` and `cmet_eval.measure`: matching, rules, reasons, forms of the output, and the run's folder."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio

import cmet_eval
from cmet_eval.measuring.result import Measured
from talking_face.media import Encoding, read_frames, write_audio, write_video
from talking_face.reasons import Reason, UserError

LOSSLESS = Encoding(crf=0)
METRICS = ["psnr", "ssim"]


def video(path: Path, frames: int = 10, size: tuple[int, int] = (48, 64), fps: float = 25.0, seed: int = 0) -> Path:
    """A small video of smooth noise without sound."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (frames, size[0] // 8, size[1] // 8, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_video(path, small.repeat(8, axis=1).repeat(8, axis=2), fps, None, 16000, LOSSLESS)
    return path


def measured(*args: object, **options: object) -> Measured:
    return cmet_eval.measure(*args, **{"metrics": METRICS, "workers": 0, **options})  # type: ignore[arg-type]


def reasons(result: Measured) -> dict[tuple[str, str], str | None]:
    return {(row.pair_id, row.metric.partition(":")[0]): row.reason for row in result.rows}


def test_values_equal_an_independent_library(tmp_path: Path) -> None:
    a, b = video(tmp_path / "a.mp4", seed=1), video(tmp_path / "b.mp4", seed=2)
    pairs = zip(read_frames(a), read_frames(b), strict=True)
    expected = np.mean([peak_signal_noise_ratio(y, x, data_range=255) for x, y in pairs])
    assert measured(a, b).as_dict()["psnr:frame-mean"] == pytest.approx(expected, abs=1e-9)


def test_a_file_against_itself_is_perfect(tmp_path: Path) -> None:
    a = video(tmp_path / "a.mp4")
    result = measured(a, a)
    assert reasons(result)["a", "psnr"] == Reason.INFINITE.value and not result.lost
    assert result.as_dict() == {"ssim:wang2004": 1.0}
    assert "| psnr:frame-mean ↑ | ∞ | – | 1/1 (1 ∞) |" in result.to_markdown()
    assert math.isinf(result.per_clip.loc["a", "psnr:frame-mean"])


@pytest.mark.parametrize(
    ("other", "reason", "option", "value"),
    [
        ({"size": (64, 64)}, Reason.SIZE_MISMATCH, "size", "resize"),
        ({"frames": 14}, Reason.LENGTH_MISMATCH, "length", "shorter"),
        ({"frames": 14}, Reason.LENGTH_MISMATCH, "length", "linspace"),
        ({"fps": 30.0, "frames": 12}, Reason.RATE_MISMATCH, "rate", "25"),
    ],
)
def test_what_does_not_fit_has_a_reason_that_names_the_option(
    tmp_path: Path, other: dict, reason: Reason, option: str, value: str
) -> None:
    a, b = video(tmp_path / "a.mp4"), video(tmp_path / "b.mp4", **other)
    refused = measured(a, b)
    assert {row.reason for row in refused.rows} == {reason.value}
    if option == "size":  # also metrics whose values would only be wrong
        assert {row.reason for row in measured(a, b, metrics=["m_lmd:native-mp", "m_lmd:eat"]).rows} == {reason.value}
    assert all(f"--{option} {value}" in row.detail for row in refused.rows)
    taken = measured(a, b, **{option: value})
    assert not taken.lost
    token = {"resize": "to-target-area-cubic", "25": "25-nearest"}.get(value, value)
    assert all(f"|{option}:{token}|" in row.signature for row in taken.rows)
    assert f"|{option}:{token}|" not in refused.rows[0].signature


def test_start_moves_the_ground_truth(tmp_path: Path) -> None:
    whole = video(tmp_path / "whole.mp4", frames=12)
    write_video(tmp_path / "late.mp4", read_frames(whole)[3:], 25.0, None, 16000, LOSSLESS)
    moved = measured(tmp_path / "late.mp4", whole, start=3)
    assert moved.as_dict() == {"ssim:wang2004": 1.0} and "|start:3|" in moved.rows[0].signature
    late = measured(tmp_path / "late.mp4", whole, start=12)
    assert {row.reason for row in late.rows} == {Reason.TOO_SHORT.value}


def test_folders_are_matched_by_path_and_nothing_is_left_out(tmp_path: Path) -> None:
    mine, real = tmp_path / "mine", tmp_path / "real"
    for name in ("a.mp4", "in/b.mp4", "alone.mp4", "twice.mp4", "twice.mov"):
        video(mine / name, seed=1)
    (mine / "notes.txt").write_text("no video")
    (mine / "torn.mp4").write_bytes(b"no video either")
    for name in ("a.mov", "in/b.mp4", "absent.mp4", "twice.mp4", "torn.mp4"):
        video(real / name, seed=2)
    result = measured(mine, real)
    found = {name: reason for (name, metric), reason in reasons(result).items() if metric == "psnr"}
    assert found == {
        **{"a": None, "in/b": None, "alone": "no-ground-truth", "absent": "missing-output"},
        **{"twice": "duplicate-id", "torn": "not-media"},
    }
    assert result.table.loc["psnr:frame-mean", ["n", "N"]].tolist() == [2, 6]
    assert any("1 file in mine not used" in note for note in result.notes)


def test_no_partner_at_all_says_how_files_are_matched(tmp_path: Path) -> None:
    video(tmp_path / "mine" / "a_out.mp4")
    video(tmp_path / "real" / "a.mp4")
    with pytest.raises(UserError, match=r"a_out and a; rename them, or name the pairs in a CSV"):
        measured(tmp_path / "mine", tmp_path / "real")


def test_a_list_names_files_labels_and_speakers(tmp_path: Path) -> None:
    for name in ("out/a.mp4", "out/b.mp4", "real/x.mp4"):
        video(tmp_path / name, seed=len(name))
    rows = [
        ["pred", "target", "emotion", "speaker"],
        ["out/a.mp4", "real/x.mp4", "Angry", "M003"],
        ["out/b.mp4", "real/gone.mp4", "", ""],
    ]
    list_file = tmp_path / "list.csv"
    list_file.write_text("\n".join(map(",".join, rows)))
    result = measured(list_file)
    row = next(row for row in result.rows if row.value is not None)
    assert (row.pair_id, row.target_emotion, row.speaker) == ("a", "angry", "M003")
    assert {row.reason for row in result.rows if row.pair_id == "b"} == {Reason.MISSING_FILE.value}
    list_file.write_text("pred,targt\nout/a.mp4,real/x.mp4\n")
    with pytest.raises(UserError, match="did you mean target"):
        measured(list_file)


def test_sound_is_borrowed_and_a_broken_ground_truth_costs_only_what_reads_it(tmp_path: Path, monkeypatch) -> None:
    """The sound of a silent video comes from the ground truth, then from the file of --audio, with a note."""
    (tmp_path / "heard.py").write_text(
        "from cmet_metrics.base import Metric, Sample, Score\n"
        "class Heard(Metric):\n"
        "    name, title, higher_is_better, needs_target, needs_audio = 'heard', 'Heard', True, False, True\n"
        "    def settings(self): return {}\n"
        "    def compute(self, pred: Sample, target: Sample) -> Score:\n"
        "        return Score(float(abs(pred.audio.astype(float)).mean()), len(pred.audio))\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    silent = video(tmp_path / "silent.mp4")
    tone = (8000 * np.sin(np.arange(6400) / 5)).astype(np.int16)
    write_video(tmp_path / "real.mp4", read_frames(silent), 25.0, tone, 16000, LOSSLESS)
    write_audio(tmp_path / "own.wav", tone // 4, 16000)
    torn = tmp_path / "torn.mp4"
    torn.write_bytes(b"no video")
    options = {"metrics": ["psnr", "heard:Heard"]}
    found = measured(silent, tmp_path / "real.mp4", audio=tmp_path / "own.wav", **options)
    assert found.rows[1].value == pytest.approx(5093, rel=0.2) and "sound of the ground truth" in found.rows[1].notes
    found = measured(silent, silent, audio=tmp_path / "own.wav", **options)
    assert found.rows[1].value == pytest.approx(1000, rel=0.3) and "file of --audio" in found.rows[1].notes
    write_video(tmp_path / "loud.mp4", read_frames(silent), 25.0, tone, 16000, LOSSLESS)
    found = measured(tmp_path / "loud.mp4", torn, **options)
    assert found.rows[0].reason == Reason.NOT_MEDIA.value and found.rows[1].value is not None


def test_metrics_without_their_needs_are_refused_before_any_work(tmp_path: Path) -> None:
    a = video(tmp_path / "a.mp4")
    for metric, need in (("psnr", "TARGET"), ("ea:fer", "emotion"), ("csim:dlib-ref", "reference")):
        with pytest.raises(UserError, match=need):
            measured(a, None, metrics=[metric])
    with pytest.raises(UserError, match="--profile"):
        measured(a, a, profile="embedded")
    with pytest.raises(UserError, match="did you mean resize"):
        measured(a, a, size="resized")


def test_runs_of_several_methods_add_up(tmp_path: Path) -> None:
    """Through the real command: rows of the existing form, kept scores, `compare`, and a board of both methods."""
    for name in ("real/a.mp4", "real/b.mp4", "one/a.mp4", "one/b.mp4", "two/a.mp4", "two/b.mp4"):
        video(tmp_path / name, seed=len(name) + ord(name[0]))
    arguments = ["--metrics", "psnr", "--metrics", "ssim", "--out", "run"]
    first = command(tmp_path, "measure", "one", "real", *arguments)
    assert first.returncode == 0 and "psnr|variant:frame-mean" in first.stdout
    stored = {path: path.stat().st_mtime_ns for path in (tmp_path / "run/scores").rglob("*.json")}
    assert len(stored) == 2
    again = command(tmp_path, "measure", "one", "real", *arguments, "--format", "json")
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run/scores").rglob("*.json")} == stored
    means = {one["metric"]: one["mean"] for one in json.loads(again.stdout)["means"]}
    assert command(tmp_path, "measure", "two", "real", *arguments, "--name", "second").returncode == 0
    board = json.loads((tmp_path / "run/leaderboard/board.json").read_text())
    (table,) = board["tables"]
    assert [row["method"] for row in table["methods"]] == ["one", "second"]
    assert table["methods"][0]["cells"][0]["mean"] == means["psnr:frame-mean"]
    compared = command(tmp_path, "compare", "one", "second", "--run", "run")
    assert compared.returncode == 0 and "2 of 2" in compared.stdout


def test_every_form_of_the_output_holds_the_same_values(tmp_path: Path) -> None:
    a, b = video(tmp_path / "a_b&c.mp4", seed=1), video(tmp_path / "b.mp4", seed=2)
    result = measured(a, b)
    value = result.as_dict()["psnr:frame-mean"]
    rows = list(csv.DictReader(io.StringIO(result.to_csv())))
    assert float(rows[0]["mean"]) == value and rows[0]["signature"] == result.rows[0].signature
    assert json.loads(result.to_json())["rows"][0]["value"] == value
    assert result.table.loc["psnr:frame-mean", "mean"] == value
    latex = result.to_latex()
    assert f"a\\_b\\&c & {value:.2f} & " in latex and "% psnr:frame-mean: n=1/1, psnr|" in latex
    assert f"{value:.2f}" in result.to_markdown()


def test_the_terminal_shows_a_shared_treatment_once_and_no_signature_is_lost(tmp_path: Path) -> None:
    a, b = video(tmp_path / "a.mp4", seed=1), video(tmp_path / "b.mp4", seed=2)
    result = measured(a, b, metrics=["psnr", "ssim", "psnr:pooled"])
    text = str(result)
    shared = re.search(r"^treatment: (rate:.*)$", text, re.M)
    assert shared and text.count("|size:") == 1
    shown = text.partition("prints them whole):\n")[2].split()
    assert [line.replace("|treatment|", f"|{shared[1]}|") for line in shown] == [one.signature for one in result.means]
    assert "psnr:frame-mean ↑" in text and len(repr(result)) < 200 and "psnr:frame-mean ↑" in result._repr_html_()


def test_units_are_explained_and_latex_states_an_incomplete_coverage(tmp_path: Path) -> None:
    for name, seed in (("mine/x.mp4", 1), ("real/x.mp4", 2), ("real/y.mp4", 3)):
        video(tmp_path / name, seed=seed)
    result = measured(tmp_path / "mine", tmp_path / "real", metrics=["psnr", "jitter:output"])
    assert " (1/2) & " in result.to_latex()  # the mean of one of two videos
    assert "% of eyes: percent of the distance between the centres of the eyes" in str(result)


def command(cwd: Path, *words: str) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "cmet_eval.cli", *words]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    return subprocess.run(line, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)
