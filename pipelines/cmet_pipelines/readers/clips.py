"""Reads any folder of clips in any container format, with labels from an optional CSV file.

The CSV file is the file that `--labels` names, or else `labels.csv` in the root. The columns of the CSV file are file,
clip_id, speaker, emotion, intensity, take, view, sentence_id, transcript, split and audio. Only `file` is required.
Unknown columns are ignored, and a note lists the unknown columns. `file` and `audio` are paths relative to the root. In
the path of a file in a tar, the name of the tar without its suffix is a folder: a.mp4 in day1.tar is day1/a.mp4. A path
in another form is accepted if only one file fits it (`cmet_pipelines.readers.label_paths`).

If a clip has no speaker label, the name of the file's folder is used as the speaker. For a file directly in the root,
the file's name without the suffix is used as the speaker.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from pydantic import Field

from cmet_pipelines import tables
from cmet_pipelines.readers import label_paths
from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import Discovery, Found, Reader, ReaderOptions
from talking_face.clip import Clip, MediaSource
from talking_face.emotions import EMOTIONS, canonical
from talking_face.media.source import open_source
from talking_face.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from talking_face.names import check_id, check_label, counted, printable
from talking_face.origin import Stated
from talking_face.reasons import ClipError, Reason, UserError

COLUMNS = (
    *("file", "clip_id", "speaker", "emotion", "intensity", "take"),
    *("view", "sentence_id", "transcript", "split", "audio"),
)
LABELS_NAME = "labels.csv"

_SPLITS = ("train", "val", "test")
_WORDS = ("file", "clip_id", "speaker", "transcript", "audio")  # columns in which `nan` or `None` can be meant


class ClipsOptions(ReaderOptions):
    """Options of the `clips` reader."""

    labels: Path | None = Field(default=None, description=f"CSV of labels (default: ROOT/{LABELS_NAME})")
    origin: Stated | None = Field(
        default=None, description="what the clips are, which boards print: drawn by a program, or recorded"
    )

    def content(self) -> dict[str, object]:
        """The stated origin. Labels are stored with every clip, so their path does not change the content."""
        return {} if self.origin is None else {"origin": self.origin}


@dataclass(frozen=True)
class _Labels:
    """The rows of the label file, by the path of their video as the label file spells it."""

    name: str  # file name of the label file
    path: str  # its real path
    rows: Mapping[str, Mapping[str, str]]


def discover(root: Path, options: ClipsOptions) -> Discovery:
    """All videos under `root` (resolved), also in tars.

    A file is a video if it has the suffix of a video, a row in the label file, or the first bytes of a video.
    """
    into = Discovery()
    labels = _read_labels(options.labels, root, into)
    videos, sounds = _sort(root, labels, into, options)
    rows = _rows_of_videos(labels, videos, sounds, into) if labels else {}
    used = _label(videos, sounds, rows, into)
    for name in sounds.keys() - used:
        into.skip(sounds[name].name, Reason.NOT_A_CLIP, "sound without a video of the same name")
    into.finish()
    _describe(labels, rows, into)
    return into


def _sort(
    root: Path, labels: _Labels | None, into: Discovery, options: ClipsOptions
) -> tuple[list[Found], dict[str, Found]]:
    """(videos, sounds by path). All other files are skipped. A second sound with the same path is also skipped."""
    videos: list[Found] = []
    sounds: dict[str, Found] = {}
    for found in files(root, into, options):
        name = found.parts[-1]
        suffix = name[len(_stem(name)) :].strip().lower()
        if labels and found.source == MediaSource(labels.path):
            into.skip(found.name, Reason.NOT_A_CLIP, f"the label file of {counted(len(labels.rows), 'row')}, read")
        elif suffix in AUDIO_SUFFIXES:
            if _path(found) in sounds:
                into.skip(found.name, Reason.DUPLICATE_ID, f"the same sound as {sounds[_path(found)].name}")
            else:
                sounds[_path(found)] = found
        elif suffix in VIDEO_SUFFIXES or (labels and _path(found) in labels.rows) or _looks_like_video(found.source):
            videos.append(found)
        else:
            into.skip(found.name, Reason.NOT_A_CLIP, f"a {printable(suffix) or 'suffixless'} file, not media")
    return videos, sounds


def _rows_of_videos(
    labels: _Labels, videos: list[Found], sounds: dict[str, Found], into: Discovery
) -> dict[str, Mapping[str, str]]:
    """The row of each video, by the video's path. Rows without a video are recorded as skipped.

    Raises UserError if there are videos, and no row names one of them.
    """
    paths = {_path(found) for found in videos}
    matches = label_paths.match(labels.rows.keys(), paths)
    if videos and labels.rows and not matches.file:
        raise UserError(
            f"no row of {labels.name} names a file under the folder; the column `file` has "
            f"{_some(labels.rows)}, and the folder has {_some(paths)}"
        )
    for name in labels.rows.keys() - matches.file.keys():
        shown = printable(name)
        if several := matches.ambiguous.get(name):
            into.skip(shown, Reason.BAD_LABEL, f"a row of the label file that can mean {_some(several)}; not used")
        elif name in sounds:
            into.skip(shown, Reason.NO_VIDEO, "the label file names it as a clip, but it is sound alone")
        else:
            into.skip(shown, Reason.MISSING_FILE, "named in the label file, but not under the folder")
    if matches.respelt:
        pairs = (f"{printable(name)!r} for {printable(matches.file[name])!r}" for name in sorted(matches.respelt)[:3])
        some = counted(len(matches.respelt), "row")
        into.notes.append(f"{some} of {labels.name} spelt another way than the file, such as {', '.join(pairs)}")
    return {file: labels.rows[name] for name, file in matches.file.items()}


def _label(
    videos: list[Found], sounds: dict[str, Found], rows: Mapping[str, Mapping[str, str]], into: Discovery
) -> set[str]:
    """Adds one clip per video with valid labels. Returns the paths of the sounds that have a row or a clip.

    A sound is found by the column `audio`, or by the name of the video.
    """
    by_stem = {_stem(name): sound for name, sound in sounds.items()}
    asked = {_tidy(row["audio"]) for row in rows.values() if tables.has_value(row.get("audio", ""))}
    named = label_paths.match(asked, sounds.keys()).file
    used = {_tidy(skip.path) for skip in into.skipped if skip.reason is Reason.NO_VIDEO}
    for found in videos:
        path = _path(found)
        row = rows.get(path, {})
        sound = by_stem.get(_stem(path))
        if tables.has_value(audio := row.get("audio", "")):
            if _tidy(audio) not in named:
                detail = f"its sound file {printable(audio)!r} is no sound file under the folder"
                into.skip(found.name, Reason.BAD_LABEL, detail)
                continue
            sound = sounds[named[_tidy(audio)]]
        try:
            into.clips.append(_clip(found, path, row, sound.source if sound else None))
        except ValueError as error:
            into.skip(found.name, Reason.BAD_LABEL, str(error))
            continue
        if sound:
            used.add(_path(sound))
    return used


def _describe(labels: _Labels | None, rows: Mapping[str, Mapping[str, str]], into: Discovery) -> None:
    """Adds notes about the source of the labels, and about emotions that are not among the suite's eight emotions."""
    where = f"no {LABELS_NAME}, so emotions are unknown"
    if labels:
        where = f"labels from {labels.name}: {len(rows)} of {counted(len(labels.rows), 'row')} name a video"
    into.notes.append(f"{len(into.clips)} clips; {where}")
    if not labels:
        into.notes.append("speaker: the folder a file lies in; the file's own name for files directly in the root")
    elif unlabelled := sum(clip.emotion is None for clip in into.clips):
        into.notes.append(f"{unlabelled} of {counted(len(into.clips), 'clip')} without an emotion label")
    if others := sorted({clip.emotion for clip in into.clips if clip.emotion} - set(EMOTIONS)):
        into.notes.append(f"emotions beyond the eight, kept as they are: {', '.join(others[:12])}")


