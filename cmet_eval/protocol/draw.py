"""Draws the evaluation pairs of a setting from the clips of a shard set.

Every choice takes the clips with the smallest SHA-256 hash of a text that contains the clip's id. There is no random
number generator. So the same clips give the same pairs on every machine and with every library version. If a clip is
added to the shard set, only the pairs that use this clip change. In settings with the rule `cells`, the ground-truth
clip depends only on seed, speaker and target emotion. So these settings use the same ground-truth clips, and a lower
score in one setting is caused by its reference clips.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cmet_eval.protocol.pairs import PairList
from cmet_eval.protocol.published_lists import find_in_clips, list_by_rule
from cmet_eval.protocol.setting import Setting
from cmet_pipelines.shards import ShardSet
from talking_face.clip import Pair
from talking_face.emotions import emotion_order
from talking_face.files import sha256_of
from talking_face.reasons import UserError

HasFace = Callable[[str], np.ndarray]  # clip_id -> (T,) bool: True for a frame that shows a face


@dataclass(frozen=True)
class Draw:
    """How many pairs of a setting are drawn, and from which split."""

    max_pairs: int | None = None  # size of the subset that `balanced_subset` chooses; None: all pairs
    seeds: int | None = None  # pairs are drawn with the seeds 0 to seeds-1; None: the setting's number of seeds
    split: str | None = None  # name of the split, or "all" for every clip; None: the setting's split


def draw_from_shards(shards: ShardSet, setting: Setting, draw: Draw) -> PairList:
    """The pairs of a setting from all clips of a shard set. Raises the same errors as `draw_pairs`."""
    return draw_pairs(shards.clips, setting, draw, data_digest=shards.digest, has_face=shards.valid)


def draw_pairs(
    clips: pd.DataFrame,
    setting: Setting,
    draw: Draw | None = None,
    *,
    data_digest: str = "",
    has_face: HasFace | None = None,
) -> PairList:
    """Draws the pairs of a setting.

    Args:
        clips: one row per clip with the columns clip_id, speaker, emotion, intensity, split and n_frames (at 25
            frames/s). The columns valid_fraction and sentence_id are optional.
        setting: the rules of the draw.
        draw: number of pairs, number of seeds, and the split; None: the setting's own values.
        data_digest: digest of the shard set, stored in the list.
        has_face: states which frames of a clip show a face; only these frames can be reference frames. The function
            is called only for clips whose valid_fraction is below 1. None: all frames can be reference frames.

    Raises:
        UserError: no clip with an emotion label is in the split, or no pair can be drawn.
    """
    draw = draw or Draw()
    split, seeds = draw.split or setting.split, setting.seeds if draw.seeds is None else draw.seeds
    if seeds < 1 or (draw.max_pairs is not None and draw.max_pairs < 1):
        raise UserError("--seeds and --max-pairs start at 1")
    drawing = _Drawing(setting, _usable(clips, split, setting), has_face)
    by_rule = {
        "cells": drawing.cells,
        "clips": drawing.clips,
        "rows": drawing.listed,
        "no-truth": drawing.no_truth,
    }[setting.draw]
    pairs = sorted((pair for seed in range(seeds) for pair in by_rule(seed)), key=lambda pair: pair.pair_id)
    if not pairs:
        raise UserError(f"{setting.name} draws no pair from these clips: {'; '.join(sorted(drawing.missing)[:3])}")
    kept = balanced_subset(pairs, draw.max_pairs) if draw.max_pairs is not None else pairs
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


@dataclass(frozen=True)
class _Roles:
    """The clip ids of one pair, by the role of the clip."""

    reference: str
    source: str
    driving: str
    truth: str | None


class _Drawing:
    """Draws the pairs of one setting from one set of clips, one seed at a time.

    The texts for the pair list's fields `missing` and `notes` are collected during the draw.
    """

    def __init__(self, setting: Setting, usable: pd.DataFrame, has_face: HasFace | None) -> None:
        self.setting, self.usable, self.has_face = setting, usable, has_face
        self.by_id = usable.set_index("clip_id")
        self.groups = {key: tuple(sorted(group)) for key, group in usable.groupby(["speaker", "emotion"])["clip_id"]}
        self.speakers = sorted({speaker for speaker, _ in self.groups})
        self.emotions = sorted({emotion for _, emotion in self.groups}, key=emotion_order)
        everything = setting.target_emotions == "all"
        self.targets = self.emotions if everything else list(setting.target_emotions)
        self.missing: set[str] = set()
        self.notes: set[str] = set()
        self._pools: dict[int, dict[str, list[str]]] = {}

    def cells(self, seed: int) -> Iterable[Pair]:
        """One pair per speaker, reference emotion, target emotion and ground-truth clip."""
        setting = self.setting
        for speaker in self.speakers:
            for source, target in _cells(setting, self.emotions, self.targets):
                truths = _ranked(self.groups.get((speaker, target), ()), seed, speaker, target, "ground-truth")
                if not truths:
                    self.missing.add(f"{speaker} has no {target} clip")
                for index, truth in enumerate(truths[: setting.clips_per_cell]):
                    name = f"{setting.name}/{speaker}/{source}>{target}/s{seed}/{index + 1:04d}"
                    # The reference is never the ground-truth clip, even if both have the same emotion.
                    others = [clip for clip in self.groups.get((speaker, source), ()) if clip != truth]
                    ranked = _ranked(others, seed, speaker, source, truth, "reference")
                    reference, frames = self._first_usable(ranked, (seed, name))
                    if reference is None:
                        self.missing.add(f"{speaker} has no {source} clip beside {truth} with a valid face")
                        continue
                    moving = _source(self.by_id, others, reference, truth, setting)
                    yield self._pair(name, seed, frames, _Roles(reference, moving, truth, truth), target)

    def clips(self, seed: int) -> Iterable[Pair]:
        """One pair per clip. All seeds use the same clips. Only the reference frames depend on the seed."""
        taken = 0
        for clip in _ranked(self.by_id.index, "clips"):
            if taken == self.setting.clips:
                break
            name = f"{self.setting.name}/{self.by_id.at[clip, 'speaker']}/itself/s{seed}/{clip.replace('/', '-')}"
            if not (frames := self._frames(clip, (seed, name))):
                self.missing.add(f"{clip} has too few frames with a valid face")
                continue
            taken += 1
            yield self._pair(name, seed, frames, _Roles(clip, clip, clip, clip), self.by_id.at[clip, "emotion"])
        if self.setting.clips is not None and taken < self.setting.clips:
            self.notes.add(f"{taken} clips are there, {self.setting.clips} were asked for")

    def listed(self, seed: int) -> Iterable[Pair]:
        """One pair per row of the published list.

        If the shard set has no speaker of the list, `list_by_rule` makes rows for the speakers of the shard set.
        """
        rows = self.setting.row_list
        found = find_in_clips(rows, self.usable)
        if not set(self.speakers) & {row.speaker for row in rows}:
            whom = f"{len({row.speaker for row in rows})} speakers"
            self.notes.add(f"none of the list's {whom} is here: drawn by its rule from the speakers that are")
            found = list_by_rule(self.usable)
        self.missing.update(found.missing)
        self.notes.update(found.notes)
        for row in found.rows:
            path = row.ground_truth_clip.replace("/", "-")
            name = f"{self.setting.name}/{row.speaker}/neutral>{row.emotion}/s{seed}/{path}"
            if not (frames := self._frames(row.source_clip, (seed, name))):
                self.missing.add(f"{row.source_clip} has too few frames with a valid face")
                continue
            source, truth = row.source_clip, row.ground_truth_clip
            yield self._pair(name, seed, frames, _Roles(source, source, source, truth), row.emotion)

    def no_truth(self, seed: int) -> Iterable[Pair]:
        """One pair per speaker, neutral clip and target emotion, without a ground truth."""
        for target in self.targets:
            if not self._pool(seed, target, None):
                self.notes.add(f"no clip is labelled {target}: its pairs have no emotion-audio")
        for speaker in self.speakers:
            # All target emotions of a speaker and seed use the same neutral clips, so that only the emotion differs.
            sources = _ranked(self.groups.get((speaker, "neutral"), ()), seed, speaker, "source")
            usable = [clip for clip in sources if self._frames(clip, (seed, speaker))]
            if not usable:
                self.missing.add(f"{speaker} has no neutral clip with a valid face")
            for index, clip in enumerate(usable[: self.setting.clips_per_cell]):
                for target in self.targets:
                    name = f"{self.setting.name}/{speaker}/neutral>{target}/s{seed}/{index + 1:04d}"
                    frames = self._frames(clip, (seed, speaker))
                    yield self._pair(name, seed, frames, _Roles(clip, clip, clip, None), target)

    def _pair(self, name: str, seed: int, frames: tuple[int, ...], clips: _Roles, target: str) -> Pair:
        at, truth = self.by_id.at, clips.truth
        return Pair(
            pair_id=name,
            setting=self.setting.name,
            seed=seed,
            speaker=str(at[clips.reference, "speaker"]),
            reference_clip=clips.reference,
            reference_frames=frames,
            reference_emotion=str(at[clips.reference, "emotion"]),
            source_clip=clips.source,
            driving_clip=clips.driving,
            target_emotion=target,
            intensity=None if truth is None else _int_or_none(at[truth, "intensity"]),
            ground_truth_clip=truth,
            emotion_audio=self._pool(seed, target, truth),
            neutral_audio=self._pool(seed, "neutral", truth),
            visible=self.setting.visible,
        )

    def _pool(self, seed: int, emotion: str, truth: str | None) -> tuple[str, ...]:
        """The pool of sound: clips from which a method hears the emotion. The ground truth is left out."""
        if seed not in self._pools:
            self._pools[seed] = {
                str(emotion): sorted(group["clip_id"], key=lambda clip: _pool_rank(self.by_id, clip, seed))
                for emotion, group in self.usable.groupby("emotion")
            }
        n = self.setting.emotion_audio_clips
        ranked = self._pools[seed].get(emotion, [])
        return tuple([clip for clip in ranked[: n + 1] if clip != truth][:n])

    def _first_usable(self, ranked: Sequence[str], key: tuple[object, ...]) -> tuple[str | None, tuple[int, ...]]:
        """The first clip with enough frames that show a face, and its reference frames; (None, ()) if there is none."""
        for clip in ranked:
            if frames := self._frames(clip, key):
                return clip, frames
        return None, ()

    def _frames(self, clip: str, key: tuple[object, ...]) -> tuple[int, ...]:
        """Indices of the reference frames, ascending; empty if too few frames show a face."""
        setting = self.setting
        indices = np.arange(int(self.by_id.at[clip, "n_frames"]))
        fraction = self.by_id.at[clip, "valid_fraction"] if "valid_fraction" in self.by_id.columns else 1.0
        if self.has_face is not None and not fraction >= 1.0:
            indices = indices[self.has_face(clip)[: len(indices)]]
        if len(indices) < setting.reference_frames:
            return ()
        if setting.reference_frame_rule == "first":
            return tuple(int(i) for i in indices[: setting.reference_frames])
        first = 1 if setting.reference_frame_rule == "first-and-random" else 0
        others = sorted(indices[first:], key=lambda i: _hash(*key, clip, int(i)))[: setting.reference_frames - first]
        return tuple(sorted(int(i) for i in [*indices[:first], *others]))


def balanced_subset(pairs: Sequence[Pair], n: int) -> list[Pair]:
    """Chooses at most `n` pairs with balanced speakers and target emotions; returns them in the order of their ids.

    The pairs are chosen one after the other. The next pair is always the pair whose combination of speaker and target
    emotion was chosen least often so far. Among several such pairs, the pair whose speaker was chosen least often is
    taken. Further ties are decided in the same way by the target emotion, the reference emotion and the seed, and
    finally by the smallest hash of the pair's id. If `pairs` is balanced, the numbers of chosen pairs of two speakers
    differ by at most one. A smaller subset is contained in every larger subset.
    """
    left = sorted(pairs, key=lambda pair: (_hash("subset", pair.pair_id), pair.pair_id))
    # The counts are compared in this order.
    properties = [
        ((p.speaker, p.target_emotion), p.speaker, p.target_emotion, p.reference_emotion, p.seed) for p in left
    ]
    taken_of = [Counter[object]() for _ in range(5)]
    taken: list[Pair] = []
    while left and len(taken) < n:
        counts = [[count[value] for count, value in zip(taken_of, values, strict=True)] for values in properties]
        best = counts.index(min(counts))  # the first pair with the smallest counts
        taken.append(left.pop(best))
        for count, value in zip(taken_of, properties.pop(best), strict=True):
            count[value] += 1
    return sorted(taken, key=lambda pair: pair.pair_id)


# Value of a setting's `disjoint` -> the column whose values must differ between two splits.
_SHARED_BY = {"speaker": "speaker", "sentence": "sentence_id"}


def _usable(clips: pd.DataFrame, split: str, setting: Setting) -> pd.DataFrame:
    """The clips of the split that have a label and at least one frame. Raises UserError if there is no such clip."""
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
        _check_promises(setting, split, chosen, labelled[labelled["split"].notna() & (labelled["split"] != split)])
    if chosen["clip_id"].duplicated().any():
        raise UserError(f"clip ids are not unique: {chosen.loc[chosen['clip_id'].duplicated(), 'clip_id'].iloc[0]}")
    return chosen


def _check_promises(setting: Setting, split: str, chosen: pd.DataFrame, rest: pd.DataFrame) -> None:
    """Raises UserError if `rest` and `chosen` have a speaker or sentence in common and the setting forbids this."""
    for name, column in _SHARED_BY.items():
        if name not in setting.disjoint or column not in chosen:
            continue
        if both := sorted(set(chosen[column].dropna()) & set(rest[column].dropna())):
            raise UserError(
                f"{setting.name} promises {name}s that training has not seen, "
                f"but {', '.join(both[:3])} are in {split!r} and in another split"
            )


def _cells(setting: Setting, emotions: Sequence[str], targets: Sequence[str]) -> Iterable[tuple[str, str]]:
    """All combinations (reference emotion, target emotion) that the setting draws for one speaker and seed."""
    for target in targets:
        if setting.reference == "neutral":
            yield "neutral", target
            continue
        for source in emotions:
            if source != target and not (setting.reference_emotions == "non-neutral" and source == "neutral"):
                yield source, target


def _source(by_id: pd.DataFrame, others: Sequence[str], reference: str, truth: str, setting: Setting) -> str:
    """The source clip, for methods that edit a video: one of `others`, or the reference clip."""
    if setting.source == "reference-clip" or "sentence_id" not in by_id.columns:
        return reference
    sentence = by_id.at[truth, "sentence_id"]
    if pd.isna(sentence):
        return reference
    same = [clip for clip in others if by_id.at[clip, "sentence_id"] == sentence]
    return min(same, key=lambda clip: (clip != reference, clip)) if same else reference


def _pool_rank(by_id: pd.DataFrame, clip: str, seed: int) -> tuple[int, str, str]:
    """Sort key of the clips in a pool: highest intensity first, then by hash.

    The key depends only on the clip and the seed. So if the target emotion is neutral, the pool of the target emotion
    and the neutral pool are equal.
    """
    return (-(_int_or_none(by_id.at[clip, "intensity"]) or 0), _hash(seed, "audio-pool", clip), clip)


def _ranked(clips: Iterable[str], *key: object) -> list[str]:
    return sorted(clips, key=lambda clip: (_hash(*key, clip), clip))


def _hash(*parts: object) -> str:
    # Join the parts with a separator, so that ("a", "bc") and ("ab", "c") give different hashes.
    return sha256_of("\x1f".join(str(part) for part in parts).encode())


def _int_or_none(value: object) -> int | None:
    return None if value is None or pd.isna(value) else int(value)  # type: ignore[call-overload]
