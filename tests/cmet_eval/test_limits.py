"""Limits in scoring: a video that hangs, takes all memory or ends the process costs only its own scores."""

from __future__ import annotations

import shutil
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cmet_eval.measuring.scoring import default_deadline
from cmet_eval.protocol.draw import Draw, draw_from_shards
from cmet_eval.protocol.setting import get_setting
from cmet_eval.runs.generate import WRITER
from cmet_eval.runs.metrics import Scoring
from cmet_eval.runs.score_submissions import score_submissions
from cmet_eval.runs.submissions import Submission, from_elsewhere
from cmet_leaderboards.results import read_results
from cmet_pipelines.shards import ShardSet
from talking_face.execution.options import RunOptions
from talking_face.media.writing import Encoding, write_video
from talking_face.reasons import UserError

METRIC = """
import os, time
from cmet_metrics.base import Metric, Score

class Trap(Metric):
    name = "trap"
    title = "Trap"
    higher_is_better = True

    def settings(self):
        return {"what": "level"}

    def compute(self, pred, target):
        level = float(pred.frames.mean())
        if level < 40:
            time.sleep(1000)
        if level < 80:
            hold = [b"x" * (100 << 20) for _ in range(40)]
        if level < 120:
            os._exit(7)
        return Score(level, len(pred.frames))
"""
LEVELS = {"good": 200, "hangs": 20, "grows": 60, "dies": 100, "fine": 220}


def _submission(name: str, level: int, template: Submission, folder: Path) -> Submission:
    videos = folder / name
    videos.mkdir(parents=True)
    for number, pair in enumerate(template.pairs.pairs):
        frames = np.full((12, 64, 64, 3), level + number, np.uint8)  # other content, so that no scores are shared
        write_video(videos / template.video(pair).name, frames, encoding=Encoding(**WRITER))
    method = {"name": name, "revision": "1"}
    return replace(template, method=method, videos=videos)


def test_a_bad_video_loses_only_its_own_scores(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap_metric.py").write_text(METRIC)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.syspath_prepend(str(tmp_path))
    data, setting = ShardSet(shards), get_setting("neutral-base")
    drawn = draw_from_shards(data, setting, Draw(max_pairs=4, seeds=1))
    template = from_elsewhere(tmp_path, replace(drawn, pairs=drawn.pairs[:1]), {"name": "x", "revision": "1"})
    submissions = [_submission(name, level, template, tmp_path / "videos") for name, level in LEVELS.items()]
    scoring = Scoring(["trap_metric:Trap"])
    files = scoring.model_files(shards)
    metrics = {setting.name: scoring.in_setting(setting, files)}
    started = time.monotonic()
    options = RunOptions(workers=1, quiet=True, memory_gb=1.5, deadline_s=10)
    score_submissions(submissions, metrics, scoring, data, tmp_path / "out", options, files)
    # The videos have one ground truth and are one group. Each bad video takes its own deadline, once.
    assert time.monotonic() - started < 150
    rows = read_results(tmp_path / "out" / "results").frame().set_index("method")
    assert {name: rows.at[name, "reason"] for name in LEVELS if not rows.at[name, "value"] > 0} == {
        "hangs": "deadline",
        "grows": "out-of-memory",
        "dies": "crashed",
    }
    assert "after 10 s" in rows.at["hangs", "detail"] and "1.5 GB" in rows.at["grows", "detail"]
    assert "exit status 7" in rows.at["dies", "detail"]


def test_a_damaged_shard_stops_scoring_with_one_line(shards: Path, tmp_path: Path) -> None:
    shutil.copytree(shards, tmp_path / "shards")
    data, setting = ShardSet(tmp_path / "shards"), get_setting("neutral-base")
    drawn = draw_from_shards(data, setting, Draw(max_pairs=4, seeds=1))
    template = from_elsewhere(tmp_path, replace(drawn, pairs=drawn.pairs[:1]), {"name": "x", "revision": "1"})
    submission = _submission("mine", 90, template, tmp_path / "videos")
    for shard in (tmp_path / "shards" / "shards").iterdir():
        content = bytearray(shard.read_bytes())
        for place in range(1000, len(content) * 3 // 4, 1000):  # in every clip
            content[place] ^= 1
        shard.write_bytes(content)
    scoring = Scoring(["psnr"])
    files = scoring.model_files(shards)
    metrics = {setting.name: scoring.in_setting(setting, files)}
    with pytest.raises(UserError, match="is damaged") as error:
        score_submissions(
            [submission], metrics, scoring, data, tmp_path / "out", RunOptions(workers=1, quiet=True), files
        )
    assert "\n" not in str(error.value)


def test_the_default_deadline_follows_from_the_length() -> None:
    assert default_deadline(75) < 300 < default_deadline(15_000) / 10