def _some(names: Mapping[str, object] | set[str] | list[str]) -> str:
    shown = [repr(printable(name)) for name in sorted(names)[:3]]
    return ", ".join(shown) + (", ..." if len(names) > len(shown) else "")


def _tidy(name: str) -> str:
    """A path in normal form: with slashes, without `./`, and with composed Unicode characters.

    macOS stores the accents of file names as separate (decomposed) characters.
    """
    return unicodedata.normalize("NFC", str(PurePosixPath(name.replace("\\", "/"))))


def _path(found: Found) -> str:
    """The path of the file below the root. The name of a tar without its suffix is used as a folder of the path."""
    *tars, last = found.place
    if tars:
        folders = (re.sub(r"\.tar$", "", tar, flags=re.IGNORECASE) for tar in tars)
        last = str(PurePosixPath(*folders, last))
    return unicodedata.normalize("NFC", last)


def _stem(path: str) -> str:
    """The path without its suffix. It is not a `PurePosixPath`, which takes 10 us for each of up to a million files."""
    stem, _, suffix = path.rpartition(".")
    return stem if suffix and "/" not in suffix and stem and not stem.endswith("/") else path


def _clip(found: Found, path: str, row: Mapping[str, str], audio: MediaSource | None) -> Clip:
    """The labelled clip. `path` is `_path(found)`. Raises ValueError if a label is not allowed."""
    folder, _, name = path.rpartition("/")
    labels = {name: text for name, text in row.items() if name not in _WORDS and tables.has_value(text)}
    speaker = row.get("speaker", "")
    speaker = "" if speaker.lower() in ("nan", "n/a") else speaker  # `None` and `NA` can be names
    split = labels.get("split", "").lower() or None
    if split is not None and split not in _SPLITS:
        raise ValueError(f"split {split!r} is not one of {', '.join(_SPLITS)}")
    own_id = (row.get("clip_id") or _stem(path)).removeprefix("clips/")
    return Clip(
        clip_id=check_id(f"clips/{printable(own_id)}"),
        dataset="clips",
        speaker=printable(speaker or folder or _stem(name)),
        video=found.source,
        audio=audio,
        emotion=_emotion(labels["emotion"]) if "emotion" in labels else None,
        intensity=_intensity(labels["intensity"]) if "intensity" in labels else None,
        take=printable(labels.get("take") or _stem(name)),
        view=_label_of(labels, "view"),
        sentence_id=_label_of(labels, "sentence_id"),
        transcript=row.get("transcript") or None,
        split=split,
    )


