"""Selects only the clips of a list (`preprocess --clips`).

A list is a CSV file: a named list of a paper, stored in this folder, or a user's file. The file has the column
`clip_id` and optionally the column `emotion`. The value of `emotion` replaces the dataset's emotion label.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from cmet_pipelines import clip_ids, tables
from talking_face.clip import Clip
from talking_face.emotions import canonical
from talking_face.files import sha256_of
from talking_face.names import check_label, printable
from talking_face.reasons import UserError


def names() -> list[str]:
    """The names of the lists in this folder."""
    folder = resources.files(__package__)
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".csv"))


def identity(name_or_file: str) -> str:
    """The value that the settings of a shard set store for a list: the list's name, or the hash of the user's file.

    Raises UserError if the file cannot be read.
    """
    if name_or_file in names() or not os.path.isfile(name_or_file):  # noqa: PTH113 - Path.is_file raises for long names
        return name_or_file
    return f"sha256:{sha256_of(tables.read_bytes(Path(name_or_file), shown(name_or_file)))[:16]}"


def shown(name_or_file: str) -> str:
    """What messages, notes and ledgers call a list: its name, or the name of the user's file without folders."""
    return f"the list {printable(Path(name_or_file).name)}"


def select(name_or_file: str, clips: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """(the clips of the list, ids in the list that are not in `clips`).

    The clips are in the order of `clips` and have the list's emotions. Raises UserError if the list cannot be read, or
    if no clip of the list is in `clips`.
    """
    name, needs = shown(name_or_file), ("clip_id",)
    if name_or_file in names():
        text = resources.files(__package__).joinpath(f"{name_or_file}.csv").read_text("utf-8")
        table = tables.parse(text, name, needs)
    elif os.path.exists(name_or_file):  # noqa: PTH110 - Path.exists raises for long names
        table = tables.read_table(Path(name_or_file), name, needs)
    else:
        raise UserError(
            f"{name_or_file!r} is not a list of clips: give one of {', '.join(names())}, or a CSV with a column clip_id"
        )
    wanted = {row.cells["clip_id"]: row.cells.get("emotion", "") for row in table.rows if row.cells["clip_id"]}
    found, absent = clip_ids.match(wanted, [clip.clip_id for clip in clips])
    if not found:
        raise UserError(clip_ids.none_matches(name, wanted, clips))
    emotions = {clip_id: _emotion(wanted[given], given, name) for given, clip_id in found.items()}
    chosen = [
        dataclasses.replace(clip, emotion=emotions[clip.clip_id] or clip.emotion)
        for clip in clips
        if clip.clip_id in emotions
    ]
    return chosen, sorted(absent)


def _emotion(text: str, clip_id: str, name: str) -> str | None:
    """The emotion of a row; None if the row gives none."""
    if not tables.has_value(text):
        return None
    try:
        return check_label(canonical(text))
    except ValueError as error:
        raise UserError(f"{name}: the emotion of {printable(clip_id)}: {error}") from None
