"""Finds the clips that a user's table names by clip_id, also if the table spells the id in another form."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection, Sequence

from talking_face.clip import Clip
from talking_face.names import counted, printable

_NAMED = 5  # ids in a line for the user


def match(given: Collection[str], clip_ids: Collection[str]) -> tuple[dict[str, str], list[str]]:
    """(clip_id by the id that the table gives, the given ids that no clip has, in order).

    An id that no clip has exactly is compared without its case, its dataset, backslashes and decomposed accents. It is
    used if only one clip and only one row have it in this form.
    """
    there = set(clip_ids)
    found = {name: name for name in given if name in there}
    rest = [name for name in given if name not in there]
    if rest:
        by_form: defaultdict[str, list[str]] = defaultdict(list)
        for clip_id in there - found.keys():
            by_form[_form(clip_id)].append(clip_id)
            by_form[_form(clip_id.partition("/")[2])].append(clip_id)
        asked = Counter(_form(name) for name in rest)
        for name in rest:
            if asked[_form(name)] == 1 and len(by_form[_form(name)]) == 1:
                found[name] = by_form[_form(name)][0]
    return found, [name for name in rest if name not in found]


def _form(name: str) -> str:
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", name).casefold()).replace("\\", "/").strip("./ ")


def none_matches(table: str, given: Collection[str], clips: Sequence[Clip]) -> str:
    """The error message for a table from which no row names a clip, with examples of both sides."""
    rows = ", ".join(printable(name) for name in list(given)[:2]) or "no row"
    ids = ", ".join(clip.clip_id for clip in clips[:2])
    return (
        f"none of the {counted(len(given), 'clip')} of {table} is under the folder: the column clip_id has {rows}, "
        f"and the folder has {ids}"
    )


def absent_rows(absent: Sequence[str]) -> str:
    """The part of a note that names the rows of a table that no clip has."""
    more = ", ..." if absent[_NAMED:] else ""
    return f"{counted(len(absent), 'row')} without a clip here: {', '.join(map(printable, absent[:_NAMED]))}{more}"
