"""States the origin of clips: drawn by a program, or recorded with a camera.

Numbers on drawn clips do not hold for recordings. Shards and result rows therefore carry the origin. The embedded
corpus gives its speakers names that no speaker of a dataset has, so the names prove which clips are drawn.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Literal, cast, get_args

# `mixed`: some clips are drawn, and others are not. `unknown`: nothing proves or states the origin.
Origin = Literal["drawn", "recorded", "mixed", "unknown"]
ORIGINS: tuple[Origin, ...] = get_args(Origin)
Stated = Literal["drawn", "recorded"]  # what a user can state about clips whose names prove nothing
_TABLE = Path(__file__).with_name("origins.toml")
_AFTER_NAME: Mapping[str, str] = {"drawn": "drawn", "recorded": "recorded", "mixed": "partly drawn"}
_NOTES: Mapping[Origin, str] = {
    "drawn": "Every clip is drawn by a program. The numbers compare methods on drawn faces, not on real people.",
    "recorded": "",
    "mixed": "Some clips are drawn by a program, and others are not. The numbers mix both.",
    "unknown": "It is not known whether the clips are drawn by a program or recorded.",
}


@cache
def _patterns() -> Mapping[str, Mapping[str, str]]:
    return tomllib.loads(_TABLE.read_text(encoding="utf-8"))


@cache
def origin_by_name(dataset: str, speaker: str) -> Origin:
    """What a speaker's name proves: `drawn`, `recorded`, or `unknown` if it proves nothing."""
    patterns = _patterns().get(dataset, {})
    for origin in get_args(Stated):
        if origin in patterns and re.fullmatch(patterns[origin], speaker):
            return cast(Origin, origin)
    return "unknown"


def origin_of_clips(clips: Iterable[tuple[str, str | None]], stated: object = None) -> Origin:
    """The origin of a set of clips.

    Args:
        clips: the dataset and the speaker of each clip.
        stated: `drawn` or `recorded`, the origin of the clips whose speaker's name proves nothing; other values, such
            as None, state nothing.
    """
    rest = cast(Origin, stated) if stated in get_args(Stated) else "unknown"
    found = {origin_by_name(dataset, speaker or "") for dataset, speaker in set(clips)}
    found = {rest if origin == "unknown" else origin for origin in found}
    if len(found) == 1:
        return found.pop()
    return "mixed" if "drawn" in found else "unknown"


def without_guess(origin: Origin) -> Origin:
    """The origin of stored clips that carry no origin. A name alone does not prove a recording."""
    return "unknown" if origin == "recorded" else origin


def data_name(dataset: str, origin: str) -> str:
    """The name of the data on boards.

    Example:
        >>> data_name("mead", "drawn"), data_name("mead", "recorded"), data_name("clips", "unknown")
        ('embedded corpus (drawn)', 'mead (recorded)', 'clips (origin unknown)')
    """
    of_corpus = origin == "drawn" and "recorded" in _patterns().get(dataset, {})  # only the corpus has such names
    return f"{'embedded corpus' if of_corpus else dataset} ({_AFTER_NAME.get(origin, 'origin unknown')})"


def origin_note(origin: str) -> str:
    """One or two sentences that state what the origin means for the numbers; empty for recorded clips."""
    return _NOTES[cast(Origin, origin)] if origin in ORIGINS else _NOTES["unknown"]
