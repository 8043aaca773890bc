"""Points of MediaPipe that a scoring computed are read by the next scoring of the same video, with the same values."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from cmet_eval.runs.score import Expected, Job, score_video
from cmet_metrics.base import Labels
from talking_face.files import sha256_of
from talking_face.media.writing import write_video
from talking_face.pretrained import face_landmarker
from talking_face.pretrained.model_files import ModelFiles
from tests.cmet_eval.test_scoring import face


@pytest.fixture
def job(tmp_path: Path) -> Job:
    video = tmp_path / "a.mp4"
    write_video(video, face())
    expected = Expected(None, Labels("happy"))
    return Job(
        "k",
        str(video),
        sha256_of(video),
        expected,
        str(tmp_path / "a.json"),
        ("ea:fer",),
        landmarks=str(tmp_path / "l"),
    )


def no_landmarker(*how: object, **named: object) -> None:
    raise AssertionError("the landmarker runs again")


def test_another_metric_of_the_same_video_uses_the_kept_points(
    job: Job, shards: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = score_video(job, str(shards), ModelFiles()).scores
    (alone,) = score_video(replace(job, metrics=("jitter:output",), landmarks=""), str(shards), ModelFiles()).scores
    monkeypatch.setattr(face_landmarker, "FaceLandmarker", no_landmarker)
    both = score_video(replace(job, metrics=("ea:fer", "jitter:output")), str(shards), ModelFiles()).by_metric
    assert both["ea:fer"] == first and both["jitter:output"] == alone and alone.value is not None


def test_damaged_points_are_computed_again(job: Job, shards: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (first,) = score_video(job, str(shards), ModelFiles()).scores
    (path,) = Path(job.landmarks).glob("*/*.parquet")
    good = path.read_bytes()
    path.write_bytes(good[:200] + bytes([good[200] ^ 1]) + good[201:])
    assert score_video(job, str(shards), ModelFiles()).scores == [first]
    assert f"{path} is damaged" in capsys.readouterr().err and path.read_bytes() == good
