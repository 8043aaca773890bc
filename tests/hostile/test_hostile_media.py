"""Damaged and odd media, one file of each kind of `tests.hostile.media`: none crashes, hangs or is silently wrong."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.media import KINDS, run


def test_one_file_of_every_kind(real_clips: list[Path]) -> None:
    tallies = run(len(KINDS), 11, real_clips[:1])
    assert sum(tally.tried for tally in tallies) == len(KINDS) >= 25
    assert not [line for tally in tallies for line in tally.examples]
