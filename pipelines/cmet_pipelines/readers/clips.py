"""Reads any folder of clips in any container format, with labels from an optional CSV file.

The CSV file is the file that `--labels` names, or else `labels.csv` in the root. The columns of the CSV file are file,
clip_id, speaker, emotion, intensity, take, view, sentence_id, transcript, split and audio. Only `file` is required.
Unknown columns are ignored, and a note lists the unknown columns. `file` and `audio` are paths relative to the root. In
the path of a file in a tar, the name of the tar without its suffix is a folder: a.mp4 in day1.tar is day1/a.mp4.

If a clip has no speaker label, the name of the file's folder is used as the speaker. For a file directly in the root,
the file's name without the suffix is used as the speaker.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from pydantic import Field

from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import AUDIO_SUFFIXES, VIDEO_SUFFIXES, Discovery, Found, Reader, ReaderOptions
from talking_face.clip import Clip, MediaSource
from talking_face.emotions import EMOTIONS, canonical
from talking_face.media.source import open_source
from talking_face.reasons import ClipError, Reason, UserError

COLUMNS = (
    *("file", "clip_id", "speaker", "emotion", "intensity", "take"),
    *("view", "sentence_id", "transcript", "split", "audio"),
)
LABELS_NAME = "labels.csv"

_SPLITS = ("train", "val", "test")


class ClipsOptions(ReaderOptions):
    """Options of the `clips` reader."""

    labels: Path | None = Field(default=None, description=f"CSV of labels (default: ROOT/{LABELS_NAME})")

    def content(self) -> dict[str, object]:
        """Empty: labels are stored with every clip, so the path of the label file does not change the content."""
        return {}


def discover(root: Path, options: ClipsOptions) -> Discovery:
    """All videos under `root` (resolved), also in tars.

    A file is a video if it has the suffix of a video, a row in the label file, or the first bytes of a video.
    """
    into = Discovery()
    labels_path = options.labels or (root / LABELS_NAME if (root / LABELS_NAME).is_file() else None)
    labels = _read_labels(labels_path, root, into) if labels_path else {}
    videos, sounds = _sort(root, labels_path, labels, into)
    used = _label(videos, sounds, labels, into)
    _record_unused(labels, sounds, used, into)
    into.finish()
    _describe(labels_path, into)
    return into


def _sort(
    root: Path, labels_path: Path | None, labels: dict[str, dict[str, str]], into: Discovery
) -> tuple[list[Found], dict[str, Found]]:
    """(videos, sounds by path). All other files are skipped. A second sound with the same path is also skipped."""
    videos: list[Found] = []
    sounds: dict[str, Found] = {}
    for found in files(root, into):
        suffix = Path(found.parts[-1]).suffix.lower()
        if labels_path and found.source == MediaSource(str(labels_path.resolve())):
            into.skip(found.name, Reason.NOT_A_CLIP, "the label file, read")
        elif suffix in AUDIO_SUFFIXES:
            if _path(found) in sounds:
                into.skip(found.name, Reason.DUPLICATE_ID, f"the same sound as {sounds[_path(found)].name}")
            else:
                sounds[_path(found)] = found
        elif suffix in VIDEO_SUFFIXES or _path(found) in labels or _looks_like_video(found.source):
            videos.append(found)
        else:
            into.skip(found.name, Reason.NOT_A_CLIP, f"a {suffix or 'suffixless'} file, not media")
    return videos, sounds


def _label(
    videos: list[Found], sounds: dict[str, Found], labels: dict[str, dict[str, str]], into: Discovery
) -> set[str]:
    """Adds one clip per video with valid labels. Returns the paths of all videos and of the sounds that clips use."""
    by_stem = {_stem(name): sound for name, sound in sounds.items()}
    used: set[str] = set()
    for found in videos:
        path = _path(found)
        row = labels.get(path, {})
        used.add(path)
        named = _tidy(row.get("audio", ""))
        sound = sounds.get(named) or by_stem.get(_stem(path))
        if row.get("audio") and named not in sounds:
            into.skip(found.name, Reason.BAD_LABEL, f"its sound file {named!r} is no sound file under the folder")
            continue
        clip = _clip(found, row, sound.source if sound else None)
        if isinstance(clip, str):
            into.skip(found.name, Reason.BAD_LABEL, clip)
            continue
        if sound:
            used.add(_path(sound))
        into.clips.append(clip)
    return used


def _record_unused(
    labels: dict[str, dict[str, str]], sounds: dict[str, Found], used: set[str], into: Discovery
) -> None:
    """Records label rows without a video, and sounds that no clip uses, as skipped."""
    used = set(used)
    for name in labels.keys() - used:
        if name in sounds:
            into.skip(sounds[name].name, Reason.NO_VIDEO, "the label file names it as a clip, but it is sound alone")
            used.add(name)
        else:
            into.skip(name, Reason.MISSING_FILE, "named in the label file, but not under the folder")
    for name in sounds.keys() - used:
        into.skip(sounds[name].name, Reason.NOT_A_CLIP, "sound without a video of the same name")


def _describe(labels_path: Path | None, into: Discovery) -> None:
    """Adds notes about the source of the labels, and about emotions that are not among the suite's eight emotions."""
    where = f"labels from {labels_path}" if labels_path else f"no {LABELS_NAME}, so emotions are unknown"
    into.notes.append(f"{len(into.clips)} clips; {where}")
    if not labels_path:
        into.notes.append("speaker: the folder a file lies in; the file's own name for files directly in the root")
    if others := sorted({clip.emotion for clip in into.clips if clip.emotion} - set(EMOTIONS)):
        into.notes.append(f"emotions beyond the eight, kept as they are: {', '.join(others[:12])}")


