"""Reads MEAD from folders or tars with any nesting, in every view.

The number of a file gives the take of the clip. The number does not give the sentence; numbering.py finds the sentence.

A file is recognised from the last parts of its path:
    <view>/<emotion>/level_<n>/<number>.mp4       video
    audio/<emotion>/level_<n>/<number>.m4a        sound, shared by all views of the take
So `M003/video/front/...`, `Part0/M003/video/1/front/...`, `W009_video/video/front/...` and tar members such as
`M003/video.tar!video/front/...` are all recognised. The actor is read from the name of a folder or archive above the
file. If several of these names contain an actor, the name nearest to the file is used.

Two other projects, EAT and EDTalk, put all labels except the view into the file name: `W009_con_3_028.mp4` and
`W009#contempt#level_3#028.mp4`. The view of such files is front.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import Field

from cmet_pipelines import lists, numbering
from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import Discovery, Found, Reader, ReaderOptions
from talking_face.clip import Clip
from talking_face.emotions import DATASET_LABELS, canonical
from talking_face.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from talking_face.reasons import Reason, UserError

VIEWS = ("front", "down", "top", "left_30", "left_60", "right_30", "right_60")

_ID = r"[MW]\d{3}(?:-\d(?!\d))?"
# Examples: M003, M026-2, W009_video, M003.tar, M003-20210510T101500Z-001 (from a zip file of Google Drive)
_ACTOR = re.compile(rf"({_ID})(?:[_ .-].*)?")
_EDTALK = re.compile(rf"({_ID})#(\w+)#level_([1-3])#(\d{{3}})")
_EAT = re.compile(rf"({_ID})_([a-z]{{3}})_([1-3])_(\d{{3}})")
_LEVEL = re.compile(r"level[_ -]?([1-3])", re.IGNORECASE)
_NUMBER = re.compile(r"\d{3}")
_SHORT = {name[:3]: name for name in DATASET_LABELS["mead"]}
_WHERE = "not in <view>/<emotion>/level_<n>/ or audio/<emotion>/level_<n>/"


class MeadOptions(ReaderOptions):
    """Options of the MEAD reader."""

    view: str = Field(default="front", description=f"camera view: {', '.join(VIEWS)}, or all")
    numbering: str | None = Field(default=None, description="sentences of numbers: cmet, cmet-release, or a CSV")

    def content(self) -> dict[str, object]:
        """The view, and either the name of the numbering scheme or the hash of the user's CSV file."""
        return {"view": self.view, "numbering": self.numbering and lists.identity(self.numbering)}


class Take(NamedTuple):
    """One recording of an actor: one sound, and videos from up to seven views."""

    actor: str
    emotion: str  # MEAD's name of the emotion
    level: int
    number: str


class _NotAClip(Exception):
    """Raised for a file that is not a clip, with the arguments (reason, detail)."""


@dataclass
class _Sorted:
    """The recognised files of the dataset."""

    videos: list[tuple[Take, str, Found]] = field(default_factory=list)  # take, view, file
    sounds: dict[Take, Found] = field(default_factory=dict)
    numbers: defaultdict[numbering.Folder, set[int]] = field(default_factory=lambda: defaultdict(set))
    places: Counter[str] = field(default_factory=Counter)  # numbers of files in archives and in folders


def discover(root: Path, options: MeadOptions) -> Discovery:
    """All clips under `root` (resolved) of the view in `options`. A clip includes its sound file if there is one."""
    if options.view != "all" and options.view not in VIEWS:
        raise UserError(f"MEAD has no view {options.view!r}; it has {', '.join(VIEWS)}, or all")
    into = Discovery()
    recognised = _sort(root, into, options)
    clips = [_clip(take, view, found, recognised.sounds.get(take)) for take, view, found in recognised.videos]
    clips, notes = numbering.name_sentences(options.numbering, clips, recognised.numbers)
    for clip in clips:
        if options.view in ("all", clip.view):
            into.clips.append(clip)
        else:
            into.exclude(clip, Reason.NOT_ASKED, f"view {clip.view}; this run reads {options.view}")
    for take in recognised.sounds.keys() - {take for take, _, _ in recognised.videos}:
        into.skip(recognised.sounds[take].name, Reason.NOT_A_CLIP, "sound of a take without a video")
    _describe(into, options.view, recognised)
    into.notes += notes
    return into.finish()


def _sort(root: Path, into: Discovery, options: MeadOptions) -> _Sorted:
    """The videos and sounds under the root. All other files are skipped."""
    recognised = _Sorted()
    for found in files(root, into, options):
        try:
            take, view = _label(found, root)
        except _NotAClip as error:
            into.skip(found.name, *error.args)
            continue
        recognised.places["archives" if found.source.member else "folders"] += 1
        folder = (take.actor, DATASET_LABELS["mead"][take.emotion], take.level)
        recognised.numbers[folder].add(int(take.number))
        if view is not None:
            recognised.videos.append((take, view, found))
        elif take in recognised.sounds:
            detail = f"the same take's sound as {recognised.sounds[take].name}, which is used"
            into.skip(found.name, Reason.DUPLICATE_ID, detail)
        else:
            recognised.sounds[take] = found
    return recognised


