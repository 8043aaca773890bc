"""Reads LRS2: the videos <subset>/<programme>/<number>.mp4 with their transcripts, unpacked or in parts of a tar.

The subset is main or pretrain. Only the last three parts of a path are used, so the folder mvlrs_v1 can be the root or
any folder below the root. The clip_id contains the subset, because a clip of main and a different clip of pretrain can
have the same programme and number. The splits of main are read from train.txt, val.txt and test.txt. These lists are a
separate download, which is usually stored next to mvlrs_v1. All clips of pretrain are in the split train.

LRS2 has no speaker ids, so the number of the television programme is used as the speaker. A programme can show several
people, and a person can appear in several programmes.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from pathlib import Path
from typing import Literal

from pydantic import Field

from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import Discovery, Found, Reader, ReaderOptions, read_text
from talking_face.clip import Clip
from talking_face.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from talking_face.names import counted, printable
from talking_face.reasons import ClipError, Reason, UserError

SUBSETS = ("main", "pretrain")
# Name of each list, and the subset of the list's clips. If a clip is in two lists of main, the first list gives the
# split.
LISTS = {"test.txt": "main", "val.txt": "main", "train.txt": "main", "pretrain.txt": "pretrain"}

_PROGRAMME = re.compile(r"\d{19}")
_NUMBER = re.compile(r"\d{5}")
_LISTED = re.compile(r"(?:.*/)?(\d{19})/(\d{5})(?:\.mp4)?", re.IGNORECASE)  # a line of a list
_MARKS = re.compile(r"\{[^{}]*\}|[{}]")  # removed from transcripts: {NS} is noise, {LG} is laughter

_Key = tuple[str, str, str]  # subset, programme, number


class Lrs2Options(ReaderOptions):
    """Options of the LRS2 reader."""

    subset: Literal["all", "main", "pretrain"] = Field(default="all", description="main, pretrain or all")


def discover(root: Path, options: Lrs2Options) -> Discovery:
    """All clips of the subset in `options` under `root` (resolved), with their transcripts."""
    into = Discovery()
    videos: defaultdict[_Key, list[Found]] = defaultdict(list)
    texts: dict[_Key, Found] = {}
    lists: defaultdict[str, list[Found]] = defaultdict(list)
    for found in files(root, into, options):
        name = Path(found.parts[-1])
        suffix = name.suffix.lower()
        key = _key(found, root.name)
        if key is None:
            if name.name in LISTS:
                lists[name.name].append(found)
            elif suffix in VIDEO_SUFFIXES:
                into.skip(found.name, Reason.NOT_A_CLIP, "not in main/ or pretrain/<19 digits>/<5 digits>.mp4")
            elif suffix in AUDIO_SUFFIXES:
                into.skip(found.name, Reason.NOT_A_CLIP, "sound that is no part of the release")
            else:
                into.skip(found.name, Reason.NOT_A_CLIP, f"a {suffix or 'suffixless'} file, not media")
        elif suffix in VIDEO_SUFFIXES:
            videos[key].append(found)
        elif options.subset not in ("all", key[0]):
            into.skip(found.name, Reason.NOT_ASKED, f"of {key[0]}; this run reads {options.subset}")
        elif suffix in AUDIO_SUFFIXES:
            into.skip(found.name, Reason.NOT_A_CLIP, "sound that someone took out of a clip; its own track is read")
        elif key in texts:
            into.skip(found.name, Reason.DUPLICATE_ID, f"the same transcript as {texts[key].name}, which is used")
        else:
            texts[key] = found
    listed = _read_lists(lists, into)
    _check_matches(listed, videos)
    words = {key: _transcript(key, found, key in videos, into) for key, found in texts.items()}
    for key, copies in videos.items():
        for clip in (_clip(key, found, words.get(key), _split(key, listed)) for found in copies):
            if options.subset in ("all", key[0]):
                into.clips.append(clip)
            else:
                into.exclude(clip, Reason.NOT_ASKED, f"of {key[0]}; this run reads {options.subset}")
    _note_missing(listed, videos, options.subset, into)
    into.finish()
    _describe(listed, into)
    return into


def _key(found: Found, root_name: str) -> _Key | None:
    """(subset, programme, number), from the path of a clip's video, sound or transcript. None for any other file."""
    path = (root_name, *found.parts)
    name = Path(path[-1])
    if len(path) < 3 or path[-3] not in SUBSETS or not _PROGRAMME.fullmatch(path[-2]):
        return None
    known = name.suffix.lower() == ".txt" or name.suffix.lower() in VIDEO_SUFFIXES | AUDIO_SUFFIXES
    return (path[-3], path[-2], name.stem) if known and _NUMBER.fullmatch(name.stem) else None


def _read_lists(lists: dict[str, list[Found]], into: Discovery) -> dict[str, set[_Key]]:
    """The clips of each list. If several lists have the same name, the list with the shortest path is read."""
    read: dict[str, set[_Key]] = {}
    for name, subset in LISTS.items():
        if not lists.get(name):
            continue
        best, *rest = sorted(lists[name], key=lambda found: (len(found.parts), found.name))
        for found in rest:
            into.skip(found.name, Reason.NOT_A_CLIP, f"{name} once more; {best.name} is read")
        try:
            lines = [line.split() for line in read_text(best.source).splitlines() if line.strip()]
        except ClipError as error:
            into.skip(best.name, error.reason, error.detail)
            continue
        keys: set[_Key] = set()
        unread = []
        for first, *_ in lines:  # in test.txt a flag (NF or MV) follows the clip
            if match := _LISTED.fullmatch(first.strip("\"',;").replace("\\", "/")):
                keys.add((subset, match[1], match[2]))
            else:
                unread.append(first)
        read[name] = keys
        bad = f", and {counted(len(unread), 'line')} naming none" if unread else ""
        into.skip(best.name, Reason.NOT_A_CLIP, f"the list of {len(keys)} clips, read{bad}")
        if unread:
            shown = printable(unread[0][:60])
            into.notes.append(f"{counted(len(unread), 'line')} of {best.name} name no clip, such as {shown!r}")
    return read


