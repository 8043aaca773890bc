"""How AEE is trained: its pretraining tasks, then pairs of clips crossed, and its accuracy on held-out speakers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmet_reference.cem_net import aee
from cmet_reference.cem_net.audio2mouth_stage import another_voice
from cmet_reference.clips import ClipArrays
from cmet_reference.training.stage import Optimizer
from talking_face.emotions import EMOTIONS
from talking_face.reasons import UserError


@dataclass(frozen=True)
class AeeSettings:
    """How AEE is trained."""

    steps: int  # of the cross-reconstruction
    pretrain_steps: int
    batch: int = 16  # clips, or pairs of clips, a step (EVP)
    windows: int = 1  # K: of a clip that emotion and timbre are heard from; a window is 0.3 s
    rate: float = 2e-4  # the paper, after pretraining; used for both
    betas: tuple[float, float] = (0.5, 0.999)  # EVP
    weight_decay: float = 0.0
    pretrain: tuple[str, ...] = ("emotion", "identity", "text")  # the paper's three tasks
    text_frames: int = 150  # of a transcribed clip: LRS2's longest is 155
    # Pretraining: a clip's windows are mixed with those of another clip of the same emotion, by a share drawn from 0 to
    # this: a voice between two. With few speakers, what tells them apart is otherwise learnt for what tells emotions.
    mixing: float = 0.0
    gain: float = 0.0  # see another_voice; mel only
    bands: int = 0
    annealed: bool = False
    # With `manner`: the emotion begins as a linear discriminant of what is said of whole clips (`calibrated`), its
    # covariance shrunk so far towards the identity, and the network learns on top. None: from random weights.
    shrink: float | None = None


class AeeStage:
    """AEE: first the three pretraining tasks, then the eight-way cross-reconstruction."""

    name = aee.KIND

    def __init__(
        self,
        net: aee.Settings,
        settings: AeeSettings,
        weights: aee.Weights,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
        transcripts: Mapping[str, str] | None = None,
    ) -> None:
        """`transcripts`: texts of clips by id; without any, the text to be told is which sentence it is."""
        self.settings, self.weights, self.seed = settings, weights, seed
        self.steps = settings.pretrain_steps + settings.steps
        self.train, self.test = list(train), list(test)
        self.rows = [aee.features_of(c.audio, net) for c in train]
        self.texts = {k: v for k, v in (transcripts or {}).items() if "text" in settings.pretrain}
        every = np.concatenate(self.rows)
        self.felt = [i for i, c in enumerate(train) if c.emotion in EMOTIONS]
        if not self.felt:
            raise UserError("AEE learns from emotion labels, and no clip of the training split has one")
        labels = aee.Labels(
            tuple(e for e in EMOTIONS if any(c.emotion == e for c in train)),
            tuple(sorted({train[i].speaker for i in self.felt})),
            tuple(sorted({c.sentence_id for c in train if c.sentence_id})),
            bool(self.texts),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = aee.AEE(net, labels, every.mean(axis=0), every.std(axis=0) + np.float32(1e-3))
        if net.manner:
            self.wholes = np.stack([aee.whole(c.audio, rows) for c, rows in zip(train, self.rows, strict=True)])
            self.net.whole_mean.copy_(torch.from_numpy(self.wholes.mean(axis=0)))
            self.net.whole_std.copy_(torch.from_numpy(self.wholes.std(axis=0) + np.float32(1e-6)))
            if settings.shrink is not None:
                x = self.net.standard_whole(torch.from_numpy(self.wholes[self.felt])).numpy()
                meant = np.array([class_of(train[i].emotion, labels.emotions) for i in self.felt])
                who = np.array([train[i].speaker for i in self.felt])
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(seed)
                    self.net.furnish(calibrated(x, meant, who, len(labels.emotions), settings.shrink))
        self._spoken: dict[tuple[str, str | None, str | None], list[int]] = {}
        for i, c in enumerate(train):
            self._spoken.setdefault((c.speaker, c.emotion, c.sentence_id), []).append(i)
        self._alike: dict[str | None, list[int]] = {}
        for i in self.felt:
            self._alike.setdefault(train[i].emotion, []).append(i)
        said: dict[str, set[str | None]] = {}
        for i in self.felt:
            said.setdefault(train[i].speaker, set()).add(train[i].sentence_id)
        # Who says two sentences that this one says too; where nobody does, the speaker.
        self._mates = {x: [y for y in said if y != x and len((said[x] & said[y]) - {None}) > 1] or [x] for x in said}
        self._warped = lru_cache(maxsize=4096)(lambda i, onto: aee.warp(self.rows[i], self.rows[onto]))

    def optimizers(self) -> Mapping[str, Optimizer]:
        s = self.settings
        return {"net": Optimizer(list(self.net.parameters()), s.rate, s.weight_decay, s.betas, s.annealed)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        drawn = (self._clips if step < self.settings.pretrain_steps else self._pairs)(rng)
        return {k: np.stack(v) for k, v in drawn.items()}

    def loss(self, batch: Mapping[str, Any], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        what = aee.cross_reconstruction if "corners" in batch else aee.pretraining
        return what(self.net, batch, self.weights)

    def held_out(self) -> Mapping[str, float]:
        return emotion_figures(self.net, self.test)

    def record(self) -> Mapping[str, Any]:
        return self.net.record()

    def _clips(self, rng: np.random.Generator) -> dict[str, list[Any]]:
        labels = self.net.labels
        out: dict[str, list[Any]] = {"heard": []}
        for i in rng.integers(len(self.train), size=self.settings.batch):
            c = self.train[i]
            out["heard"].append(self._heard(i, rng, self.settings.windows))
            if "emotion" in self.settings.pretrain:
                out.setdefault("emotion", []).append(class_of(c.emotion, labels.emotions))
                alike = self._alike.get(c.emotion, [i])
                other = alike[int(rng.integers(len(alike)))]
                with_whom = self._heard(other, rng, self.settings.windows)
                share = np.float32(rng.uniform(0, self.settings.mixing))
                out.setdefault("felt", []).append((1 - share) * out["heard"][-1] + share * with_whom)
                if self.net.settings.manner:
                    out.setdefault("whole", []).append((1 - share) * self.wholes[i] + share * self.wholes[other])
            if "identity" in self.settings.pretrain:
                out.setdefault("speaker", []).append(class_of(c.speaker, labels.speakers))
            if "text" in self.settings.pretrain and self.texts:
                frames = np.arange(self.settings.text_frames)
                text = [1 + k for k in map(aee.LETTERS.find, self.texts.get(c.clip_id, "").lower()) if k >= 0]
                text = text[: self.settings.text_frames // 2]
                out.setdefault("spoken", []).append(aee.feature_windows(self.rows[i], frames, self.net.settings))
                out.setdefault("lengths", []).append(min(len(c), self.settings.text_frames))
                out.setdefault("n_letters", []).append(len(text))
                out.setdefault("letters", []).append(np.pad(text, (0, self.settings.text_frames // 2 - len(text))))
            elif "text" in self.settings.pretrain and labels.sentences:
                out.setdefault("sentence", []).append(class_of(c.sentence_id, labels.sentences))
        return out

    def _pairs(self, rng: np.random.Generator) -> dict[str, list[Any]]:
        drawn = [self._pair(rng) for _ in range(self.settings.batch)]
        return {name: [pair[name] for pair in drawn] for name in drawn[0]}

    def _pair(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Two clips that share nothing but perhaps the voice, and the six between them, as far as they are there.

        The second voice is another's who says two of the first one's sentences, where there is one. Where no speakers
        share sentences (the embedded corpus with 4 training speakers), both voices are one person's: the timbre of one
        recording must then serve another recording of that person.
        """
        first = self.felt[int(rng.integers(len(self.felt)))]
        a = self.train[first]
        unlike = [i for i in self.felt if self.train[i].emotion != a.emotion] or self.felt
        unlike = [i for i in unlike if self.train[i].sentence_id != a.sentence_id] or unlike
        others = [i for i in unlike if self.train[i].speaker in self._mates[a.speaker]]
        second = (others or unlike)[int(rng.integers(len(others or unlike)))]
        b = self.train[second]
        corners = np.zeros((2, 2, 2, *aee.window_shape(self.net.settings)), np.float32)
        known = np.zeros((2, 2, 2), np.float32)
        own = {(0, 0, 0): first, (1, 1, 1): second}
        at = [int(rng.integers(len(c))) for c in (a, b)]
        for i, j, k in np.ndindex(2, 2, 2):
            wanted = (a, b)[i].speaker, (a, b)[j].emotion, (a, b)[k].sentence_id
            found = self._spoken.get(wanted, []) if wanted[2] else []
            clip = own.get((i, j, k), found[int(rng.integers(len(found)))] if found else None)
            if clip is not None:
                rows = self._warped(clip, (first, second)[k]) if clip != (first, second)[k] else self.rows[clip]
                corners[i, j, k] = aee.feature_windows(rows, np.array(at[k : k + 1]), self.net.settings)[0]
                known[i, j, k] = 1
        heard = np.stack(
            [self._heard(i, rng, self.settings.windows, start=t) for i, t in zip((first, second), at, strict=True)]
        )
        labels = self.net.labels
        emotions = np.array([class_of(c.emotion, labels.emotions) for c in (a, b)])
        speakers = np.array([class_of(c.speaker, labels.speakers) for c in (a, b)])
        out = {"corners": corners, "known": known, "heard": heard, "emotion": emotions, "speaker": speakers}
        return out | ({"whole": self.wholes[[first, second]]} if self.net.settings.manner else {})

    def _heard(self, i: int, rng: np.random.Generator, windows: int, start: int | None = None) -> np.ndarray:
        """(K, 28, F): windows of a clip anywhere, the first at `start` if that is given."""
        at = rng.integers(len(self.train[i]), size=windows)
        if start is not None:
            at[0] = start
        got = aee.feature_windows(self.rows[i], at, self.net.settings)
        if self.net.settings.features == "mel":
            got = another_voice(got.swapaxes(1, 2), self.settings.gain, self.settings.bands, rng).swapaxes(1, 2)
        return got


