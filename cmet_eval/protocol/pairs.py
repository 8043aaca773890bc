"""Pairs: the exact list of evaluation cases that a setting draws from a shard set, and how the list travels.

Every choice is an argmin over SHA-256 hashes of names, never a random state: the same clips give the same pairs on
every machine and library version, and a clip added to the set changes only the cells it wins. The ground-truth clip
depends on seed, speaker and target emotion alone, so all settings score against the same recordings and the drop from
one setting to another is the reference's doing.
"""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, get_type_hints

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from cmet_eval.protocol.published_rows import find_rows, rows_by_rule
from cmet_eval.protocol.setting import Setting
from talking_face.clip import Pair
from talking_face.emotions import EMOTIONS
from talking_face.reasons import UserError
from talking_face.signature import canonical_json, digest

_LISTS = ("reference_frames", "emotion_audio", "neutral_audio")
_SCHEMA = pa.schema(
    [
        (name, pa.list_(pa.int32() if name == "reference_frames" else pa.string()))
        if name in _LISTS
        else (name, pa.int32() if name in ("seed", "intensity") else pa.string())
        for name in (f.name for f in dataclasses.fields(Pair))
    ]
)
_META_KEY = b"cmet_eval.pairs"
_FILE_NAME_LIMIT = 200  # bytes; file systems stop at 255, and suffixes are to come


@dataclass(frozen=True)
class PairList:
    """Pairs of one setting, and what they were drawn from."""

    setting: str
    data_digest: str  # of the shard set's content
    pairs: tuple[Pair, ...]
    rules: str = ""  # digest of the setting's rules
    split: str = "test"
    seeds: int = 1
    drawn: int = 0  # pairs before a subset was taken
    missing: tuple[str, ...] = field(default=(), compare=False)  # cells without a clip, in words
    notes: tuple[str, ...] = field(default=(), compare=False)  # what else to know of how they were drawn

    @cached_property
    def digest(self) -> str:
        """16 hex digits over the pairs themselves; the same list in Parquet and in CSV has the same digest."""
        return digest([pair.to_row() for pair in self.pairs])


# Drawing -------------------------------------------------------------------------------------------------------------


def draw_pairs(
    clips: pd.DataFrame,
    setting: Setting,
    *,
    data_digest: str = "",
    seeds: int | None = None,
    max_pairs: int | None = None,
    split: str | None = None,
    valid: Callable[[str], np.ndarray] | None = None,
) -> PairList:
    """Draw a setting's pairs.

    Args:
        clips: one row a clip with clip_id, speaker, emotion, intensity, split, n_frames (25 fps) and, if there,
            valid_fraction.
        setting: the rules.
        data_digest: of the shard set, to travel with the list.
        seeds: runs 0..seeds-1; None takes the setting's number.
        max_pairs: keep a subset of this size, see `balanced_subset`; None keeps all.
        split: overrides the setting's split; "all" takes every clip.
        valid: clip_id -> (T,) bool, frames with a face; called only where valid_fraction is below 1, so that a
            reference frame always shows a face.

    Raises:
        UserError: no clip carries the split's label, or no pair can be drawn.
    """
    split, seeds = split or setting.split, setting.seeds if seeds is None else seeds
    if seeds < 1 or (max_pairs is not None and max_pairs < 1):
        raise UserError("--seeds and --max-pairs start at 1")
    drawing = _Drawing(setting, _usable(clips, split, setting), valid)
    draw = {
        "cells": drawing.cells,
        "clips": drawing.clips,
        "rows": drawing.rows,
        "no-truth": drawing.no_truth,
    }[setting.draw]
    pairs = sorted((pair for seed in range(seeds) for pair in draw(seed)), key=lambda pair: pair.pair_id)
    if not pairs:
        raise UserError(f"{setting.name} draws no pair from these clips: {'; '.join(sorted(drawing.missing)[:3])}")
    kept = balanced_subset(pairs, max_pairs) if max_pairs is not None else pairs
    return PairList(
        setting=setting.name,
        data_digest=data_digest,
        pairs=tuple(kept),
        rules=setting.digest,
        split=split,
        seeds=seeds,
        drawn=len(pairs),
        missing=tuple(sorted(drawing.missing)),
        notes=tuple(sorted(drawing.notes)),
    )


