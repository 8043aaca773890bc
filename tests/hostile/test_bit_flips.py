"""A part of `python -m tests.hostile.bit_flips`: every kind of stored file, a few bits of each."""

from __future__ import annotations

from pathlib import Path

from tests.hostile.bit_flips import KINDS, flip_all, make
from tests.hostile.tally import report


def test_no_flipped_bit_is_read_in_silence(tmp_path: Path) -> None:
    make(tmp_path)
    tallies, seen = flip_all(tmp_path, 128, seed=7)
    assert report(tallies) == 0
    assert all(tally.tried >= 8 for tally in tallies)
    # The program itself sees a difference: nearly every flip is in a part of a file that its reader checks.
    assert sum(counts["noticed"] for counts in seen.values()) > 100 and seen.keys() == KINDS.keys()