def _emotion(text: str) -> str:
    emotion = canonical(text)
    try:
        return check_label(emotion)
    except ValueError as error:
        raise ValueError(f"emotion {error}") from None


def _intensity(text: str) -> int:
    """The level of a cell such as `3` or `3.0`. Raises ValueError for other text, and for a level over 100."""
    number = re.fullmatch(r"(\d{1,3})(?:\.0*)?", text)
    if number is None or int(number[1]) > 100:
        raise ValueError(f"intensity {printable(text[:40])!r} is not a whole number from 0 to 100")
    return int(number[1])


def _label_of(labels: Mapping[str, str], name: str) -> str | None:
    return printable(labels[name]) if name in labels else None


def _read_labels(given: Path | None, root: Path, into: Discovery) -> _Labels | None:
    """The rows of the label file. None if no file is given, and the root has none.

    Raises UserError if the file is not a label table.
    """
    path = given or root / LABELS_NAME
    if not given and not path.is_file():
        return None
    name = f"the label file {printable(path.name)}"
    table = tables.read_table(path, name, ("file",), raw=("file", "audio"))
    if not table.rows:
        raise UserError(f"{name} has no row; fill it, or remove it")
    if unknown := [column for column in table.columns if column and column not in COLUMNS]:
        shown = printable(", ".join(unknown))[:300]
        into.notes.append(f"columns of {printable(path.name)} that mean nothing here: {shown}")
    rows: dict[str, Mapping[str, str]] = {}
    for row in table.rows:
        if not row.cells["file"]:
            raise UserError(f"{name} names no file in line {row.line}; fill the column `file`, or remove the line")
        file = _tidy(row.cells["file"])
        if PurePosixPath(file).is_relative_to(root):
            file = str(PurePosixPath(file).relative_to(root))
        if file in rows:
            raise UserError(f"{name} names {printable(file)!r} twice (line {row.line}); keep one row a file")
        rows[file] = row.cells
    return _Labels(name, str(path.resolve()), rows)


def _looks_like_video(source: MediaSource) -> bool:
    """Whether the file begins with the first bytes of a common container format. The file's suffix does not matter."""
    try:
        with open_source(source) as file:
            head = file.read(16)
    except (ClipError, OSError):
        return False
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat")
        or head.startswith(
            (b"\x1aE\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u\x8ef\xcf\x11")
        )
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    )


READER = Reader("clips", discover, ClipsOptions)
