"""Reads CREMA-D: the release (VideoFlash/*.flv and AudioWAV/*.wav), and copies of the release with the same file names.

A clip is a file with the name <actor>_<sentence>_<emotion>_<level> in any folder, for example 1015_DFA_ANG_XX.flv or
crema_test/test/s15/1015_DFA_ANG_XX.mp4. If a clip has several files, the file of the release is used.

If there is a WAV file, the sound is read from the WAV file, because 28 FLV files were silent until December 2020. MP3
files are never used, because some MP3 files are silent and some are equal for several actors.

The label is the emotion that the actor was asked to show. With `--emotion-label voted`, the label is the emotion that
most viewers named, from processedResults/summaryTable.csv. If the votes are tied, the clip is then unlabelled.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from cmet_pipelines import tables
from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import LINK_LEFT, Discovery, Found, Reader, ReaderOptions
from talking_face.clip import Clip
from talking_face.emotions import DATASET_LABELS, canonical
from talking_face.media.source import open_source
from talking_face.media.suffixes import VIDEO_SUFFIXES
from talking_face.names import counted, printable
from talking_face.reasons import ClipError, Reason, UserError

# The sentences by their code; source: the README of the release.
SENTENCES = {
    "IEO": "It's eleven o'clock.",
    "TIE": "That is exactly what happened.",
    "IOM": "I'm on my way to the meeting.",
    "IWW": "I wonder what this is about.",
    "TAI": "The airplane is almost full.",
    "MTI": "Maybe tomorrow it will be cold.",
    "IWL": "I would like a new alarm clock.",
    "ITH": "I think I have a doctor's appointment.",
    "DFA": "Don't forget a jacket.",
    "ITS": "I think I've seen this before.",
    "TSI": "The surface is slick.",
    "WSI": "We'll stop in a couple of minutes.",
}
INTENSITY = {"XX": None, "LO": 1, "MD": 2, "HI": 3}  # XX: the actor was not asked for a level
VOTES = {"A": "angry", "D": "disgusted", "F": "fear", "H": "happy", "N": "neutral", "S": "sad"}
TABLE = "summaryTable.csv"

_NAME = re.compile(r"(1\d{3})_([A-Z]{3})_([A-Z]{3})_([A-Z]{1,2})")
_POINTER = 200  # bytes; a git-lfs pointer has 131 or 132 bytes, and the smallest media file has 4262 bytes
_FETCH = (
    "a git-lfs pointer, not media; in the clone run: git lfs pull (or clone gitlab.com/cs-cooper-lab/crema-d-mirror)"
)


class CremaDOptions(ReaderOptions):
    """Options of the CREMA-D reader."""

    emotion_label: Literal["intended", "voted"] = Field(
        default="intended",
        description="emotion that the actor was asked for (intended), or that most viewers named (voted)",
    )


@dataclass(frozen=True, slots=True)
class _Name:
    actor: str
    sentence: str
    emotion: str
    level: str

    def __str__(self) -> str:
        return f"{self.actor}_{self.sentence}_{self.emotion}_{self.level}"


@dataclass
class _Sorted:
    """The files of the dataset by kind. Videos and sounds are stored by the name of their clip."""

    names: dict[str, _Name] = field(default_factory=dict)
    videos: defaultdict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    sounds: defaultdict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    tables: list[Found] = field(default_factory=list)  # files with the viewers' votes
    pointers: int = 0  # git-lfs pointers in place of media


def discover(root: Path, options: CremaDOptions) -> Discovery:
    """All clips under `root` (resolved).

    Raises UserError if the root has only git-lfs pointers or sounds and no video. Also raises UserError if the option
    `voted` needs the table of votes and the table is missing.
    """
    into = Discovery()
    by_kind = _sort(root, into, options)
    _check_complete(root, by_kind, into)
    votes = _read_votes(by_kind, into)
    if options.emotion_label == "voted" and not by_kind.tables:
        raise UserError(
            f"{TABLE} is missing under {root}, so the votes are unknown; take processedResults/ from the release,\n"
            "or leave out --emotion-label voted"
        )
    for stem, name in by_kind.names.items():
        sound = _first(by_kind.sounds[stem], "AudioWAV", ".wav", into)
        video = _first(by_kind.videos[stem], "VideoFlash", ".flv", into)
        if video is not None:
            into.clips.append(_clip(name, video, sound, votes.get(stem)))
        elif sound is not None:
            into.skip(sound.name, Reason.NOT_A_CLIP, "sound of a clip without a video")
    _describe(into, votes if by_kind.tables else None, options.emotion_label)
    if options.emotion_label == "voted":
        into.clips = [replace(clip, emotion=clip.emotion_voted) for clip in into.clips]
    return into.finish()


def _sort(root: Path, into: Discovery, options: CremaDOptions) -> _Sorted:
    """The media files and the tables under the root, separated by kind. All other files are skipped."""
    by_kind = _Sorted()
    for found in files(root, into, options):
        suffix = Path(found.parts[-1]).suffix.lower()
        if found.parts[-1] == TABLE:
            by_kind.tables.append(found)
        elif suffix == ".mp3":
            into.skip(found.name, Reason.NOT_A_CLIP, "an MP3, never used: silent ones are shared by several actors")
        elif suffix != ".wav" and suffix not in VIDEO_SUFFIXES:
            into.skip(found.name, Reason.NOT_A_CLIP, f"a {suffix or 'suffixless'} file, not media")
        elif isinstance(name := _name(found.parts[-1]), str):
            into.skip(found.name, Reason.NOT_A_CLIP if name.startswith("file name") else Reason.BAD_LABEL, name)
        elif _is_pointer(found):
            by_kind.pointers += 1
            into.skip(found.name, Reason.LFS_POINTER, _FETCH)
        else:
            by_kind.names[str(name)] = name
            (by_kind.sounds if suffix == ".wav" else by_kind.videos)[str(name)].append(found)
    return by_kind


def _check_complete(root: Path, by_kind: _Sorted, into: Discovery) -> None:
    """Raises UserError if there is no video, but there are git-lfs pointers or sounds, and no link was left out."""
    if by_kind.videos or any(skip.detail == LINK_LEFT for skip in into.skipped):
        return
    if by_kind.pointers:
        raise UserError(f"{by_kind.pointers} files under {root} are git-lfs pointers, and no video is there: {_FETCH}")
    if by_kind.sounds:
        raise UserError(
            f"{root} holds the sound of {len(by_kind.sounds)} clips and no video; VideoFlash/ of the release is needed"
        )


def _name(file: str) -> _Name | str:
    """The labels in a file's name. If the name has no valid labels, the result is an error message."""
    stem = Path(file).stem
    match = _NAME.fullmatch(stem.upper())
    if match is None:
        return f"file name {file!r} is not <actor>_<sentence>_<emotion>_<level>, as in 1015_DFA_ANG_XX"
    actor, sentence, emotion, level = match.groups()
    level = "XX" if level == "X" else level  # until October 2022 the release had AudioWAV/1040_ITH_SAD_X.wav
    if sentence not in SENTENCES:
        return f"sentence {sentence!r} is none of CREMA-D's twelve"
    if emotion not in DATASET_LABELS["crema-d"]:
        return f"emotion {emotion!r} is none of CREMA-D's six"
    if level not in INTENSITY:
        return f"level {level!r} is none of {', '.join(INTENSITY)}"
    return _Name(actor, sentence, emotion, level)


