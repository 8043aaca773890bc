"""The same files have the same values, to the bit, by `measure`, `score` and `run` with a folder of videos.

Six short clips of real people, of three sizes; one of the generated videos has no sound.
"""

from __future__ import annotations

import csv
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
import pytest

from cmet_eval import cli
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs.records import read_generation
from cmet_leaderboards.results import read_results
from talking_face.files import sha256_of
from talking_face.media import read_audio, read_frames
from talking_face.media.writing import write_video
from tests.cmet_eval.test_boards_end_to_end import command

METRICS = ("psnr:frame-mean", "ssim:wang2004", "registration:shift", "lip_energy:correlation")
ASKED = [word for key in METRICS for word in ("--metrics", key)]
FRAMES = 36  # lip energy needs 35
Inside = Callable[..., str]
ENTRY = 'name = "mine"\ntitle = "Mine"\nsummary = "Mine."\nkind = "videos"\nrevision = "1"\nlicence = "-"\nsees = []\n'


def _files(clips: list[Path], root: Path) -> tuple[Path, Path]:
    """Real clips, and blurred copies of them with names of their own."""
    real, mine = root / "real", root / "mine"
    real.mkdir()
    mine.mkdir()
    for k, clip in enumerate(clips[:6]):
        frames, sound = read_frames(clip)[:FRAMES], read_audio(clip)[: FRAMES * 640]
        frames = np.ascontiguousarray(frames[:, 40 : 256 - 8 * (k % 3), 60 : 300 - 16 * (k % 3)])
        write_video(real / f"clip {k}.mp4", frames, 25, sound)
        blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])
        write_video(mine / f"take {k}.mp4", blurred, 25, None if k == 0 else sound)
    return real, mine