def _clip(take: Take, view: str, found: Found, sound: Found | None) -> Clip:
    return Clip(
        clip_id=f"mead/{take.actor}/{view}/{take.emotion}/{take.level}/{take.number}",
        dataset="mead",
        speaker=take.actor,
        video=found.source,
        audio=sound.source if sound else None,
        emotion=DATASET_LABELS["mead"][take.emotion],
        intensity=take.level,
        take=take.number,
        view=view,
    )


def _label(found: Found, root: Path) -> tuple[Take, str | None]:
    """(take, view) of a video, or (take, None) of a sound. Raises _NotAClip for any other file."""
    parts = (*root.parts, *found.parts)  # the root can be inside an actor's folder
    name = Path(parts[-1])
    suffix = name.suffix.lower()
    if suffix not in VIDEO_SUFFIXES and suffix not in AUDIO_SUFFIXES:
        raise _NotAClip(Reason.NOT_A_CLIP, f"a {suffix or 'suffixless'} file, not media")
    is_sound = suffix in AUDIO_SUFFIXES
    if flat := _EDTALK.fullmatch(name.stem) or _EAT.fullmatch(name.stem):
        actor, emotion, level, number = flat.groups()
        take = Take(actor, _emotion(_SHORT.get(emotion, emotion)), int(level), number)
        return take, None if is_sound else "front"
    kind, emotion, level_name = (parts[-4].lower(), *parts[-3:-1]) if len(parts) >= 4 else ("", "", "")
    if kind not in VIEWS and kind != "audio":
        raise _NotAClip(Reason.NOT_A_CLIP, _WHERE)
    if (kind == "audio") != is_sound:
        raise _NotAClip(Reason.NOT_A_CLIP, f"a {suffix} file under {kind}/")
    emotion = _emotion(emotion)
    if not (numbered := _LEVEL.fullmatch(level_name)):
        raise _NotAClip(Reason.BAD_LABEL, f"level folder {level_name!r} is not level_1 to level_3")
    if not _NUMBER.fullmatch(name.stem):
        raise _NotAClip(Reason.NOT_A_CLIP, f"file name {name.name!r} is not a three-digit number")
    # Look for the actor's name in the folders and archives above the file, nearest first, also above the root.
    above = [*root.parts, *(part for place in found.place for part in place.split("/"))]
    for folder in reversed(above[:-4]):
        if actor_name := _ACTOR.fullmatch(folder):
            return Take(actor_name[1], emotion, int(numbered[1]), name.stem), None if is_sound else kind
    raise _NotAClip(
        Reason.BAD_LABEL, "actor unknown: no folder above is named like M003 or W021-1; name one after its actor"
    )


def _emotion(name: str) -> str:
    """MEAD's emotion for the name of a folder or file, such as `angry`, `Angry` or `anger`. Raises _NotAClip."""
    emotion = canonical(name)
    if emotion not in DATASET_LABELS["mead"]:
        raise _NotAClip(Reason.BAD_LABEL, f"emotion {name!r} is none of MEAD's eight")
    return emotion


def _describe(into: Discovery, view: str, recognised: _Sorted) -> None:
    """Adds notes about the layout, the number of clips, missing sound files, and folders with gaps in their numbers."""
    places = ", ".join(f"{count} files in {place}" for place, count in recognised.places.items())
    into.notes.append(f"MEAD layout: {places or 'none'}")
    actors = {clip.speaker for clip in into.clips}
    into.notes.append(f"view {view}: {len(into.clips)} clips of {len(actors)} actors")
    if silent := sum(clip.audio is None for clip in into.clips):
        into.notes.append(f"{silent} clips have no sound file; the video's own track is used")
    if gaps := numbering.gapped(recognised.numbers):
        into.notes.append(
            f"{len(gaps)} folders of {len({actor for actor, _, _ in gaps})} actors count past their 30 or 40 clips, "
            "as the release does there: a number is no rank (docs/reference/datasets.md)"
        )


_BIBTEX = """@inproceedings{wang2020mead,
  author = {Wang, Kaisiyuan and Wu, Qianyi and Song, Linsen and Yang, Zhuoqian and Wu, Wayne and Qian, Chen and
            He, Ran and Qiao, Yu and Loy, Chen Change},
  title = {{MEAD}: A Large-scale Audio-visual Dataset for Emotional Talking-face Generation},
  booktitle = {ECCV}, pages = {700--717}, year = {2020}}"""
READER = Reader("mead", discover, MeadOptions, _BIBTEX)