def _is_pointer(found: Found) -> bool:
    """Whether the file is a git-lfs pointer, that is, a small text file in place of media."""
    try:
        size = found.source.size if found.source.member is not None else Path(found.source.path).stat().st_size
        if size is None or not 0 < size < _POINTER:
            return False
        with open_source(found.source):
            return False
    except ClipError as error:
        return error.reason is Reason.LFS_POINTER
    except OSError:  # for example a broken link; the error is reported when the clip is read
        return False


def _first(choice: list[Found], folder: str, suffix: str, into: Discovery) -> Found | None:
    """The file to use. The other files are skipped as duplicates.

    A file with the release's folder and suffix is preferred, then a file with the release's suffix in another folder.
    Among equal files, a file on disk is preferred to a file in a tar. If several files remain, the first file in the
    order of names is used.
    """
    if not choice:
        return None

    def order(found: Found) -> tuple[bool, bool, bool, str]:
        release = found.parts[-1].lower().endswith(suffix)
        return folder not in found.parts[:-1] or not release, not release, found.source.member is not None, found.name

    best, *rest = sorted(choice, key=order)
    for found in rest:
        into.skip(found.name, Reason.DUPLICATE_ID, f"the same clip as {best.name}, which is used")
    return best


def _clip(name: _Name, video: Found, sound: Found | None, vote: str | None) -> Clip:
    return Clip(
        clip_id=f"crema-d/{name}",
        dataset="crema-d",
        speaker=name.actor,
        video=video.source,
        audio=sound.source if sound else None,
        emotion=DATASET_LABELS["crema-d"][name.emotion],
        emotion_voted=vote,
        intensity=INTENSITY[name.level],
        sentence_id=name.sentence,
        transcript=SENTENCES[name.sentence],
    )