def emotion_figures(net: aee.AEE, clips: Sequence[ClipArrays]) -> dict[str, float]:
    """Share of clips whose emotion is told from their sound, in all and by intensity."""
    rows = [
        (net.labels.emotions[int(net.probabilities(c.audio).argmax())] == c.emotion, c.intensity)
        for c in clips
        if c.emotion is not None
    ]
    out = {"accuracy": float(np.mean([hit for hit, _ in rows]))} if rows else {}
    for level in sorted({level for _, level in rows if level is not None}):
        out[f"accuracy_level_{level}"] = float(np.mean([hit for hit, n in rows if n == level]))
    return out


def discriminant(x: np.ndarray, classes: np.ndarray, n: int, shrink: float) -> np.ndarray:
    """Fisher's, all classes as likely: (N, D) and (N,) in 0 to n - 1 to (D + 1, n), the last row for an input of 1.

    The covariance within classes goes `shrink` of the way to its mean variance times the identity, as in
    `cmet_reference.evaluators.train`. A class without an example is never named.
    """
    there = [k for k in range(n) if (classes == k).any()]
    centres = np.stack([x[classes == k].mean(axis=0) for k in there]).astype(np.float64)
    inside = x - centres[np.searchsorted(there, classes)]
    within = inside.T @ inside / len(x)
    level = max(float(np.trace(within)) / len(within), 1e-9)
    weights = np.linalg.solve((1 - shrink) * within + shrink * level * np.eye(len(within)), centres.T)
    out = np.zeros((x.shape[1] + 1, n))
    out[-1] = -1e3
    out[:, there] = np.concatenate([weights, -(weights * centres.T).sum(axis=0, keepdims=True) / 2])
    return out


