"""Progress in plain lines: rate over this run's own work, an end time, silence when asked."""

from __future__ import annotations

import io

import pytest

from talking_face import progress
from talking_face.progress import Progress


def test_plain_lines_carry_rate_and_end(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    out = io.StringIO()
    with Progress(20, "clips", "work", stream=out, already=10) as bar:
        for _ in range(4):
            clock[0] += 2.0
            bar.advance()
        bar.note("a word between")
    lines = out.getvalue().splitlines()
    assert lines[0].startswith("work: 13/20 clips, 30.0 clips/min, ends ")  # 3 in 6 s; the ten before do not count
    assert lines[1] == "a word between" and lines[2] == "work: 14/20 clips, 30.0 clips/min, in 0:00:08"


def test_quiet_keeps_the_notes_alone() -> None:
    out = io.StringIO()
    with Progress(2, quiet=True, stream=out) as bar:
        bar.advance(2)
        bar.note("heard")
    assert out.getvalue() == "heard\n"