def _tidy(name: str) -> str:
    """A path in normal form: with slashes, without `./`, and with composed Unicode characters.

    macOS stores the accents of file names as separate (decomposed) characters.
    """
    return unicodedata.normalize("NFC", str(PurePosixPath(name.replace("\\", "/"))))


def _path(found: Found) -> str:
    """The path of the file below the root. The name of a tar without its suffix is used as a folder of the path."""
    return _tidy(re.sub(r"(\.tar)?!", "/", found.name, flags=re.IGNORECASE))


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _clip(found: Found, row: dict[str, str], audio: MediaSource | None) -> Clip | str:
    """The labelled clip. If a label is not allowed, the result is an error message."""
    path = PurePosixPath(_path(found))
    intensity = row.get("intensity") or None
    if intensity is not None and not intensity.isdecimal():
        return f"intensity {intensity!r} is not a whole number"
    split = row.get("split") or None
    if split is not None and split not in _SPLITS:
        return f"split {split!r} is not one of {', '.join(_SPLITS)}"
    default_speaker = path.parent.as_posix() if len(path.parts) > 1 else path.stem
    return Clip(
        clip_id=row.get("clip_id") or f"clips/{path.with_suffix('')}",
        dataset="clips",
        speaker=row.get("speaker") or default_speaker,
        video=found.source,
        audio=audio,
        emotion=canonical(row["emotion"]) if row.get("emotion") else None,
        intensity=int(intensity) if intensity is not None else None,
        take=row.get("take") or path.stem,
        view=row.get("view") or None,
        sentence_id=row.get("sentence_id") or None,
        transcript=row.get("transcript") or None,
        split=split,
    )


def _read_labels(path: Path, root: Path, into: Discovery) -> dict[str, dict[str, str]]:
    """The rows of the CSV file, by the path in the column `file`. Raises UserError if the file is not a label table."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"the label file {path} does not exist") from None
    except UnicodeDecodeError:
        raise UserError(f"the label file {path} is not UTF-8 text; save it as CSV in UTF-8") from None
    except OSError as error:
        raise UserError(f"the label file {path} cannot be read: {error.strerror}; give a CSV") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    if "file" not in columns:
        has = ", ".join(columns) or "nothing"
        cure = "separate columns by commas" if len(columns) == 1 and re.search("[;\t|]", has) else "name one so"
        raise UserError(f"{path} has no column `file` (it has: {has}); {cure}")
    reader.fieldnames = columns
    if unknown := [name for name in columns if name not in COLUMNS]:
        into.notes.append(f"columns of {path.name} that mean nothing here: {', '.join(unknown)}")
    rows: dict[str, dict[str, str]] = {}
    for line, row in _lines(reader, path):
        given = (row.get("file") or "").strip()
        if not given:
            raise UserError(f"{path} names no file in line {line}; fill the column `file`, or remove the line")
        name = _tidy(given)
        if PurePosixPath(name).is_relative_to(root):
            name = str(PurePosixPath(name).relative_to(root))
        if name in rows:
            raise UserError(f"{path} names {name!r} twice (line {line}); keep one row a file")
        rows[name] = {key: (value or "").strip() for key, value in row.items() if key in COLUMNS}
    return rows


def _lines(reader: csv.DictReader, path: Path) -> Iterator[tuple[int, dict]]:
    """(line number, row) of every line that is not empty. Raises UserError for too many cells and for broken quotes."""
    try:
        for row in reader:
            if any((cell or "").strip() for cell in row.get(None) or ()):  # type: ignore[call-overload]
                detail = "has more cells than columns; put text with commas in quotes"
                raise UserError(f"{path} line {reader.line_num} {detail}")
            if any((value or "").strip() for key, value in row.items() if key is not None):
                yield reader.line_num, row
    except csv.Error as error:
        raise UserError(f"{path} is not a CSV after line {reader.line_num}: {error}") from None


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