def _read_votes(by_kind: _Sorted, into: Discovery) -> dict[str, str | None]:
    """The emotion that most viewers named, by clip name; None for a tie. Only the first table is read.

    Raises UserError if the table cannot be read, or if no row of the table names a clip under the root.
    """
    if not by_kind.tables:
        return {}
    first, *others = by_kind.tables
    for found in others:
        into.skip(found.name, Reason.NOT_A_CLIP, f"votes once more; {first.name} is read")
    table = tables.read_table(first.source, f"the table of votes {first.name}", ("FileName", "MultiModalVote"))
    votes: dict[str, str | None] = {}
    unread = []
    for row in table.rows:
        name = _name(row.cells["filename"].replace("\\", "/"))
        letters = [_vote(text) for text in row.cells["multimodalvote"].split(":")]  # A:D is a tie
        if isinstance(name, str) or None in letters:
            unread.append(row.line)
        else:
            votes[str(name)] = letters[0] if len(letters) == 1 else None
    if by_kind.videos and not votes.keys() & by_kind.videos.keys():
        named = printable(table.rows[0].cells["filename"][:60]) if table.rows else "no row"
        raise UserError(
            f"no row of {table.name} names a clip under the folder; the table has {named!r}, and the folder has "
            f"{min(by_kind.videos)!r}; take processedResults/ from the release, or remove the table"
        )
    bad = f", and {counted(len(unread), 'line')} that cannot be read" if unread else ""
    into.skip(first.name, Reason.NOT_A_CLIP, f"votes on {len(votes)} clips, read{bad}")
    if unread:
        lines = ", ".join(map(str, unread[:5])) + (", ..." if unread[5:] else "")
        into.notes.append(f"{counted(len(unread), 'line')} of {first.name} that cannot be read: line {lines}")
    return votes


def _vote(text: str) -> str | None:
    """The emotion of a vote, `A` or `anger`. None if it is not an emotion of CREMA-D."""
    emotion = VOTES.get(text.strip().upper()) or canonical(text)
    return emotion if emotion in VOTES.values() else None


def _describe(into: Discovery, votes: dict[str, str | None] | None, label: str) -> None:
    """Adds notes about the files, the source of the sound, and the agreement of votes and intended emotions."""
    suffixes = Counter(Path(clip.video.member or clip.video.path).suffix.lower() for clip in into.clips)
    silent = sum(clip.audio is None for clip in into.clips)
    what = ", ".join(f"{count} {suffix}" for suffix, count in sorted(suffixes.items()))
    actors = len({clip.speaker for clip in into.clips})
    into.notes.append(f"CREMA-D: {what or 'no video'}; {len(into.clips)} clips of {actors} actors")
    if silent:
        into.notes.append(f"{silent} clips have no WAV; the video's own track is used")
    if votes is None:
        into.notes.append(f"no {TABLE}, so nobody's votes are known; emotions are what the actors were asked for")
        return
    asked = [clip for clip in into.clips if clip.clip_id.removeprefix("crema-d/") in votes]
    same = sum(clip.emotion_voted == clip.emotion for clip in asked)
    ties = sum(clip.emotion_voted is None for clip in asked)
    unknown = f"; {len(into.clips) - len(asked)} clips stand in no vote" if len(asked) < len(into.clips) else ""
    into.notes.append(
        f"emotions are as {label}; most votes and intention agree on {same} of {len(asked)} clips "
        f"({same / max(1, len(asked)):.1%}), {ties} are ties{unknown}"
    )


_BIBTEX = """@article{cao2014cremad,
  author = {Cao, Houwei and Cooper, David G. and Keutmann, Michael K. and Gur, Ruben C. and Nenkova, Ani and
            Verma, Ragini},
  title = {{CREMA-D}: Crowd-sourced Emotional Multimodal Actors Dataset},
  journal = {IEEE Transactions on Affective Computing},
  volume = {5}, number = {4}, pages = {377--390}, year = {2014}}"""
READER = Reader("crema-d", discover, CremaDOptions, _BIBTEX)
