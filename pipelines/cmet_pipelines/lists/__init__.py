"""Selects only the clips of a list (`preprocess --clips`).

A list is a CSV file: a named list of a paper, stored in this folder, or a user's file. The file has the column
`clip_id` and optionally the column `emotion`. The value of `emotion` replaces the dataset's emotion label.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from talking_face.clip import Clip
from talking_face.emotions import canonical
from talking_face.files import sha256_of
from talking_face.reasons import UserError


def names() -> list[str]:
    """The names of the lists in this folder."""
    folder = resources.files(__package__)
    return sorted(Path(entry.name).stem for entry in folder.iterdir() if entry.name.endswith(".csv"))


def identity(name_or_file: str) -> str:
    """The value that the settings of a shard set store for a list: the list's name, or the hash of the user's file."""
    if name_or_file in names() or not Path(name_or_file).is_file():
        return name_or_file
    return f"sha256:{sha256_of(Path(name_or_file))[:16]}"


def select(name_or_file: str, clips: Sequence[Clip]) -> tuple[list[Clip], list[str]]:
    """(the clips of the list, ids in the list that are not in `clips`).

    The clips are in the order of `clips` and have the list's emotions. Raises UserError if the list cannot be read, or
    if no clip of the list is in `clips`.
    """
    path = resources.files(__package__).joinpath(f"{name_or_file}.csv") if name_or_file in names() else None
    try:
        text = path.read_text("utf-8") if path is not None else Path(name_or_file).read_text("utf-8-sig")
    except (OSError, UnicodeDecodeError):
        raise UserError(
            f"{name_or_file!r} is not a list of clips: give one of {', '.join(names())}, or a CSV with a column clip_id"
        ) from None
    rows = list(csv.DictReader(text.splitlines()))
    if not rows or "clip_id" not in rows[0]:
        raise UserError(f"the list {name_or_file} has no column clip_id")
    wanted = {row["clip_id"].strip(): (row.get("emotion") or "").strip() for row in rows}
    chosen = [
        dataclasses.replace(clip, emotion=canonical(wanted[clip.clip_id])) if wanted[clip.clip_id] else clip
        for clip in clips
        if clip.clip_id in wanted
    ]
    there = {clip.clip_id for clip in chosen}
    if not chosen:
        raise UserError(f"none of the {len(wanted)} clips of the list {name_or_file} is under the folder")
    return chosen, sorted(wanted.keys() - there)
