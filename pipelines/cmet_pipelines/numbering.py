"""Finds the sentence that is spoken in a MEAD clip, from a named scheme of numbering.toml or from a user's CSV file."""

from __future__ import annotations

import dataclasses
import os
import re
import tomllib
from collections.abc import Collection, Mapping, Sequence
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Required, TypedDict, cast

from cmet_pipelines import clip_ids, tables
from talking_face.clip import Clip
from talking_face.names import printable
from talking_face.reasons import UserError

Folder = tuple[str, str, int]  # actor, emotion, level

LONGEST = {"neutral": 40}  # number of sentences per folder; 30 for every other emotion
_SHOWN = 6  # maximum number of folders that are named in a line for the user


class Scheme(TypedDict, total=False):
    """One scheme of numbering.toml. The comment at the top of that file explains the keys."""

    actors: Required[str]
    by_itself: bool
    like: str
    cycle: int
    shifted: bool
    neutral: dict[str, tuple[int, int]]
    emotional: dict[str, tuple[int, int]]
    absent: dict[str, list[int]]
    not_said: list[str]
    source: str
    limits: str


@cache
def schemes() -> dict[str, Scheme]:
    """Every scheme by name, in the order of the file."""
    tables = tomllib.loads(resources.files(__package__).joinpath("numbering.toml").read_text("utf-8"))
    return {name: cast(Scheme, tables.get(table.get("like"), {}) | table) for name, table in tables.items()}


def name_sentences(
    numbering: str | None, clips: Sequence[Clip], numbers: Mapping[Folder, Collection[int]]
) -> tuple[list[Clip], list[str]]:
    """(the clips, each with a `sentence_id` if the sentence is known; lines that are printed for the user).

    Args:
        numbering: a scheme's name, or the path of a CSV file with the columns clip_id and sentence_id. None uses only
            the schemes that always apply.
        clips: the clips to label.
        numbers: by folder, the file numbers of the folder's videos and sounds, in any view. These numbers show whether
            the folder is numbered as the scheme expects.

    Raises UserError if `numbering` is neither a scheme nor a readable file.
    """
    known = {name: table for name, table in schemes().items() if table.get("by_itself") or name == numbering}
    own: dict[str, str] = {}
    notes: list[str] = []
    if numbering is not None and numbering not in known:
        own, notes = _read(numbering, clips)
    broken = {
        folder
        for folder, there in numbers.items()
        for table in known.values()
        if _covers(table, folder) and not _matches(table, folder, there)
    }

    def named(clip: Clip) -> Clip:
        folder = (clip.speaker, clip.emotion or "", clip.intensity or 0)
        sentence = own.get(clip.clip_id)
        if folder not in broken and sentence is None:
            found = (_sentence(table, folder, int(clip.take)) for table in known.values())
            sentence = next(filter(None, found), None)
        return dataclasses.replace(clip, sentence_id=sentence)

    clips = [named(clip) for clip in clips]
    if numbering is not None:
        count = sum(clip.sentence_id is not None for clip in clips)
        limits = f" ({schemes()[numbering]['limits']})" if numbering in known else ""
        notes.append(f"numbering {Path(numbering).name}: {count} of {len(clips)} clips have a sentence{limits}")
    if broken:
        names = sorted("/".join(map(str, folder)) for folder in broken)
        more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
        scheme = Path(numbering).name if numbering else None
        notes.append(f"numbered otherwise than {scheme} says, so no sentences: {', '.join(names[:_SHOWN])}{more}")
    return clips, notes


def gapped(numbers: Mapping[Folder, Collection[int]]) -> list[Folder]:
    """Folders whose highest file number is greater than the number of sentences in a folder.

    A third of the release's actors have such folders. Some numbers are missing in such a folder, so a file number is
    not a position in the script. For example, file 021 has a different sentence than file 021 of a folder without gaps.
    """
    own = [table for table in schemes().values() if table.get("by_itself")]
    return sorted(
        folder
        for folder, there in numbers.items()
        if max(there) > LONGEST.get(folder[1], 30) and not any(_covers(table, folder) for table in own)
    )


def _covers(table: Scheme, folder: Folder) -> bool:
    """Whether the scheme applies to the folder."""
    actor, emotion, level = folder
    excluded = table.get("not_said", ())
    return (
        re.fullmatch(table["actors"], actor) is not None
        and f"{actor}/{emotion}" not in excluded
        and f"{actor}/{emotion}/{level}" not in excluded
    )


def _places(table: Scheme, folder: Folder) -> list[int]:
    """The positions in the script that have a clip in this folder, in order."""
    actor, emotion, level = folder
    absent = table.get("absent", {}).get(f"{actor}/{emotion}/{level}", ())
    return [place for place in range(1, LONGEST.get(emotion, 30) + 1) if place not in absent]


def _matches(table: Scheme, folder: Folder, numbers: Collection[int]) -> bool:
    """Whether the folder has the file numbers that the scheme expects."""
    if "cycle" in table:
        return True
    places = _places(table, folder)
    return max(numbers) == len(places) if table.get("shifted") else set(numbers) <= set(places)


def _sentence(table: Scheme, folder: Folder, number: int) -> str | None:
    """The sentence_id of a file number. None if the scheme does not know the sentence."""
    if not _covers(table, folder):
        return None
    if "cycle" in table:
        return f"s{1 + (number - 1) % table['cycle']:02d}"
    places = _places(table, folder)
    place = places[number - 1] if table.get("shifted") and 0 < number <= len(places) else number
    blocks = table["neutral" if folder[1] == "neutral" else "emotional"]
    inside = (f"{name}-{place - first + 1}" for name, (first, last) in blocks.items() if first <= place <= last)
    return next(inside, None)


def _read(path: str, clips: Sequence[Clip]) -> tuple[dict[str, str], list[str]]:
    """(the sentence_id of each clip_id in a user's CSV file, lines for the user about rows that no clip has).

    Raises UserError if the file is not such a table, or if no row has the clip_id of a clip.
    """
    if not os.path.exists(path):  # noqa: PTH110 - Path.exists raises for long names
        names = ", ".join(schemes())
        raise UserError(
            f"unknown numbering {path!r}: give one of {names}, or a CSV with the columns clip_id and sentence_id"
        )
    name = f"the numbering {Path(path).name}"
    table = tables.read_table(Path(path), name, ("clip_id", "sentence_id"))
    sentences = {row.cells["clip_id"]: row.cells["sentence_id"] for row in table.rows}
    found, absent = clip_ids.match(sentences, [clip.clip_id for clip in clips])
    if clips and not found:
        raise UserError(clip_ids.none_matches(name, sentences, clips))
    notes = [f"{name}: {clip_ids.absent_rows(absent)}"] if absent else []
    own = {clip_id: printable(sentences[given]) for given, clip_id in found.items()}
    return {clip_id: sentence for clip_id, sentence in own.items() if tables.has_value(sentence)}, notes
