"""Stored scores, records and rows: damage is found and repaired, names do not collide, and no folder name is stored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from cmet_eval.protocol.draw import Draw
from cmet_eval.protocol.pair_files import read_pairs
from cmet_eval.runs import evaluate, score
from cmet_eval.runs.evaluate import RunSummary
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.score import Expected, Job, score_group
from cmet_eval.runs.submissions import from_elsewhere
from cmet_leaderboards.board import build
from cmet_leaderboards.results import read_results
from cmet_metrics.base import Sample
from talking_face.execution.options import RunOptions
from talking_face.files import sha256_of
from talking_face.media.writing import write_video
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

KEYS: dict[str, Any] = {
    "draw": Draw(3, seeds=1),
    "scoring": Scoring(["psnr", "ssim"]),
    "options": RunOptions(0, quiet=True),
}


def run(shards: Path, out: Path, methods: tuple[str, ...] = ("static-reference",), **more: Any) -> RunSummary:
    return evaluate.run(methods, ["cross-emotion"], data=shards, out=out, **KEYS, **more)


def values(out: Path) -> list[float]:
    frame = read_results(out / "results").frame().sort_values(["method", "revision", "pair_id", "metric"])
    return [float(value) for value in frame["value"]]


def flipped(path: Path, seed: int) -> bytes:
    """Flips one bit of the file, but not of a line end. Returns the bytes before."""
    before = path.read_bytes()
    at = int(np.random.default_rng(seed).integers(8 * len(before.rstrip())))
    path.write_bytes(before[: at // 8] + bytes([before[at // 8] ^ 1 << at % 8]) + before[at // 8 + 1 :])
    return before


@pytest.fixture(scope="module")
def done(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("done")
    run(shards, out)
    return out


@pytest.mark.parametrize("kind", ["scores", "records", "results"])
def test_a_damaged_file_is_named_and_the_next_run_repairs_it(
    kind: str, done: Path, shards: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wanted = values(done)
    path = min(path for path in (done / kind).rglob("*") if path.suffix in (".json", ".parquet"))
    before = flipped(path, 1)
    if kind == "results":
        with pytest.raises(UserError, match=rf"{re.escape(path.name)} is damaged \(.*\); score the method again"):
            read_results(done / "results")
    capfd.readouterr()
    run(shards, done)
    assert [path.name in line for line in capfd.readouterr().err.splitlines() if "is damaged" in line] == [True]
    assert values(done) == wanted and not (kind != "records" and path.read_bytes() != before)
    run(shards, done)
    assert "is damaged" not in capfd.readouterr().err


@pytest.mark.parametrize("kind", ["scores", "records", "results", "pairs"])
def test_every_flipped_bit_is_found(kind: str, done: Path, tmp_path: Path) -> None:
    from talking_face.sealed import Damaged, read_sealed_json, read_sealed_table

    source = min(path for path in (done / kind).rglob("*") if path.suffix in (".json", ".parquet"))
    read = read_sealed_json if source.suffix == ".json" else read_sealed_table
    for seed in range(60):
        path = tmp_path / source.name
        path.write_bytes(source.read_bytes())
        flipped(path, seed)
        with pytest.raises(Damaged, match=f"{re.escape(str(path))} is damaged"):
            read(path, "")


def test_a_video_that_changes_while_it_is_scored_has_a_reason_and_no_scores(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, moving_picture: Callable[..., np.ndarray]
) -> None:
    video, out = tmp_path / "a.mp4", tmp_path / "scores.json"
    write_video(video, moving_picture(1))
    job = Job("k", str(video), sha256_of(video), Expected("clips/A/happy/1"), str(out), ("psnr:frame-mean",))
    decode = score.read_clip

    def change_then_decode(*args: Any, **options: Any) -> Sample:
        write_video(video, moving_picture(2))
        return decode(*args, **options)

    monkeypatch.setattr(score, "read_clip", change_then_decode)
    for _ in range(2):  # the second time, the video was changed after the key was computed
        reason, detail = score_group([job], str(shards), ModelFiles())["k"]
        assert reason == "changed" and "a.mp4 was changed" in detail and not out.exists()
        monkeypatch.setattr(score, "read_clip", decode)
    score_group([replace(job, video_sha256=sha256_of(video))], str(shards), ModelFiles())
    assert out.exists()


def test_revisions_whose_names_look_alike_keep_their_rows(done: Path, shards: Path, tmp_path: Path) -> None:
    pairs = read_pairs(done / "pairs" / "cross-emotion.parquet")
    videos = done / "videos" / "static-reference" / "cross-emotion"
    revisions = ("a/b", "a_b", "a%2Fb", "改訂版", "версия", "r" * 100)
    for revision in revisions:
        method = {"name": "mine", "revision": revision, "title": "Mine", "role": "method", "summary": "", "sees": []}
        submission = from_elsewhere(videos, pairs, method)
        evaluate.score(submission, data=shards, out=tmp_path, scoring=KEYS["scoring"], options=KEYS["options"])
    assert len(list((tmp_path / "results").rglob("*.parquet"))) == len(revisions)
    frame = read_results(tmp_path / "results").frame()
    assert frame.groupby("revision").size().to_dict() == dict.fromkeys(
        revisions, 12
    )  # two metrics, and the registration
    for revision in ("=1+1", "a\nb", "", "x" * 101, " a"):
        with pytest.raises(UserError, match=r"name|characters"):
            from_elsewhere(videos, pairs, {"name": "mine", "revision": revision})


METHOD = """
import numpy as np


