"""The default deadline of preprocessing follows from the clip; a given deadline is used as it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from cmet_pipelines.preprocess import Selection, preprocess
from cmet_pipelines.process_clip import default_deadline
from cmet_pipelines.processing import ProcessingSettings
from talking_face.execution.options import RunOptions
from talking_face.media.reading import MediaInfo, VideoInfo
from tests.pipelines.run_options import QUIET


def _of(seconds: float, width: int = 1920, height: int = 1080, fps: float = 25.0, align: str = "box") -> float:
    video = VideoInfo(width, height, fps, "h264", "yuv420p", 0)
    return default_deadline(MediaInfo("mp4", seconds, video, None), ProcessingSettings(align=align))


def test_the_deadline_follows_from_length_picture_and_align_mode() -> None:
    # Measured on a machine with 12 busy processes on 2 cores: 0.5 s per 1080p frame in box, 7.4 s in eat-128.
    assert _of(600) > 600 * 25 * 0.5 and _of(600, align="eat-128") > 600 * 25 * 7.4
    assert 120 < _of(2, 360, 288) < _of(2) < _of(2, align="eat-128") < _of(2, 3840, 2160, align="eat-128")
    assert _of(0) == _of(600)  # the headers do not state the length: the longest clip that is kept
    assert _of(2, fps=90_000) == _of(2, fps=240)  # a damaged header


def test_a_clip_gets_its_own_deadline_unless_one_is_given(
    small_mead: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    allowed: list[float] = []
    monkeypatch.setattr("cmet_pipelines.process_clip.allow_seconds", allowed.append)
    kept = preprocess("mead", small_mead, tmp_path / "own", run=QUIET, selection=Selection(limit=2)).kept
    assert len(allowed) == kept == 2 and min(allowed) > 120
    allowed.clear()
    summary = preprocess(
        "mead",
        small_mead,
        tmp_path / "given",
        ProcessingSettings(deadline_s=0.01),
        run=RunOptions(workers=1, quiet=True),
        selection=Selection(limit=2),
    )
    assert summary.reasons == {"deadline": kept} and not allowed