class _Drawing:
    """The pairs of one setting and set of clips, by seed. `missing` and `notes` fill as they are drawn."""

    def __init__(self, setting: Setting, usable: pd.DataFrame, valid: Callable[[str], np.ndarray] | None) -> None:
        self.setting, self.usable, self.valid = setting, usable, valid
        self.by_id = usable.set_index("clip_id")
        self.groups = {key: tuple(sorted(group)) for key, group in usable.groupby(["speaker", "emotion"])["clip_id"]}
        self.speakers = sorted({speaker for speaker, _ in self.groups})
        self.emotions = sorted({emotion for _, emotion in self.groups}, key=_emotion_order)
        everything = setting.target_emotions == "all"
        self.targets = self.emotions if everything else list(setting.target_emotions)
        self.missing: set[str] = set()
        self.notes: set[str] = set()
        self._pools: dict[int, dict[str, list[str]]] = {}

    def cells(self, seed: int) -> Iterable[Pair]:
        setting = self.setting
        for speaker in self.speakers:
            for source, target in _cells(setting, self.emotions, self.targets):
                truths = _ranked(self.groups.get((speaker, target), ()), seed, speaker, target, "ground-truth")
                if not truths:
                    self.missing.add(f"{speaker} has no {target} clip")
                for index, truth in enumerate(truths[: setting.clips_per_cell]):
                    # The reference is never the ground-truth clip, whatever the emotions are.
                    others = [clip for clip in self.groups.get((speaker, source), ()) if clip != truth]
                    name = f"{setting.name}/{speaker}/{source}>{target}/s{seed}/{index + 1:04d}"
                    references = _ranked(others, seed, speaker, source, truth, "reference")
                    frames: tuple[int, ...] = ()
                    for reference in references:
                        if frames := self._frames(reference, (seed, name)):
                            break
                    if not frames:
                        self.missing.add(f"{speaker} has no {source} clip beside {truth} with a valid face")
                        continue
                    moving = _source(self.by_id, others, reference, truth, setting)
                    yield self._pair(name, seed, frames, reference, moving, truth, truth, target)

    def clips(self, seed: int) -> Iterable[Pair]:
        """Of every seed the same clips; the seed draws their frames."""
        taken = 0
        for clip in _ranked(self.by_id.index, "clips"):
            if taken == self.setting.clips:
                break
            name = f"{self.setting.name}/{self.by_id.at[clip, 'speaker']}/itself/s{seed}/{clip.replace('/', '-')}"
            if not (frames := self._frames(clip, (seed, name))):
                self.missing.add(f"{clip} has too few frames with a valid face")
                continue
            taken += 1
            yield self._pair(name, seed, frames, clip, clip, clip, clip, self.by_id.at[clip, "emotion"])
        if self.setting.clips is not None and taken < self.setting.clips:
            self.notes.add(f"{taken} clips are there, {self.setting.clips} were asked for")

    def rows(self, seed: int) -> Iterable[Pair]:
        rows = self.setting.row_list
        found = find_rows(rows, self.usable)
        if not set(self.speakers) & {row.speaker for row in rows}:
            whom = f"{len({row.speaker for row in rows})} speakers"
            self.notes.add(f"none of the list's {whom} is here: drawn by its rule from the speakers that are")
            found = rows_by_rule(self.usable)
        self.missing.update(found.missing)
        self.notes.update(found.notes)
        for row in found.rows:
            path = row.ground_truth_clip.replace("/", "-")
            name = f"{self.setting.name}/{row.speaker}/neutral>{row.emotion}/s{seed}/{path}"
            if not (frames := self._frames(row.source_clip, (seed, name))):
                self.missing.add(f"{row.source_clip} has too few frames with a valid face")
                continue
            source, truth = row.source_clip, row.ground_truth_clip
            yield self._pair(name, seed, frames, source, source, source, truth, row.emotion)

    def no_truth(self, seed: int) -> Iterable[Pair]:
        for target in self.targets:
            if not self._pool(seed, target, None):
                self.notes.add(f"no clip is labelled {target}: its pairs have no emotion-audio")
        for speaker in self.speakers:
            # One neutral clip for all target emotions of a speaker and seed, so that they differ in nothing else.
            sources = _ranked(self.groups.get((speaker, "neutral"), ()), seed, speaker, "source")
            usable = [clip for clip in sources if self._frames(clip, (seed, speaker))]
            if not usable:
                self.missing.add(f"{speaker} has no neutral clip with a valid face")
            for index, clip in enumerate(usable[: self.setting.clips_per_cell]):
                for target in self.targets:
                    name = f"{self.setting.name}/{speaker}/neutral>{target}/s{seed}/{index + 1:04d}"
                    frames = self._frames(clip, (seed, speaker))
                    yield self._pair(name, seed, frames, clip, clip, clip, None, target)

    def _pair(
        self,
        name: str,
        seed: int,
        frames: tuple[int, ...],
        reference: str,
        source: str,
        driving: str,
        truth: str | None,
        target: str,
    ) -> Pair:
        at = self.by_id.at
        return Pair(
            pair_id=name,
            setting=self.setting.name,
            seed=seed,
            speaker=str(at[reference, "speaker"]),
            reference_clip=reference,
            reference_frames=frames,
            reference_emotion=str(at[reference, "emotion"]),
            source_clip=source,
            driving_clip=driving,
            target_emotion=target,
            intensity=None if truth is None else _int_or_none(at[truth, "intensity"]),
            ground_truth_clip=truth,
            emotion_audio=self._pool(seed, target, truth),
            neutral_audio=self._pool(seed, "neutral", truth),
            visible=self.setting.visible,
        )

    def _pool(self, seed: int, emotion: str, truth: str | None) -> tuple[str, ...]:
        if seed not in self._pools:
            self._pools[seed] = {
                str(emotion): sorted(group["clip_id"], key=lambda clip: _pool_rank(self.by_id, clip, seed))
                for emotion, group in self.usable.groupby("emotion")
            }
        n = self.setting.emotion_audio_clips
        ranked = self._pools[seed].get(emotion, [])
        return tuple([clip for clip in ranked[: n + 1] if clip != truth][:n])

    def _frames(self, clip: str, key: tuple[Any, ...]) -> tuple[int, ...]:
        return _frames(self.by_id, clip, self.setting, key, self.valid)


