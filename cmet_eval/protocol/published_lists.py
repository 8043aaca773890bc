"""Reads the lists of evaluation rows that papers publish, and finds their clips in a shard set.

A list is a CSV file that states which clip is edited towards which emotion. The columns are speaker, emotion (the
target emotion), ground_truth_clip and source_clip (clip_ids), and sentence_id (which can be empty). In both clips of a
row, the speaker speaks the sentence of the row. cmet_pipelines/numbering.toml defines the sentence ids.

If the clips of the shard set also have these sentence ids, the clips of a row are found by the sentence id. So the
correct recordings are found even if the data numbers its clips differently from the list. Otherwise the clips of a row
are found by clip_id.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from talking_face.reasons import UserError
from talking_face.user_files import read_csv

if TYPE_CHECKING:  # a setting is read without Pandas
    import pandas as pd


class ListRow(NamedTuple):
    """One row of a list."""

    speaker: str
    emotion: str
    ground_truth_clip: str
    source_clip: str
    sentence_id: str


_REQUIRED = ("speaker", "emotion", "ground_truth_clip", "source_clip")


class Found(NamedTuple):
    """The rows of a list that were found among the clips."""

    rows: list[ListRow]  # the rows, with the clip_ids of the shard set
    missing: list[str]  # one line of text per speaker and emotion, with the clips that were not found
    notes: list[str]  # texts that state how the rows were found


@lru_cache(maxsize=8)
def read_list(path: Path) -> tuple[ListRow, ...]:
    """The rows of a list, in the order of the file. Raises UserError if the file is not a list of this form."""
    found = read_csv(path, "list of rows", ListRow._fields)
    for row in found:
        if empty := [name for name in _REQUIRED if not row.cells[name].strip()]:
            raise UserError(f"the list of rows {path}, line {row.line}: {', '.join(empty)} is empty")
    rows = tuple(ListRow(*(row.cells[name] for name in ListRow._fields)) for row in found)
    repeated = [clip for clip, times in Counter(row.ground_truth_clip for row in rows).items() if times > 1]
    if not rows or repeated:
        raise UserError(f"{path} holds no rows" if not rows else f"{path} names {repeated[0]} twice")
    return rows


class _Finder:
    """Finds the clips of a list: by sentence id in folders whose sentence ids are known, else by clip_id.

    A folder is a clip_id without its last part, which is the number of the recording. The sentence ids of a folder can
    show that the data numbers its recordings differently from the list. After the first different number, the same
    number can mean another recording. So in such a folder, a row without a sentence id is found only if its number is
    smaller than the last number that agrees with the list before the first different number.
    """

    def __init__(self, rows: Iterable[ListRow], clips: pd.DataFrame) -> None:
        self.ids = set(clips["clip_id"])
        self.by_sentence: dict[tuple[str, str], str] = {}
        if "sentence_id" in clips:
            known = clips.loc[clips["sentence_id"].notna(), ["clip_id", "sentence_id"]]
            for clip, sentence in known.itertuples(index=False):
                self.by_sentence[_folder(clip), str(sentence)] = str(clip)
        self.with_sentences = {folder for folder, _ in self.by_sentence}
        renumbered, kept = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
        for clip, sentence in {(clip, row.sentence_id) for row in rows for clip in row[2:4]}:
            if (there := self.by_sentence.get((_folder(clip), sentence))) is not None:
                (kept if there == clip else renumbered)[_folder(clip)].add(clip)
        # Folder -> the clip_id below which the folder's numbers agree with the list. Text order is the order of the
        # numbers, because all clip_ids end in numbers with the same number of digits.
        self.last_sure = {
            folder: max((clip for clip in kept[folder] if clip < min(others)), default="")
            for folder, others in renumbered.items()
        }

    def find(self, clip: str, sentence: str) -> str | None:
        """The clip_id that the list's clip has in the shard set; None if the clip is not found."""
        folder = _folder(clip)
        if sentence and folder in self.with_sentences:
            return self.by_sentence.get((folder, sentence))
        return clip if clip in self.ids and (folder not in self.last_sure or clip < self.last_sure[folder]) else None


def find_in_clips(rows: tuple[ListRow, ...], clips: pd.DataFrame) -> Found:
    """Finds the rows of a list among the clips, by the rules of `_Finder`.

    The columns of `clips` are clip_id, speaker, emotion and, optionally, sentence_id. One line of `missing` names the
    speakers that have no clip at all.
    """
    finder, speakers = _Finder(rows, clips), set(clips["speaker"])
    found, lost, total = [], defaultdict[tuple[str, str], list[str]](list), Counter[tuple[str, str]]()
    for row in rows:
        if row.speaker not in speakers:
            continue
        key = (row.speaker, row.emotion)
        total[key] += 1
        truth = finder.find(row.ground_truth_clip, row.sentence_id)
        source = finder.find(row.source_clip, row.sentence_id)
        if truth and source:
            found.append(row._replace(ground_truth_clip=truth, source_clip=source))
        else:
            lost[key].append(row.source_clip if truth else row.ground_truth_clip)
    missing = [
        f"{speaker} {emotion}: {len(names)} of the list's {total[speaker, emotion]} rows, no clip {', '.join(names)}"
        for (speaker, emotion), names in sorted(lost.items())
    ]
    if absent := sorted({row.speaker for row in rows} - speakers):
        count = sum(row.speaker in absent for row in rows)
        missing.append(f"{count} of the list's {len(rows)} rows, no clip at all of {', '.join(absent)}")
    by_name = sum(not (row.sentence_id and _folder(row.ground_truth_clip) in finder.with_sentences) for row in found)
    notes = [
        f"{len(found)} of the list's {len(rows)} rows, {len(found) - by_name} by sentence and {by_name} by clip_id"
    ]
    return Found(found, missing, notes)


def list_by_rule(clips: pd.DataFrame) -> Found:
    """Makes rows for clips whose speakers are not in a published list, by the rule of the published lists.

    Every emotional clip is paired with a neutral clip of the same speaker and sentence. If there are several such
    neutral clips, the source is the first of them by clip_id.
    """
    import pandas as pd

    if "sentence_id" not in clips:
        clips = clips.assign(sentence_id=None)
    sources: dict[tuple[str, str], str] = {}
    for clip in clips[clips["emotion"] == "neutral"].sort_values("clip_id").itertuples():
        sources.setdefault((clip.speaker, clip.sentence_id), clip.clip_id)
    rows, lost = [], Counter[tuple[str, str]]()
    for clip in clips[clips["emotion"] != "neutral"].sort_values("clip_id").itertuples():
        source = sources.get((clip.speaker, clip.sentence_id)) if pd.notna(clip.sentence_id) else None
        if source is None:
            lost[clip.speaker, clip.emotion] += 1
        else:
            rows.append(ListRow(clip.speaker, clip.emotion, clip.clip_id, source, str(clip.sentence_id)))
    missing = [
        f"{who} {emotion}: {n} clips, no neutral clip of the sentence" for (who, emotion), n in sorted(lost.items())
    ]
    return Found(rows, missing, [])


def _folder(clip_id: str) -> str:
    return clip_id.rpartition("/")[0]
