"""Draws C-MET's training samples, as a pure function of (seed, step).

Source: src/dataset_emo12.py of ChanHyeok-Choi/C-MET. Two properties of that code are kept as defaults, because the
published numbers depend on these properties. First, the reference tokens are the true direction in the frames before
the window. The direction is constant over time, so the reference tokens contain the answer, unless the window starts at
frame 0. The setting `reference` can replace these tokens. Second, the speech vectors come from all speakers of the
split. The setting `speech_speakers` can restrict the speakers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np

from cmet_reference.cmet.speech import PoolEncoder
from talking_face.emotions import EMOTIONS
from talking_face.reasons import UserError

# Clip numbers in MEAD: _EPOCH has the clips that are drawn in an epoch, _MEAN has the clips whose codes are averaged.
_EPOCH = {"neutral": {*range(1, 4), *range(31, 41)}, "emotional": {*range(1, 4), *range(21, 31)}}
_MEAN = {"neutral": {*range(1, 11), *range(31, 41)}, "emotional": {*range(1, 11), *range(21, 31)}}


@dataclass(frozen=True)
class Sampling:
    """How samples are drawn. The defaults are those of the released code, except the default of `takes`."""

    batch: int = 128
    window: int = 5
    clips: int = 10  # clips per emotion whose codes are averaged; drawn with replacement
    direction: Literal["average", "first", "max", "random", "raw"] = "average"  # see `_direction`
    identity: Literal["same", "different"] = "same"  # the codes are of the drawn clip's speaker, or of a random speaker
    speech_clips: int = 10  # utterances per pool
    # The speakers whose utterances are used. "all": all speakers. "same": the speaker of the drawn clip. "some": a few
    # speakers, who are drawn for each sample and used for source and target emotion; utterances are drawn with
    # replacement. If there are few speakers, the pools of "all" hardly vary, and the network memorises the noise of
    # these pools.
    speech_speakers: Literal["all", "same", "some"] = "all"
    speech_stride: int = 7  # step in the list of the target emotion's utterances; the source emotion's step is 1
    scale_intensity: bool = False  # scale utterance vectors to length 1, and their difference to the intensity
    reference: Literal["released", "zero", "predicted"] = "released"
    # Standard deviation, in units of the codes, of a random offset. The same offset is added to all codes of a sample,
    # in the source and in the target emotion. The offset imitates other people; the released code has no such offset.
    # If there are only four training speakers and no offset, the network can identify the speaker from the input codes.
    identity_noise: float = 0.0
    # "released": an epoch has only MEAD's clips 1-3 and 21-30; for neutral, clips 1-3 and 31-40.
    takes: Literal["all", "released"] = "all"


@dataclass(frozen=True)
class CodedClips:
    """The clips, as the sampler needs them. All sequences have one entry per clip, in the order of `clip_ids`."""

    clip_ids: Sequence[str]
    speakers: Sequence[str]
    emotions: Sequence[str]
    levels: Sequence[int]  # intensity, 1 to 3; 1 for neutral clips and for clips without a label
    codes: Sequence[np.ndarray]  # (T, C) float32 expression codes
    speech: np.ndarray  # (N, R) float32, the utterance vector of each clip

    def __len__(self) -> int:
        return len(self.clip_ids)


class Sampler:
    """Draws batches of clips, grouped by speaker, emotion and intensity. `batch` is a pure function of the step."""

    def __init__(self, clips: CodedClips, sampling: Sampling, seed: int, pools: PoolEncoder) -> None:
        """Groups the clips.

        Raises UserError if no speaker shows two emotions at one level, or if `scale_intensity` is on and the pool rule
        is not `mean`.
        """
        if sampling.scale_intensity and pools.rule != "mean":
            raise UserError("scale_intensity needs the pool rule `mean`: speech = emotion2vec:FOLDER or stored:FOLDER")
        self.clips, self.sampling, self.seed, self.pool_encoder = clips, sampling, seed, pools
        self.cells: dict[tuple[str, str, int], list[int]] = {}
        self.pools: dict[tuple[str | None, str, int], list[int]] = {}
        for i in range(len(clips)):
            emotion, level = clips.emotions[i], clips.levels[i]
            for speaker in (None, clips.speakers[i]):
                self.pools.setdefault((speaker, emotion, level), []).append(i)
            if self._counts(i, _MEAN) and len(clips.codes[i]) >= sampling.window:
                self.cells.setdefault((clips.speakers[i], emotion, level), []).append(i)
        self.speakers = sorted({s for s, _, _ in self.cells})
        self.index = [i for i in range(len(clips)) if self._counts(i, _EPOCH) and self._targets(i)]
        if not self.index:
            raise UserError("no speaker of the training split shows two emotions at one level; C-MET learns from pairs")
        # An epoch has only whole batches, unless there are fewer clips than a batch needs.
        n = len(self.index)
        self.epoch = n - n % sampling.batch if n >= sampling.batch else n
        self._order = lru_cache(maxsize=2)(self._shuffled)

    def batch(self, step: int) -> dict[str, np.ndarray]:
        """The samples of a step.

        Returns:
            speech (B, 1, D): the encoding of the target emotion's pool minus the encoding of the source emotion's pool.
            source, target (B, W, C): codes in the source and in the target emotion.
            direction (B, W, C): the direction from the source codes to the target codes.
            reference (B, W, C): the direction in the frames before the window; zeros unless `reference = released`.
            label (B,) int64: target emotion, an index of EMOTIONS.
            before_source, before_target (B, W, C): only with `reference = predicted`, the codes of the block before the
                window, for which the network predicts the reference tokens.
            has_before (B,) float32: only with `reference = predicted`. It is 1 if the codes of the block before are
                used. It is 0 with a probability of at least one half; then the sample is treated like the first block
                of a clip.
        """
        draw = np.random.default_rng((self.seed, step))
        size = self.sampling.batch
        samples = []
        for place in range(step * size, (step + 1) * size):
            epoch, at = divmod(place, self.epoch)
            samples.append(self._sample(int(self._order(epoch)[at]), draw))
        return {name: np.stack([s[name] for s in samples]) for name in samples[0]}

    def speech_direction(
        self, source: str, target: str, level: int, offset: int, speaker: str | None = None
    ) -> np.ndarray:
        """(D,): the direction of speech between pools whose utterances depend only on `offset`.

        Source: get_raw_e2v and get_e2v in src/dataset_emo12.py.

        The utterances of each emotion are a cyclic list. The k-th utterance has index offset + k for the source emotion
        and for neutral, and index offset + 7 k for the target emotion (`speech_stride`).
        """
        s = self.sampling
        k = np.arange(s.speech_clips)
        vectors_of = []
        for emotion, stride in ((source, 1), (target, s.speech_stride), ("neutral", 1)):
            pool = self.pools.get((speaker, emotion, _level(emotion, level))) or self._clips_of([speaker])
            vectors = self.clips.speech[[pool[i] for i in (offset + stride * k) % len(pool)]]
            if s.scale_intensity:
                vectors = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
            vectors_of.append(vectors)
        out = self.pool_encoder.direction(*vectors_of)
        return out * (level / np.linalg.norm(out)) if s.scale_intensity else out

    def drawn_speech(self, source: str, target: str, level: int, draw: np.random.Generator) -> np.ndarray:
        """(D,): the direction of speech between random pools, for `speech_speakers = some`.

        The pools are drawn from a random subset of the speakers who show both emotions.
        """
        keys = [(e, _level(e, level)) for e in (source, target)]
        both = [p for p in sorted(set(self.clips.speakers)) if all((p, *key) in self.pools for key in keys)]
        some = draw.permutation(len(both))[: int(draw.integers(len(both))) + 1]
        vectors_of = []
        for key in (*keys, ("neutral", 1)):
            pool = [i for k in some for i in self.pools.get((both[k], *key), ())] or self._clips_of(both)
            vectors_of.append(self.clips.speech[draw.choice(pool, self.sampling.speech_clips)])
        return self.pool_encoder.direction(*vectors_of)

    def _clips_of(self, speakers: Sequence[str | None]) -> list[int]:
        """Indices of all clips of the speakers; the speaker None means all speakers.

        These clips are used if a pool would be empty.
        """
        return [i for i, s in enumerate(self.clips.speakers) if s in speakers or None in speakers]

    def _sample(self, index: int, draw: np.random.Generator) -> dict[str, np.ndarray]:
        clips, s = self.clips, self.sampling
        chosen = self.index[int(draw.integers(len(self.index)))]  # `index` sets only the speech offset
        source, level, speaker = clips.emotions[chosen], clips.levels[chosen], clips.speakers[chosen]
        target = str(draw.choice(self._targets(chosen)))
        if s.identity == "different":
            both = [
                p
                for p in self.speakers
                if self._cell(p, source, level) is not None and self._cell(p, target, level) is not None
            ]
            speaker = str(draw.choice(both))
        means = [self._mean(self._cell(speaker, e, level) or [], draw) for e in (source, target)]
        n = min(len(m) for m in means)
        first, second = means[0][:n], means[1][:n]
        direction = _direction(first, second, s.direction, draw)
        if s.identity_noise:
            offset = np.asarray(draw.normal(0, s.identity_noise, first.shape[1:]), np.float32)
            first, second = first + offset, second + offset

        start = int(draw.integers(n - s.window + 1))
        window = slice(start, start + s.window)
        reference = np.zeros((s.window, direction.shape[1]), np.float32)
        if s.reference == "released" and start:
            known = direction[max(0, start - s.window) : start]
            reference[-len(known) :] = known
        if s.speech_speakers == "some":
            speech = self.drawn_speech(source, target, level, draw)
        else:
            owner = clips.speakers[chosen] if s.speech_speakers == "same" else None
            speech = self.speech_direction(source, target, level, index, owner)
        out = {
            "speech": speech[None],
            "source": first[window],
            "target": second[window],
            "direction": direction[window],
            "reference": reference,
            "label": np.int64(EMOTIONS.index(target)),
        }
        if s.reference == "predicted":
            has = start >= s.window and draw.random() < 0.5
            before = slice(start - s.window, start) if has else window
            out |= {
                "before_source": first[before],
                "before_target": second[before],
                "has_before": np.float32(has),
            }
        return {name: np.asarray(value) for name, value in out.items()}

    def _mean(self, cell: list[int], draw: np.random.Generator) -> np.ndarray:
        """The mean codes of random clips of a cell. Short clips are repeated to the length of the longest clip.

        A cell is the list of the clips of one speaker, emotion and intensity.
        """
        tracks = [self.clips.codes[cell[i]] for i in draw.integers(len(cell), size=self.sampling.clips)]
        n = max(len(t) for t in tracks)
        repeated = [t if len(t) == n else t[np.arange(n) % len(t)] for t in tracks]
        return np.stack(repeated).mean(axis=0, dtype=np.float32)

    def _cell(self, speaker: str, emotion: str, level: int) -> list[int] | None:
        return self.cells.get((speaker, emotion, _level(emotion, level)))

    def _targets(self, i: int) -> list[str]:
        """The other emotions that the clip's speaker shows at the clip's level."""
        speaker, own, level = self.clips.speakers[i], self.clips.emotions[i], self.clips.levels[i]
        if self._cell(speaker, own, level) is None:
            return []
        return [e for e in EMOTIONS if e != own and self._cell(speaker, e, level) is not None]

    def _counts(self, i: int, numbers: Mapping[str, set[int]]) -> bool:
        if self.sampling.takes == "all":
            return True
        last = self.clips.clip_ids[i].rsplit("/", 1)[-1]
        if not last.isdigit():
            raise UserError(f"{self.clips.clip_ids[i]} has no number as MEAD's clips have; set takes = 'all'")
        return int(last) in numbers["neutral" if self.clips.emotions[i] == "neutral" else "emotional"]

    def _shuffled(self, epoch: int) -> np.ndarray:
        return np.random.default_rng((self.seed, 1 << 32, epoch)).permutation(len(self.index))


def _level(emotion: str, level: int) -> int:
    return 1 if emotion == "neutral" else level  # MEAD's neutral clips are all of level 1


def _direction(first: np.ndarray, second: np.ndarray, rule: str, draw: np.random.Generator) -> np.ndarray:
    """The direction (T, C) from the codes `first` to the codes `second`. It is constant over time except for `raw`.

    `raw` is the difference in every frame. `average` is the mean of this difference over time, `first` is the
    difference in the first frame, and `max` is the difference in the frame where its mean is largest. `random` is the
    difference of two random frames.
    """
    gap = second - first
    if rule == "raw":
        return gap
    one: np.ndarray
    if rule == "random":
        one = second[draw.integers(len(second))] - first[draw.integers(len(first))]
    elif rule == "first":
        one = gap[0]
    elif rule == "max":
        one = gap[gap.mean(axis=1).argmax()]
    else:
        one = np.asarray(gap.mean(axis=0))
    return np.repeat(one[None].astype(np.float32), len(gap), axis=0)
