"""Any folder of clips, any container, with labels from an optional CSV (`labels.csv` in the root, or the one given).

CSV columns (only `file` is needed; further columns are ignored and named): file, clip_id, speaker, emotion, intensity,
take, view, sentence_id, transcript, split, audio. `file` and `audio` are paths below the root. Without a CSV, the
speaker is the folder that a file lies in, and the file's own name where it lies in the root itself.
"""

from __future__ import annotations

import csv
from pathlib import Path, PurePosixPath

from pipelines.readers.base import AUDIO_SUFFIXES, VIDEO_SUFFIXES, Discovery, Found, ReaderOptions, walk
from talking_face.clip import Clip, MediaSource
from talking_face.emotions import canonical
from talking_face.reasons import Reason, UserError

COLUMNS = (
    *("file", "clip_id", "speaker", "emotion", "intensity", "take"),
    *("view", "sentence_id", "transcript", "split", "audio"),
)
LABELS_NAME = "labels.csv"

_SPLITS = ("train", "val", "test")


def discover(root: Path, options: ReaderOptions) -> Discovery:
    """All files under `root` (resolved) that are, or look like, video."""
    into = Discovery()
    labels_path = options.labels or (root / LABELS_NAME if (root / LABELS_NAME).is_file() else None)
    labels = _read_labels(labels_path, into) if labels_path else {}
    videos: list[Found] = []
    sounds: dict[str, Found] = {}
    for found in walk(root, into):
        suffix = Path(found.parts[-1]).suffix.lower()
        if labels_path and Path(found.source.path) == labels_path.resolve():
            into.skip(found.name, Reason.NOT_A_CLIP, "the label file, read")
        elif suffix in AUDIO_SUFFIXES:
            sounds[found.name] = found
        elif suffix in VIDEO_SUFFIXES or found.name in labels or _looks_like_video(Path(found.source.path)):
            videos.append(found)
        else:
            into.skip(found.name, Reason.NOT_A_CLIP, f"a {suffix or 'suffixless'} file, not media")
    by_stem = {str(PurePosixPath(name).with_suffix("")): sound for name, sound in sounds.items()}
    used: set[str] = set()
    for found in videos:
        row = labels.pop(found.name, {})
        sound = sounds.get(row.get("audio", "")) or by_stem.get(str(PurePosixPath(found.name).with_suffix("")))
        if row.get("audio") and row["audio"] not in sounds:
            into.skip(found.name, Reason.BAD_LABEL, f"its sound file {row['audio']!r} is not under the folder")
            continue
        clip = _clip(found, row, sound.source if sound else None)
        if isinstance(clip, str):
            into.skip(found.name, Reason.BAD_LABEL, clip)
            continue
        if sound:
            used.add(sound.name)
        into.clips.append(clip)
    for name in labels:
        into.skip(name, Reason.MISSING_FILE, "named in the label file, but not under the folder")
    for name in sounds.keys() - used:
        into.skip(name, Reason.NOT_A_CLIP, "sound without a video of the same name")
    where = f"labels from {labels_path}" if labels_path else f"no {LABELS_NAME}, so emotions are unknown"
    into.notes.append(f"{len(into.clips)} clips; {where}")
    if not labels_path:
        into.notes.append("speaker: the folder a file lies in; the file's own name for files directly in the root")
    return into.finish()


def _clip(found: Found, row: dict[str, str], audio: MediaSource | None) -> Clip | str:
    """The labelled clip, or a sentence about a label that cannot be."""
    path = PurePosixPath(found.name)
    intensity = row.get("intensity") or None
    if intensity is not None and not intensity.isdigit():
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


def _read_labels(path: Path, into: Discovery) -> dict[str, dict[str, str]]:
    """CSV rows by `file`. Raises UserError where the file is no such table."""
    try:
        text = path.read_text("utf-8-sig")
    except FileNotFoundError:
        raise UserError(f"the label file {path} does not exist") from None
    except UnicodeDecodeError:
        raise UserError(f"the label file {path} is not UTF-8 text; save it as CSV in UTF-8") from None
    reader = csv.DictReader(text.splitlines())
    columns = [name.strip().lower() for name in reader.fieldnames or ()]
    if "file" not in columns:
        raise UserError(f"{path} has no column `file` (it has: {', '.join(columns) or 'nothing'}); name one so")
    reader.fieldnames = columns
    if unknown := [name for name in columns if name not in COLUMNS]:
        into.notes.append(f"columns of {path.name} that mean nothing here: {', '.join(unknown)}")
    rows: dict[str, dict[str, str]] = {}
    for row in reader:
        name = str(PurePosixPath((row.get("file") or "").strip()))
        if name in rows:
            raise UserError(f"{path} names {name!r} twice (line {reader.line_num}); keep one row a file")
        rows[name] = {key: (value or "").strip() for key, value in row.items() if key in COLUMNS}
    return rows


def _looks_like_video(path: Path) -> bool:
    """Whether the first bytes are those of a common container: such a file is tried whatever its name."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError:
        return False
    return (
        head[4:8] in (b"ftyp", b"moov", b"mdat")
        or head.startswith(
            (b"\x1aE\xdf\xa3", b"FLV\x01", b"\x00\x00\x01\xba", b"\x00\x00\x01\xb3", b"0&\xb2u\x8ef\xcf\x11")
        )
        or (head.startswith(b"RIFF") and head[8:12] == b"AVI ")
    )