def balanced_subset(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """At most `n` pairs that keep speakers and target emotions balanced, in the order of their ids.

    Greedy: the next pair is the one whose speaker x target cell has been taken least often, then whose speaker, target,
    source emotion and seed have, then the smallest hash of its id. Speakers differ by at most one pair where the list
    itself is balanced, and a smaller subset is contained in every larger one.
    """
    left = sorted(pairs, key=lambda pair: (_hash("subset", pair.pair_id), pair.pair_id))
    cell, speaker, target, source, seed = Counter[Any](), Counter[str](), Counter[str](), Counter[str](), Counter[int]()
    taken: list[Pair] = []
    while left and len(taken) < n:
        best = min(
            range(len(left)),
            key=lambda i: (
                cell[left[i].speaker, left[i].target_emotion],
                speaker[left[i].speaker],
                target[left[i].target_emotion],
                source[left[i].reference_emotion],
                seed[left[i].seed],
                i,
            ),
        )
        pair = left.pop(best)
        cell[pair.speaker, pair.target_emotion] += 1
        speaker[pair.speaker] += 1
        target[pair.target_emotion] += 1
        source[pair.reference_emotion] += 1
        seed[pair.seed] += 1
        taken.append(pair)
    return sorted(taken, key=lambda pair: pair.pair_id)


# What a setting may promise about training, and the column that shows whether it holds.
_SHARED_BY = {"speaker": "speaker", "sentence": "sentence_id"}


def _usable(clips: pd.DataFrame, split: str, setting: Setting) -> pd.DataFrame:
    labelled = clips[clips["n_frames"] >= 1]
    if setting.unlabelled is not None:
        labelled = labelled.assign(emotion=labelled["emotion"].fillna(setting.unlabelled))
    labelled = labelled[labelled["emotion"].notna()]
    what = "clip" if setting.unlabelled is not None else "clip with an emotion label"
    if split == "all":
        chosen = labelled
        if chosen.empty:
            raise UserError(f"there is no {what}")
    else:
        chosen = labelled[labelled["split"] == split]
        if chosen.empty:
            there = sorted({str(name) for name in labelled["split"].dropna()}) or ["none at all"]
            raise UserError(
                f"no {what} is in the split {split!r} (splits here: {', '.join(there)}); "
                "label the clips, or draw from every clip with --split all"
            )
        rest = labelled[labelled["split"].notna() & (labelled["split"] != split)]
        for name, column in _SHARED_BY.items():
            if name not in setting.disjoint or column not in labelled:
                continue
            if both := sorted(set(chosen[column].dropna()) & set(rest[column].dropna())):
                raise UserError(
                    f"{setting.name} promises {name}s that training has not seen, "
                    f"but {', '.join(both[:3])} are in {split!r} and in another split"
                )
    if chosen["clip_id"].duplicated().any():
        raise UserError(f"clip ids are not unique: {chosen.loc[chosen['clip_id'].duplicated(), 'clip_id'].iloc[0]}")
    return chosen


def _cells(setting: Setting, emotions: Sequence[str], targets: Sequence[str]) -> Iterable[tuple[str, str]]:
    """(source emotion, target emotion) of every cell of one speaker and seed."""
    for target in targets:
        if setting.reference == "neutral":
            yield "neutral", target
            continue
        for source in emotions:
            if source != target and not (setting.reference_emotions == "non-neutral" and source == "neutral"):
                yield source, target


def _source(by_id: pd.DataFrame, others: Sequence[str], reference: str, truth: str, setting: Setting) -> str:
    """The clip that a method which edits a video is given: one of `others`, or the reference clip."""
    if setting.source == "reference-clip" or "sentence_id" not in by_id.columns:
        return reference
    sentence = by_id.at[truth, "sentence_id"]
    if pd.isna(sentence):
        return reference
    same = [clip for clip in others if by_id.at[clip, "sentence_id"] == sentence]
    return min(same, key=lambda clip: (clip != reference, clip)) if same else reference


def _pool_rank(by_id: pd.DataFrame, clip: str, seed: int) -> tuple[int, bytes, str]:
    """Highest intensity first, then by hash; the same for every pair of a seed, so a neutral target's pools agree."""
    return (-(_int_or_none(by_id.at[clip, "intensity"]) or 0), _hash(seed, "audio-pool", clip), clip)


def _frames(
    by_id: pd.DataFrame,
    clip: str,
    setting: Setting,
    key: tuple[Any, ...],
    valid: Callable[[str], np.ndarray] | None,
) -> tuple[int, ...]:
    """Indices of the reference frames, ascending; empty where too few frames show a face."""
    indices = np.arange(int(by_id.at[clip, "n_frames"]))
    fraction = by_id.at[clip, "valid_fraction"] if "valid_fraction" in by_id.columns else 1.0
    if valid is not None and not fraction >= 1.0:
        indices = indices[valid(clip)[: len(indices)]]
    if len(indices) < setting.reference_frames:
        return ()
    if setting.reference_frame_rule == "first":
        return tuple(int(i) for i in indices[: setting.reference_frames])
    first = 1 if setting.reference_frame_rule == "first-and-random" else 0
    others = sorted(indices[first:], key=lambda i: _hash(*key, clip, int(i)))[: setting.reference_frames - first]
    return tuple(sorted(int(i) for i in [*indices[:first], *others]))


def _ranked(clips: Iterable[str], *key: Any) -> list[str]:
    return sorted(clips, key=lambda clip: (_hash(*key, clip), clip))


def _hash(*parts: Any) -> bytes:
    # The unit separator keeps ("a", "bc") and ("ab", "c") apart.
    return hashlib.sha256("\x1f".join(str(part) for part in parts).encode()).digest()


def _emotion_order(name: str) -> tuple[int, str]:
    return (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name)


def _int_or_none(value: Any) -> int | None:
    return None if value is None or pd.isna(value) else int(value)


# Names of files ------------------------------------------------------------------------------------------------------


def pair_file_name(pair_id: str) -> str:
    """A flat file name (no suffix) for a pair id, the same on every system and different for different ids.

    `/` becomes `__`, `>` becomes `_to_`, anything outside A-Z a-z 0-9 . - becomes `_xHH` for each UTF-8 byte:
    `neutral-base/M903/neutral>happy/s0/0001` is `neutral-base__M903__neutral_to_happy__s0__0001`. Names above 200 bytes
    are cut and end in 16 hex digits of the id's SHA-256.
    """
    out = []
    for char in pair_id:
        if char.isascii() and (char.isalnum() or char in ".-"):
            out.append(char)
        elif char in "/>":
            out.append({"/": "__", ">": "_to_"}[char])
        else:
            out.extend(f"_x{byte:02X}" for byte in char.encode())
    name = "".join(out)
    if name.startswith("."):
        name = "_x2E" + name[1:]
    return name if len(name) <= _FILE_NAME_LIMIT else f"{name[: _FILE_NAME_LIMIT - 17]}_{digest(pair_id.encode())}"


# Travelling ----------------------------------------------------------------------------------------------------------


def write_pairs(pair_list: PairList, path: Path) -> None:
    """Write the list as Parquet, or as CSV where the name ends in .csv. Atomic, and the same bytes every time."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    meta = {
        "setting": pair_list.setting,
        "data_digest": pair_list.data_digest,
        "rules": pair_list.rules,
        "split": pair_list.split,
        "seeds": pair_list.seeds,
        "drawn": pair_list.drawn,
        "missing": list(pair_list.missing),
        "notes": list(pair_list.notes),
        "digest": pair_list.digest,
    }
    rows = [pair.to_row() for pair in pair_list.pairs]
    if path.suffix == ".csv":
        part.write_text(_to_csv(rows, meta), encoding="utf-8", newline="")
    else:
        table = pa.Table.from_pylist(rows, schema=_SCHEMA.with_metadata({_META_KEY: canonical_json(meta).encode()}))
        pq.write_table(table, part, compression="zstd")
    part.replace(path)


def read_pairs(path: Path) -> PairList:
    """The inverse of `write_pairs`. Raises UserError where the file is no pair list or was changed by hand."""
    try:
        if path.suffix == ".csv":
            rows, meta = _from_csv(path.read_text(encoding="utf-8"))
        else:
            table = pq.read_table(path)
            meta = json.loads((table.schema.metadata or {}).get(_META_KEY, b"{}"))
            rows = table.to_pylist()
        hints = get_type_hints(Pair)
        pairs = tuple(_to_pair(row, hints) for row in rows)
        if not pairs or "setting" not in meta:
            raise ValueError("it holds no pairs of a setting")
    except FileNotFoundError:
        raise UserError(f"no pair list at {path}; make one with cmet-eval pairs SETTING --data OUT -o {path}") from None
    except (OSError, ValueError, TypeError, KeyError, StopIteration, pa.ArrowException) as error:
        what = f"it has no column {error}" if isinstance(error, KeyError) else str(error)
        raise UserError(f"{path} is not a list that cmet-eval pairs wrote: {what}") from error
    expected = str(meta.pop("digest", ""))
    meta |= {name: tuple(meta.get(name, ())) for name in ("missing", "notes")}
    result = PairList(pairs=pairs, **meta)
    if expected != result.digest:
        raise UserError(f"{path} was changed after it was written: its digest is {result.digest}, not {expected}")
    if len({pair.pair_id for pair in pairs}) != len(pairs):
        raise UserError(f"{path} names a pair twice")
    return result


def _to_pair(row: dict[str, Any], hints: dict[str, Any]) -> Pair:
    fields: dict[str, Any] = {k: tuple(v) if str(hints[k]).startswith("tuple") else v for k, v in row.items()}
    return Pair(**fields)


def _to_csv(rows: list[dict[str, Any]], meta: dict[str, Any]) -> str:
    """Lists as JSON, nothing as an empty cell; a first line `# {...}` carries what the list was drawn from."""
    buffer = io.StringIO()
    buffer.write(f"# {canonical_json(meta)}\n")
    writer = csv.DictWriter(buffer, fieldnames=_SCHEMA.names, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({k: canonical_json(v) if k in _LISTS else "" if v is None else v for k, v in row.items()})
    return buffer.getvalue()


def _from_csv(text: str) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    head, _, body = text.partition("\n")
    if not head.startswith("# {"):
        raise ValueError("its first line should be '# {...}' with the setting and the data digest")
    rows: list[dict[str, Any]] = []
    for raw in csv.DictReader(io.StringIO(body)):
        row: dict[str, Any] = {}
        for name, cell in raw.items():
            if name in _LISTS:
                row[name] = json.loads(cell)
            elif name in ("seed", "intensity"):
                row[name] = int(cell) if cell else None
            else:
                row[name] = cell if cell or name != "ground_truth_clip" else None
        rows.append(row)
    return rows, json.loads(head[2:])
