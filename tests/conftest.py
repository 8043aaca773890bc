"""Shared fixtures: one thread and one instruction set for each library, and the real clips in ../shared, without which
tests skip by name.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from talking_face.threads import limit_threads, pin_arithmetic

limit_threads(1)
pin_arithmetic()  # commands do it too; without it, what a test computes here and in a command differs in its last bits

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_clips() -> list[Path]:
    """The GRID clips of ../shared/data/clips, sorted."""
    clips = sorted((SHARED / "data" / "clips").glob("*.mpg"))
    if not clips:
        pytest.skip("../shared/data/clips is absent: tests on real people are skipped")
    return clips
