"""Draws pairs of clips for AEE's cross-reconstruction, and finds the clips that combine properties of the two."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from cmet_reference.clips import ClipArrays

_CROSSED = 6  # of the eight combinations of voice, emotion and sentence, two are the clips of the pair themselves


class ClipPairs:
    """Pairs of two clips of different emotion, sentence and, if possible, voice.

    The voices, emotions and sentences of the two clips have eight combinations. Two combinations are the clips
    themselves. Each of the other six is crossed: it exists only if a clip with this voice, emotion and sentence exists.

    The second speaker is preferably a partner of the first speaker: another speaker who spoke at least two of the same
    sentences. If no speakers share sentences, both clips are of one person; this is so in the embedded corpus with 4
    training speakers. Then the timbre of one recording is used to reconstruct another recording of the same person.
    """

    def __init__(self, clips: Sequence[ClipArrays], labelled: Sequence[int]) -> None:
        """`labelled`: the indices of the clips with an emotion label. Only these clips are drawn."""
        self.clips = clips
        self._clips_of: dict[tuple[str, str | None, str | None], list[int]] = {}
        for i, c in enumerate(clips):
            self._clips_of.setdefault((c.speaker, c.emotion, c.sentence_id), []).append(i)
        # A clip of unknown sentence has few crossed combinations. Such clips are drawn only for an emotion of which no
        # sentence is known, so that the network does not forget the emotion.
        with_sentence = {clips[i].emotion for i in labelled if clips[i].sentence_id}
        self.drawn = np.array(
            [i for i in labelled if clips[i].sentence_id or clips[i].emotion not in with_sentence], dtype=np.int64
        )
        self._emotions, self._sentences, self._speakers = (
            np.unique([str(getattr(clips[i], name)) for i in self.drawn], return_inverse=True)[1]
            for name in ("emotion", "sentence_id", "speaker")
        )
        self._partners = self._partners_by_number()

    def _partners_by_number(self) -> list[list[int]]:
        """The numbers of each speaker's partners, by the number of the speaker."""
        said: dict[int, set[str]] = {int(n): set() for n in self._speakers}
        for i, n in zip(self.drawn, self._speakers, strict=True):
            if sentence := self.clips[i].sentence_id:
                said[int(n)].add(sentence)
        return [[y for y in said if y != x and len(said[x] & said[y]) > 1] or [x] for x in sorted(said)]

    def draw(self, rng: np.random.Generator) -> tuple[int, int]:
        """Draw the indices of the two clips of a pair."""
        at = int(rng.integers(len(self.drawn)))
        different = self._emotions != self._emotions[at]
        different = different if different.any() else np.ones(len(self.drawn), bool)
        other = different & (self._sentences != self._sentences[at])
        different = other if other.any() else different
        partners = different & np.isin(self._speakers, self._partners[self._speakers[at]])
        found = np.flatnonzero(partners if partners.any() else different)
        return int(self.drawn[at]), int(self.drawn[found[int(rng.integers(len(found)))]])

    def corners(self, first: int, second: int) -> dict[tuple[int, int, int], list[int]]:
        """The clips of each combination (i, j, k) of a pair that exists: voice of i, emotion of j, sentence of k."""
        pair, a, b = (first, second), self.clips[first], self.clips[second]
        out = {}
        for i, j, k in np.ndindex(2, 2, 2):
            wanted = (a, b)[i].speaker, (a, b)[j].emotion, (a, b)[k].sentence_id
            found = [pair[i]] if i == j == k else self._clips_of.get(wanted, []) if wanted[2] else []
            if found:
                out[i, j, k] = found
        return out

    def share_of_crossed(self, seed: int, pairs: int = 512) -> float:
        """The share of the six crossed combinations that exist as clips, over pairs drawn as in the training."""
        rng = np.random.default_rng(seed)
        return float(np.mean([(len(self.corners(*self.draw(rng))) - 2) / _CROSSED for _ in range(pairs)]))