class Mine:
    name, revision, sees = "mine", "1", frozenset({"reference-frames"})

    def generate(self, case):
        case.note(f"read {__file__}")
        if "/B/" in case.pair_id:
            raise OSError(f"cannot open '{__file__}'")
        return np.repeat(case.reference_frames[:1], case.n_frames, axis=0)
"""


def test_no_folder_name_is_stored_or_exported(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / "zoe.telltale home"
    home.mkdir()
    (home / "mine.py").write_text(METHOD)
    entry = {"name": "mine", "title": "Mine", "summary": "A method.", "kind": "python", "revision": "1"}
    lines = [f"{name} = {json.dumps(value)}" for name, value in entry.items()]
    lines += ['licence = "none"', 'sees = ["reference-frames"]', 'target = "mine:Mine"', "[process]", 'folders = ["."]']
    (home / "mine.toml").write_text("\n".join(lines))
    data, out = home / "shards", home / "out"
    data.symlink_to(shards)
    # A worker, because a method in a process of its own loses its folder in this process.
    evaluate.run(
        ["static-reference", str(home / "mine.toml")],
        ["cross-emotion"],
        data=data,
        out=out,
        **KEYS | {"options": RunOptions(1, quiet=True)},
    )
    (next((out / "videos" / "static-reference").rglob("*.mp4"))).write_bytes(b"not a video")
    pairs = read_pairs(out / "pairs" / "cross-emotion.parquet")
    folder = out / "videos" / "static-reference" / "cross-emotion"
    evaluate.score(
        from_elsewhere(folder, pairs, {"name": "outside", "revision": "1"}),
        data=data,
        out=out,
        scoring=KEYS["scoring"],
        options=KEYS["options"],
    )
    build(out / "results", out / "board")
    frame = read_results(out / "results").frame()
    assert {"method-failed", "not-media"} <= set(frame["reason"])
    assert {"read mine.py", "mine:Mine: OSError: cannot open 'mine.py'"} <= {*frame["notes"], *frame["detail"]}
    stored = [path for path in out.rglob("*") if path.is_file() and path.suffix not in (".log", ".mp4")]
    assert len(stored) > 20
    for path in stored:
        tables = [] if path.suffix != ".parquet" else [pq.read_table(path)]
        text = path.read_text(errors="replace") + "".join(f"{t.to_pydict()} {t.schema.metadata}" for t in tables)
        assert "telltale" not in text and str(tmp_path) not in text, path


@pytest.mark.parametrize("name", ["../../../X", "a/b", ".x", "=x", "a\\b", "x" * 101])
def test_a_method_of_a_class_has_a_name_that_is_not_a_path(
    name: str, shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "named.py").write_text(METHOD.replace('"mine"', repr(name)))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="named:Mine: "):
        run(shards, tmp_path / "out", ("named:Mine",))
    assert not (tmp_path / "X").exists() and not (tmp_path.parent / "X").exists()
