"""Finds the file that a label table names, also if the table spells the path in another form.

Other forms are: capital or small letters, no suffix, backslashes, a Windows drive, decomposed accents, spaces at an
end, more or fewer folders in front, and bytes of another encoding.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Collection
from dataclasses import dataclass, field

from talking_face.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES

# Encodings of names that are not UTF-8: Western Europe, China, Japan, Korea, Taiwan, Russia, zip programs.
_ENCODINGS = ("cp1252", "latin-1", "gb18030", "shift_jis", "euc_jp", "euc_kr", "big5", "cp1251", "koi8-r", "cp437")
_SUFFIXES = VIDEO_SUFFIXES | AUDIO_SUFFIXES

_Parts = tuple[str, ...]


@dataclass(frozen=True)
class Matches:
    """The result of `match`: which file each name means."""

    file: dict[str, str] = field(default_factory=dict)  # each name with its file
    ambiguous: dict[str, list[str]] = field(default_factory=dict)  # each name without a match, and its candidates
    respelt: list[str] = field(default_factory=list)  # names in `file` that differ from the path of their file


def match(names: Collection[str], files: Collection[str]) -> Matches:
    """The files that the names mean.

    A name that is the exact path of a file means that file. Another name is matched if it can mean only one file, and
    no other name means that file.

    Args:
        names: paths as a table gives them.
        files: paths below the root.
    """
    there = set(files)
    found = Matches({name: name for name in names if name in there})
    rest = [name for name in names if name not in there]
    if not rest:
        return found
    whole, tails = _index(there)
    meant: dict[str, set[str]] = {name: _candidates(name, whole, tails) for name in rest}
    claims = Counter([*found.file.values(), *(next(iter(some)) for some in meant.values() if len(some) == 1)])
    for name, some in meant.items():
        if len(some) > 1:
            found.ambiguous[name] = sorted(some)
        elif some and claims[file := next(iter(some))] == 1:
            found.file[name] = file
            found.respelt.append(name)
        elif some and file not in found.file:
            found.ambiguous[name] = [file]
    return found


def _index(files: Collection[str]) -> tuple[dict[_Parts, set[str]], dict[_Parts, set[str]]]:
    """Two tables from each form of a path to its files: by the whole path, and by each end of the path."""
    whole: defaultdict[_Parts, set[str]] = defaultdict(set)
    tails: defaultdict[_Parts, set[str]] = defaultdict(set)
    for file in files:
        for parts in _forms(file):
            bare = (*parts[:-1], _without_suffix(parts[-1]))
            for form in {parts, bare}:
                whole[form].add(file)
                for start in range(1, len(form)):
                    tails[form[start:]].add(file)
    return whole, tails


def _candidates(name: str, whole: dict[_Parts, set[str]], tails: dict[_Parts, set[str]]) -> set[str]:
    """The files that a name can mean: with the same folders, or else with more or fewer folders in front."""
    forms = _forms(name)
    same = set().union(*(whole.get(form, ()) for form in forms))
    if same:
        return same
    longer = set().union(*(tails.get(form, ()) for form in forms))
    shorter = (whole.get(form[start:], ()) for form in forms for start in range(1, len(form)))
    return longer.union(*shorter)


def _forms(path: str) -> set[_Parts]:
    """The parts of a path in normal form. Bytes that are not UTF-8 are decoded with each encoding that accepts them."""
    texts = {path}
    if any("\udc80" <= char <= "\udcff" for char in path):
        data = path.encode("utf-8", "surrogateescape")
        texts |= {text for text in (_decoded(data, encoding) for encoding in _ENCODINGS) if text}
    return {parts for parts in map(_parts, texts) if parts}


def _decoded(data: bytes, encoding: str) -> str | None:
    try:
        return data.decode(encoding)
    except UnicodeDecodeError:
        return None


def _parts(text: str) -> _Parts:
    plain = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    parts = [part.strip() for part in re.split(r"[/\\]", re.sub(r"^\s*[a-z]:(?=[/\\])", "", plain))]
    return tuple(part for part in parts if part not in ("", "."))


def _without_suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if stem and f"{dot}{suffix}" in _SUFFIXES else name
