"""Lists of evaluation rows that papers publish: which clip is edited towards which, as facts of a CSV, found in clips.

Columns: speaker, emotion (the target's), ground_truth_clip, source_clip (clip_ids), and sentence_id, which both say by
the scheme of cmet_pipelines/numbering.toml for that list, or empty. Where the clips carry sentence ids of that scheme a
row is found by its sentence, so that data numbered otherwise than the list gives the row's recording all the same;
else by clip_id.
"""

from __future__ import annotations

import csv
from collections import Counter, defaultdict
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import pandas as pd

from talking_face.reasons import UserError


class Row(NamedTuple):
    """One row of a list."""

    speaker: str
    emotion: str
    ground_truth_clip: str
    source_clip: str
    sentence_id: str


class Found(NamedTuple):
    """What of a list is in the clips."""

    rows: list[Row]  # with the clip_ids that they are found under
    missing: list[str]  # what is not there, in words: a line a speaker and emotion, which names every clip
    notes: list[str]  # how the rows were found, in words


@lru_cache(maxsize=8)
def read_rows(path: Path) -> tuple[Row, ...]:
    """The rows of a CSV, in its order. Raises UserError where it is none."""
    try:
        with path.open(encoding="utf-8", newline="") as file:
            rows = tuple(Row(*(line[name] or "" for name in Row._fields)) for line in csv.DictReader(file))
    except (OSError, KeyError, UnicodeDecodeError) as error:
        columns = ", ".join(Row._fields)
        raise UserError(f"{path} is no list of rows with the columns {columns}: {error}") from None
    repeated = [clip for clip, times in Counter(row.ground_truth_clip for row in rows).items() if times > 1]
    if not rows or repeated:
        raise UserError(f"{path} holds no rows" if not rows else f"{path} names {repeated[0]} twice")
    return rows


def find_rows(rows: tuple[Row, ...], clips: pd.DataFrame) -> Found:
    """The rows among the clips (clip_id, speaker, emotion, and sentence_id where there is one).

    A folder (a clip_id without its last part) whose sentences are known is searched by sentence. Where that shows that
    it is numbered otherwise than the list, its rows without a sentence are found only among the numbers that lie before
    one that is as the list has it: behind a gap a number means nothing. Rows of speakers of whom there is no clip at
    all are lost in one line.
    """
    ids, speakers = set(clips["clip_id"]), set(clips["speaker"])
    by_sentence: dict[tuple[str, str], str] = {}
    if "sentence_id" in clips:
        for clip, sentence in clips.loc[clips["sentence_id"].notna(), ["clip_id", "sentence_id"]].itertuples(
            index=False
        ):
            by_sentence[_folder(clip), str(sentence)] = str(clip)
    said = {folder for folder, _ in by_sentence}
    moved, kept = defaultdict[str, set[str]](set), defaultdict[str, set[str]](set)
    for clip, sentence in {(clip, row.sentence_id) for row in rows for clip in row[2:4]}:
        if (there := by_sentence.get((_folder(clip), sentence))) is not None:
            (kept if there == clip else moved)[_folder(clip)].add(clip)
    # Below it a folder is numbered as the list; clip_ids end in numbers of one width.
    sure = {folder: max((c for c in kept[folder] if c < min(clips)), default="") for folder, clips in moved.items()}

    def find(clip: str, sentence: str) -> str | None:
        folder = _folder(clip)
        if sentence and folder in said:
            return by_sentence.get((folder, sentence))
        return clip if clip in ids and (folder not in sure or clip < sure[folder]) else None

    found, lost, total = [], defaultdict[tuple[str, str], list[str]](list), Counter[tuple[str, str]]()
    for row in rows:
        if row.speaker not in speakers:
            continue
        key = (row.speaker, row.emotion)
        total[key] += 1
        truth, source = find(row.ground_truth_clip, row.sentence_id), find(row.source_clip, row.sentence_id)
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
    by_name = sum(not (row.sentence_id and _folder(row.ground_truth_clip) in said) for row in found)
    notes = [
        f"{len(found)} of the list's {len(rows)} rows, {len(found) - by_name} by sentence and {by_name} by clip_id"
    ]
    return Found(found, missing, notes)


def rows_by_rule(clips: pd.DataFrame) -> Found:
    """What a list would hold of other speakers: every emotional clip with a neutral one of its speaker and sentence.

    The source is the first by clip_id of the neutral clips that say the sentence.
    """
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
            rows.append(Row(clip.speaker, clip.emotion, clip.clip_id, source, str(clip.sentence_id)))
    missing = [
        f"{who} {emotion}: {n} clips, no neutral clip of the sentence" for (who, emotion), n in sorted(lost.items())
    ]
    return Found(rows, missing, [])


def _folder(clip_id: str) -> str:
    return clip_id.rpartition("/")[0]