@pytest.fixture(scope="module")
def place(real_clips: list[Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with real/, mine/, shards/ of whole pictures, pairs.parquet and names.csv."""
    root = tmp_path_factory.mktemp("doors")
    real, _ = _files(real_clips, root)
    shards = root / "shards"
    command("preprocess", "clips", real, shards, "--align", "none", "--lossless", "--quiet")
    command("pairs", "reconstruction", "--data", shards, "--split", "all", "-o", root / "pairs.parquet")
    with (root / "names.csv").open("w", newline="") as file:
        rows = [(pair_id, f"take {clip.removeprefix('clip ')}.mp4") for pair_id, clip in _clips(root).items()]
        csv.writer(file).writerows([("pair", "file"), *rows])
    return root


def _clips(root: Path) -> dict[str, str]:
    """Pair id -> stem of the real file."""
    pairs = read_pairs(root / "pairs.parquet").pairs
    return {pair.pair_id: str(pair.ground_truth_clip).split("/", 1)[1] for pair in pairs}


def _rows(run: Path) -> pd.DataFrame:
    return read_results(run / "results").frame()


def _values(run: Path, names: dict[str, str]) -> dict[tuple[str, str], tuple[float, str, str]]:
    """(name of the clip, metric) -> value, signature, SHA-256 of the video."""
    return {
        (names[row.pair_id], row.metric): (row.value, row.signature, row.video_sha256)
        for row in _rows(run).itertuples()
        if row.metric in METRICS
    }


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Inside:
    """Runs a command in this process, which is faster than `command`; returns what it prints."""

    def run(*words: object, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["cmet-eval", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        told = "".join(capsys.readouterr())
        assert int(end.value.code or 0) == code, told
        return told

    return run


def test_the_same_clips_have_the_same_values_by_three_doors(place: Path, inside: Inside) -> None:
    clips = _clips(place)
    with (place / "measure.csv").open("w", newline="") as file:
        rows = [(f"mine/take {c[5:]}.mp4", f"real/{c}.mp4") for c in clips.values()]
        csv.writer(file).writerows([("pred", "target"), *rows])
    command("measure", place / "measure.csv", "--rate", "25", *ASKED, "--run", place / "m", "--quiet")
    shared = ("--data", place / "shards", *ASKED, "--workers", "1", "--quiet")
    scored = ("--videos", place / "mine", "--names", place / "names.csv", "--pairs", place / "pairs.parquet")
    seen = ("--sees", "driving-audio", "--sees", "reference-frames")
    told = command("score", *scored, *seen, "--method-name", "mine", *shared, "--run", place / "s")
    assert "registration of mine in reconstruction, 6 of 6 videos: shift median 0.0" in told
    assert "none misregistered" in told

    for pair, clip in clips.items():
        target = place / "made" / "reconstruction" / f"{pair_file_name(pair)}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(place / "mine" / f"take {clip[5:]}.mp4", target)
    (place / "mine.toml").write_text(f'{ENTRY}[videos]\nfolder = "made"\n')
    pairs = ("--setting", "reconstruction", "--split", "all", "--method", place / "mine.toml")
    told = command("run", *pairs, *shared, "--run", place / "r")
    assert "AITV" not in told and "registration of mine in reconstruction, 6 of 6 videos" in told

    by_score, by_run = _values(place / "s", clips), _values(place / "r", clips)
    measured = _rows(place / "m")
    names = {pair: next(c for c in clips.values() if c[5:] in pair) for pair in measured["pair_id"]}
    by_measure = _values(place / "m", names)
    assert len(by_score) == 6 * len(METRICS) and by_score == by_run == by_measure
    assert all(np.isfinite(value) for value, _, _ in by_score.values())

    for pair, clip in clips.items():  # nothing was encoded again
        video = place / "r" / "videos" / "mine" / "reconstruction" / f"{pair_file_name(pair)}.mp4"
        assert sha256_of(video) == sha256_of(place / "mine" / f"take {clip[5:]}.mp4")
        record = read_generation(place / "r" / "records" / "mine" / "reconstruction" / f"{pair_file_name(pair)}.json")
        assert record is not None and record.timing is None
    silent = _rows(place / "s").set_index("pair_id").loc[next(p for p, c in clips.items() if c == "clip 0")]
    assert silent["notes"].str.contains("sound of the pair's driving clip").all()

    # The player finds the videos by their content, whatever their names are.
    board = inside("leaderboard", "--run", place / "s", "--videos", f"mine={place / 'mine'}", "--gallery", 1)
    assert Path(board.split()[-1]).read_text().count('"methods":["mine"]') == 1
    verified = ("verify", "--run", place / "s", "--videos", place / "mine", "--share", 1, "--quiet")
    told = inside(*verified, "--workers", 0, "--data", place / "shards", "--pairs", place / "pairs.parquet")
    assert "6 of 6 videos drawn" in told and "all agree" in told


def test_another_crop_is_refused_unless_it_is_allowed(place: Path, tmp_path: Path, inside: Inside) -> None:
    """The ground truth is cropped to the face, and the videos have the framing of the files."""
    shards = tmp_path / "shards"
    inside("preprocess", "clips", place / "real", shards, "--quiet", "--workers", 0)
    inside("pairs", "reconstruction", "--data", shards, "--split", "all", "-o", tmp_path / "pairs.parquet")
    words = ("score", "--videos", place / "mine", "--names", place / "names.csv", "--method-name", "mine")
    words = (*words, "--pairs", tmp_path / "pairs.parquet", "--data", shards, *ASKED)
    words = (*words, "--quiet", "--size", "resize", "--workers", 1)
    told = inside(*words, "--run", tmp_path / "refused", code=1)
    assert "6 misregistered" in told and "--allow-misregistered" in told
    assert "% smaller than in the ground truth" in told
    found = _rows(tmp_path / "refused").groupby("metric")["reason"].agg(lambda reasons: set(reasons.fillna("")))
    assert found["psnr:frame-mean"] == found["ssim:wang2004"] == {"misregistered"}
    assert found["registration:shift"] == found["lip_energy:correlation"] == {""}

    told = inside(*words, "--run", tmp_path / "allowed", "--allow-misregistered")
    allowed = _rows(tmp_path / "allowed")
    psnr = allowed[allowed["metric"] == "psnr:frame-mean"]
    assert psnr["value"].max() < 25 and psnr["notes"].str.contains("misregistered").all()
    assert psnr["signature"].str.contains("size:to-target-area-cubic").all()


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("pair,file\nnobody,a.mp4\n", "no pair 'nobody' in this list"),
        ("pair,file\nPAIR,../a.mp4\n", "is not a path inside"),
        ("pair,file\nPAIR,a.mp4\nPAIR,b.mp4\n", "a second row of"),
        ("pair\nPAIR\n", "has no column file"),
    ],
)
def test_a_wrong_table_of_names_is_one_line(
    table: str, words: str, place: Path, tmp_path: Path, inside: Inside
) -> None:
    (tmp_path / "names.csv").write_text(table.replace("PAIR", next(iter(_clips(place)))))
    line = ("score", "--videos", place / "mine", "--names", tmp_path / "names.csv", "--method-name", "mine")
    line = (*line, "--pairs", place / "pairs.parquet", "--data", place / "shards", "--run", tmp_path / "run")
    assert words in inside(*line, code=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--sees", "driving-sound"), "did you mean driving-audio"),
        (("--names", "names.csv", "--pattern", "{pair_id}.mp4"), "exclude each other"),
        (("--metrics", "psnr", "--profile", "paper"), "give one of the two"),
    ],
)
def test_wrong_options_of_score_are_one_line(
    options: tuple[str, ...], words: str, place: Path, tmp_path: Path, inside: Inside
) -> None:
    line = ("score", "--videos", place / "mine", "--method-name", "mine", "--run", tmp_path / "run", *options)
    assert words in inside(*line, "--pairs", place / "pairs.parquet", "--data", place / "shards", code=2)