def calibrated(x: np.ndarray, classes: np.ndarray, speakers: np.ndarray, n: int, shrink: float) -> np.ndarray:
    """`discriminant`, times the factor of 0.05 to 2 that makes its log odds the likeliest for speakers left out one by
    one; 1 with a single speaker. Fitted to 32 clips of each of four it is surer than a fifth deserves.

    Clips of a class that one speaker alone shows do not count: without that speaker, nobody could know it."""
    shown_by = np.array([len(set(speakers[classes == k].tolist())) for k in range(n)])
    shared = shown_by[classes] > 1
    scale = 1.0
    if shared.any():
        scores = np.zeros((len(x), n))
        for out in sorted(set(speakers.tolist())):
            rule = discriminant(x[speakers != out], classes[speakers != out], n, shrink)
            scores[speakers == out] = x[speakers == out] @ rule[:-1] + rule[-1]
        scale = min(np.geomspace(0.05, 2, 60).tolist(), key=lambda a: surprise(a * scores[shared], classes[shared]))
    return scale * discriminant(x, classes, n, shrink)


def surprise(scores: np.ndarray, classes: np.ndarray) -> float:
    """Mean cross-entropy in nats of (N, C) log odds, up to a constant a row, and (N,) true classes."""
    high = scores.max(axis=1)
    return float(
        np.mean(high + np.log(np.exp(scores - high[:, None]).sum(axis=1)) - scores[np.arange(len(scores)), classes])
    )


def class_of(name: str | None, names: Sequence[str]) -> int:
    """Where a label stands; -100, which cross-entropy leaves out, for none."""
    return names.index(name) if name in names else -100