def _check_matches(listed: dict[str, set[_Key]], videos: dict[_Key, list[Found]]) -> None:
    """Raises UserError if there are lists and clips of main, and no list names one of the clips.

    A single list without a clip here is usual: parts of the release are often copied.
    """
    named = set().union(*(keys for name, keys in listed.items() if LISTS[name] == "main"))
    there = {key for key in videos if key[0] == "main"}
    if there and listed.keys() & {name for name, subset in LISTS.items() if subset == "main"} and not named & there:
        theirs = "/".join(min(named)[1:]) if named else "no clip"
        raise UserError(
            f"no list of LRS2 (train.txt, val.txt, test.txt) names a clip under the folder: the lists have {theirs}, "
            f"and the folder has {'/'.join(min(there)[1:])}; give the lists of the release, or remove them"
        )


def _transcript(key: _Key, found: Found, has_video: bool, into: Discovery) -> str | None:
    """The words of a transcript, in capitals as in the file. None if there are no words.

    The first line of the file is `Text:  WORDS`, and the second line is `Conf:  5`. In pretrain, a table of words and
    times follows. The transcript file is recorded as skipped, because a transcript is not a clip.
    """
    if not has_video:
        into.skip(found.name, Reason.NOT_A_CLIP, "the transcript of a clip without a video")
        return None
    try:
        lines = read_text(found.source).splitlines()
    except ClipError as error:
        into.skip(found.name, error.reason, error.detail)
        return None
    text = next((line.removeprefix("Text:") for line in lines if line.startswith("Text:")), None)
    if text is None:
        into.skip(found.name, Reason.BAD_LABEL, "a transcript without a line `Text:`")
        return None
    into.skip(found.name, Reason.NOT_A_CLIP, f"the transcript of {_id(key)}, read")
    return " ".join(_MARKS.sub(" ", text).split()) or None


def _split(key: _Key, listed: dict[str, set[_Key]]) -> str | None:
    if key[0] == "pretrain":
        return "train"
    return next((Path(name).stem for name in LISTS if key in listed.get(name, ())), None)


def _id(key: _Key) -> str:
    return "/".join(("lrs2", *key))


def _clip(key: _Key, found: Found, words: str | None, split: str | None) -> Clip:
    _, programme, number = key
    return Clip(
        clip_id=_id(key),
        dataset="lrs2",
        speaker=programme,
        video=found.source,
        take=number,
        transcript=words,
        split=split,
    )


def _note_missing(listed: dict[str, set[_Key]], videos: dict[_Key, list[Found]], asked: str, into: Discovery) -> None:
    """Records each listed clip that has no file. If no clip of a list has a file, adds one note for the whole list."""
    for name, keys in listed.items():
        subset = LISTS[name]
        absent = sorted(keys - videos.keys())
        if asked not in ("all", subset) or not absent:
            continue
        if len(absent) == len(keys):
            into.notes.append(f"none of the {len(keys)} clips of {name} is here")
            continue
        home = next(found[0].name for key, found in sorted(videos.items()) if key[0] == subset).rsplit("/", 2)[0]
        for _, programme, number in absent:
            into.skip(f"{home}/{programme}/{number}.mp4", Reason.MISSING_FILE, f"named in {name}, but not here")


def _describe(listed: dict[str, set[_Key]], into: Discovery) -> None:
    """Adds notes about the clips and lists that were found, and about missing labels."""
    counts = Counter(clip.clip_id.split("/")[1] for clip in into.clips)
    clips = ", ".join(f"{counts[subset]} clips in {subset}" for subset in SUBSETS if counts[subset])
    lists = ", ".join(f"{name} {len(keys)}" for name, keys in listed.items())
    into.notes.append(f"LRS2: {clips or 'no clips'}; lists: {lists or 'none'}")
    into.notes.append("LRS2 has no speaker ids: speaker is the programme, and no split is disjoint in people")
    main = [name for name, subset in LISTS.items() if subset == "main"]
    if counts["main"] and (lacking := [name for name in main if name not in listed]):
        into.notes.append(
            f"no {', '.join(lacking)} below the folder: a download of its own, which lies beside mvlrs_v1; "
            "give the folder above"
        )
    if unlisted := sum(clip.split is None for clip in into.clips):
        into.notes.append(f"{unlisted} clips of main stand in no list and have no split")
    if silent := sum(clip.transcript is None for clip in into.clips):
        into.notes.append(f"{silent} clips have no transcript")
    splits: defaultdict[str, set[str]] = defaultdict(set)
    for clip in into.clips:
        if clip.split is not None:
            splits[clip.speaker].add(clip.split)
    if shared := sum(len(theirs) > 1 for theirs in splits.values()):
        into.notes.append(f"{shared} of {len(splits)} programmes have clips in more than one split (pretrain is train)")


_BIBTEX = """@article{afouras2022lrs2,
  author = {Afouras, Triantafyllos and Chung, Joon Son and Senior, Andrew and Vinyals, Oriol and Zisserman, Andrew},
  title = {Deep Audio-Visual Speech Recognition},
  journal = {IEEE Transactions on Pattern Analysis and Machine Intelligence},
  volume = {44}, number = {12}, pages = {8717--8727}, year = {2022}}"""
READER = Reader("lrs2", discover, Lrs2Options, _BIBTEX)
