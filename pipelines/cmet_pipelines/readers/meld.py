"""Reads MELD: the folders of the three splits, flat or nested, and the three CSV files of labels in any folder.

A clip is identified by (split, dialogue, utterance), because the same file name occurs in all splits. The labels are
read from the files <split>_sent_emo.csv in any folder below the root. `--labels` can name another folder with these CSV
files, or a single CSV file. The times in the CSV files are not used.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from cmet_pipelines import tables
from cmet_pipelines.readers.archives import files
from cmet_pipelines.readers.base import Discovery, Found, Reader, ReaderOptions
from talking_face.clip import Clip, MediaSource
from talking_face.emotions import DATASET_LABELS, canonical
from talking_face.media.suffixes import AUDIO_SUFFIXES, VIDEO_SUFFIXES
from talking_face.names import counted, printable
from talking_face.reasons import Reason, UserError

SPLITS = {"train": "train", "dev": "val", "test": "test"}  # MELD's name of each split, and its name in this suite

# Folder names of the splits in the release's archives, in mirrors, and after common renaming.
_FOLDERS = {
    **{name: "train" for name in ("train_splits", "train")},
    **{name: "dev" for name in ("dev_splits_complete", "dev_splits", "dev", "val")},
    **{name: "test" for name in ("output_repeated_splits_test", "test_splits", "test")},
}
_NAME = re.compile(r"(final_videos_test)?_?dia(\d+)_utt(\d+)", re.IGNORECASE)
_LABELS = re.compile(r"(train|dev|test)_sent_emo\.csv", re.IGNORECASE)
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")

# Label files from before November 2020, and the label files in the raw archives, contain Windows-1252 text that was
# wrongly decoded as Latin-1. This table replaces the wrong control characters by the Windows-1252 characters.
_C1 = {code: bytes([code]).decode("cp1252", "ignore") for code in range(0x80, 0xA0)}
_QUOTES = str.maketrans("‘’“”", "''\"\"")

_Key = tuple[str, int, int]  # split, dialogue, utterance


class MeldOptions(ReaderOptions):
    """Options of the MELD reader."""

    labels: Path | None = Field(default=None, description="folder of the label CSVs, or one of them")

    def content(self) -> dict[str, object]:
        """Empty: labels are stored with every clip, so the path of the CSV files does not change the content."""
        return {}


@dataclass(frozen=True, slots=True)
class _Labels:
    speaker: str
    emotion: str
    transcript: str


def discover(root: Path, options: MeldOptions) -> Discovery:
    """All clips under `root` (resolved) that have a row in a label file."""
    into = Discovery()
    # If a file has several copies, the first copy in this order is used: files on disk come before files in archives,
    # and then files nearer to the root come first.
    below = sorted(files(root, into, options), key=lambda f: (f.source.member is not None, len(f.parts), f.name))
    rows, labelled = _read_labels(_given_labels(options.labels), below, into)
    videos: defaultdict[_Key, list[Found]] = defaultdict(list)
    for found in below:
        if _LABELS.fullmatch(found.parts[-1]):
            continue
        key = _key(found, root)
        if isinstance(key, tuple):
            videos[key].append(found)
        else:
            into.skip(found.name, Reason.BAD_LABEL if key.startswith("split") else Reason.NOT_A_CLIP, key)
    _check_matches(rows, videos, into)
    layouts: Counter[tuple[str, str]] = Counter()
    for key, choice in videos.items():
        video = _choose(choice, into)
        layouts[key[0], video.name.rpartition("/")[0] or "."] += 1
        clip = _clip(key, video, rows.get(key), key[0] in labelled)
        if isinstance(clip, Clip):
            into.clips.append(clip)
        else:
            into.skip(video.name, *clip)
    _note_missing(rows, videos, layouts, into)
    _describe(labelled, layouts, into)
    return into.finish()


def _key(found: Found, root: Path) -> _Key | str:
    """(split, dialogue, utterance). If the file is not a clip, the result is a message with the reason."""
    name = Path(found.parts[-1])
    suffix = name.suffix.lower()
    if suffix in AUDIO_SUFFIXES:
        return "sound that someone took out of a clip; the clip's own track is read"
    if suffix not in VIDEO_SUFFIXES:
        return f"a {suffix or 'suffixless'} file, not media"
    match = _NAME.fullmatch(name.stem)
    if match is None:
        return f"file name {name.name!r} is not dia<number>_utt<number>"
    for folder in (*reversed(found.parts[:-1]), root.name):
        if split := _FOLDERS.get(folder.lower()):
            return split, int(match[2]), int(match[3])
    return "split unknown: no folder above is named train_splits, dev_splits_complete, output_repeated_splits_test, ..."


def _choose(choice: list[Found], into: Discovery) -> Found:
    """The file that is used for a clip. The other files are skipped as duplicates.

    If there are two versions of a clip, the version named final_videos_test... is used, because this version fits the
    labels. If there are several equal copies, the first copy is used.
    """
    final = {video.name: video.parts[-1].lower().startswith("final") for video in choice}
    best = min(choice, key=lambda video: not final[video.name])
    for video in choice:
        if video is best:
            continue
        if final[best.name] and not final[video.name]:
            detail = f"superseded by {best.name}, the cut that fits the labels"
        else:
            detail = f"the same clip as {best.name}, which is used"
        into.skip(video.name, Reason.DUPLICATE_ID, detail)
    return best


def _clip(key: _Key, video: Found, row: _Labels | None, labelled: bool) -> Clip | tuple[Reason, str]:
    """The clip. If the file is not a clip, the result is the reason and a message."""
    split, dialogue, utterance = key
    take = f"dia{dialogue}_utt{utterance}"
    table = f"{split}_sent_emo.csv"
    if not labelled:
        return Reason.UNLABELLED, f"no {table} is below the folder; put it there, or name its folder with --labels"
    if row is None:
        return Reason.UNLABELLED, f"{table} has no row for dialogue {dialogue}, utterance {utterance}"
    emotion = canonical(row.emotion) if tables.has_value(row.emotion) else None
    if emotion not in (*DATASET_LABELS["meld"].values(), None):
        return Reason.BAD_LABEL, f"emotion {row.emotion!r} in {table} is none of MELD's seven"
    return Clip(
        clip_id=f"meld/{split}/{take}",
        dataset="meld",
        speaker=row.speaker,
        video=video.source,
        emotion=emotion,
        take=take,
        transcript=row.transcript,
        split=SPLITS[split],
    )


def _given_labels(labels: Path | None) -> list[Found]:
    """The CSV files that `--labels` names. Raises UserError if `--labels` names no label file of MELD."""
    if labels is None:
        return []
    try:
        folder = labels if labels.is_dir() else labels.parent
        names = [labels.name] if folder != labels else sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise UserError(f"the labels {labels} cannot be read: {error.strerror}") from None
    paths = [(folder / name).resolve() for name in names if _LABELS.fullmatch(name) and (folder / name).is_file()]
    if not paths:
        raise UserError(f"{labels} is not a folder with train_sent_emo.csv, dev_sent_emo.csv or test_sent_emo.csv")
    return [Found(printable(str(path)), (path.name,), MediaSource(str(path)), (str(path),)) for path in paths]


def _read_labels(asked: list[Found], below: list[Found], into: Discovery) -> tuple[dict[_Key, _Labels], set[str]]:
    """(label rows, splits that have a CSV file). If a split has several CSV files, only the first file is read."""
    rows: dict[_Key, _Labels] = {}
    read: dict[str, tuple[Found, str]] = {}
    for found in (*asked, *below):
        match = _LABELS.fullmatch(found.parts[-1])
        if match is None:
            continue
        split = match[1].lower()
        if split not in read:
            read[split] = found, _read(split, found, rows, into)
        if found in asked:
            continue
        first, words = read[split]
        detail = f"the labels of {split}, read: {words}"
        if found.source != first.source:
            detail = f"the labels of {split} once more; {first.name} is read"
        into.skip(found.name, Reason.NOT_A_CLIP, detail)
    return rows, set(read)


def _read(split: str, found: Found, rows: dict[_Key, _Labels], into: Discovery) -> str:
    """Adds the rows of one CSV file to `rows`, and returns a description of the file.

    Raises UserError if the file cannot be read or is not a table of labels.
    """
    name = f"the label file {found.parts[-1]}"
    text, how = _decode(tables.read_bytes(found.source, name), name)
    good = 0
    bad: list[int] = []
    for row in tables.parse(text, name, _COLUMNS, strict=False).rows:
        words = {name: " ".join(row.cells[name.lower()].translate(_QUOTES).split()) for name in _COLUMNS}
        numbers = [_number(words[name]) for name in ("Dialogue_ID", "Utterance_ID")]
        if None in numbers or (key := (split, *numbers)) in rows or not words["Speaker"]:
            bad.append(row.line)
            continue
        good += 1
        rows[key] = _Labels(printable(words["Speaker"]), printable(words["Emotion"]), words["Utterance"])  # type: ignore[index]
    if not bad:
        return f"{good} rows, {how}"
    lines = f"line {', '.join(map(str, bad[:5]))}{' and more' if bad[5:] else ''}"
    into.notes.append(
        f"{counted(len(bad), 'row')} of {found.parts[-1]} without numbers or speaker, or repeated: {lines}"
    )
    return f"{good} rows, {how}, and not {lines}"


def _number(text: str) -> int | None:
    """The number of a dialogue or utterance, `3` or `3.0`. None for other text."""
    match = re.fullmatch(r"(\d{1,6})(?:\.0*)?", text)
    return int(match[1]) if match else None


def _decode(data: bytes, name: str) -> tuple[str, str]:
    """(text, name of the encoding). Repairs the Windows-1252 characters that are wrong in the older files.

    Lines end at line feeds only: U+0085 is an ellipsis in the older files.
    """
    text, how = tables.decode(data, name), "UTF-8"
    if not tables.is_utf8(text):
        text, how = data.decode("latin-1"), "Windows-1252"
    mended = text.translate(_C1)
    return mended, how if mended == text or how != "UTF-8" else "UTF-8 with Windows-1252 characters, mended"


def _check_matches(rows: dict[_Key, _Labels], videos: dict[_Key, list[Found]], into: Discovery) -> None:
    """Adds a note for each split that has labels and videos, but no row of a video.

    Raises UserError if this holds for every split with labels and videos.
    """
    both = {key[0] for key in rows} & {key[0] for key in videos}
    strange = sorted(both - {key[0] for key in rows.keys() & videos.keys()})
    lines = []
    for split in strange:
        row, file = (min(key for key in keys if key[0] == split) for keys in (rows, videos))
        lines.append(
            f"no row of {split}_sent_emo.csv names a clip here: the rows begin with dia{row[1]}_utt{row[2]}, "
            f"and the files of {split} with dia{file[1]}_utt{file[2]}; take the labels of the release"
        )
    if lines and len(strange) == len(both):
        raise UserError(lines[0])
    into.notes += lines


def _note_missing(
    rows: dict[_Key, _Labels], videos: dict[_Key, list[Found]], layouts: Counter[tuple[str, str]], into: Discovery
) -> None:
    """Records each row that has no video. If a split has no video at all, adds one note for the whole split."""
    for split in SPLITS:
        theirs = [key for key in rows if key[0] == split]
        folders = [(count, folder) for (name, folder), count in layouts.items() if name == split]
        if theirs and not folders:
            into.notes.append(f"{split}: none of the {len(theirs)} clips in the labels is here")
            continue
        for _, dialogue, utterance in (key for key in theirs if key not in videos):
            name = f"{max(folders)[1]}/dia{dialogue}_utt{utterance}.mp4".removeprefix("./")
            into.skip(name, Reason.MISSING_FILE, f"named in {split}_sent_emo.csv, but not here")


def _describe(labelled: set[str], layouts: Counter[tuple[str, str]], into: Discovery) -> None:
    """Adds notes about the folders of the splits, missing labels, and speakers that are in several splits."""
    where = [f"{split} in {folder} ({count} files)" for (split, folder), count in sorted(layouts.items())]
    into.notes.append(f"MELD layout: {'; '.join(where[:6]) or 'none'}{' and more' if where[6:] else ''}")
    if lacking := sorted({split for split, _ in layouts} - labelled):
        into.notes.append(f"no labels for {', '.join(lacking)}: these clips are skipped")
    splits: defaultdict[str, set[str | None]] = defaultdict(set)
    for clip in into.clips:
        splits[clip.speaker].add(clip.split)
    if shared := [speaker for speaker, theirs in splits.items() if len(theirs) > 1]:
        into.notes.append(
            f"{len(shared)} of {len(splits)} speakers are in more than one split: it holds out dialogues, not people"
        )


_BIBTEX = """@inproceedings{poria2019meld,
  author = {Poria, Soujanya and Hazarika, Devamanyu and Majumder, Navonil and Naik, Gautam and Cambria, Erik and
            Mihalcea, Rada},
  title = {{MELD}: A Multimodal Multi-Party Dataset for Emotion Recognition in Conversations},
  booktitle = {ACL}, pages = {527--536}, year = {2019}}"""
READER = Reader("meld", discover, MeldOptions, _BIBTEX)
