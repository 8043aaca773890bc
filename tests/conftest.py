"""Shared fixtures: one thread for each library, and the real clips in ../shared; tests skip by name without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from talking_face.threads import limit_threads

limit_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def real_clips() -> list[Path]:
    """The GRID clips of ../shared/data/clips, sorted."""
    clips = sorted((SHARED / "data" / "clips").glob("*.mpg"))
    if not clips:
        pytest.skip("../shared/data/clips is absent: tests on real people are skipped")
    return clips
