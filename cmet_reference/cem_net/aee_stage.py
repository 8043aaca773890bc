"""Trains AEE, CEM-Net's audio emotion extractor: first the pretraining tasks, then cross-reconstruction of clip pairs.

The module also measures how often AEE recognises the emotion of held-out clips.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from cmet_reference.cem_net import aee, aee_features, aee_losses, aee_settings
from cmet_reference.cem_net.aee_pairs import ClipPairs
from cmet_reference.cem_net.audio2mouth_stage import augmented_voice
from cmet_reference.clips import ClipArrays
from cmet_reference.training.rounding import rounded
from cmet_reference.training.stage import Optimizer
from talking_face.emotions import EMOTIONS
from talking_face.reasons import UserError

Sample = dict[str, np.ndarray | int]  # the arrays of one clip or of one pair of clips, by name
Batch = dict[str, list[np.ndarray | int]]


@dataclass(frozen=True)
class AeeSettings:
    """How AEE is trained."""

    steps: int  # steps of the cross-reconstruction, after the pretraining
    pretrain_steps: int
    batch: int = 16  # clips per pretraining step, or pairs of clips per later step (EVP's number)
    windows: int = 1  # K, windows per clip, for emotion and timbre; a window is 0.3 s
    rate: float = 2e-4  # learning rate of all steps; the paper gives it for the steps after pretraining
    betas: tuple[float, float] = (0.5, 0.999)  # betas of the optimizer Adam (EVP)
    weight_decay: float = 0.0
    pretrain: tuple[str, ...] = ("emotion", "identity", "text")  # the paper's three pretraining tasks
    text_frames: int = 150  # frames of a transcribed clip that are used; the longest clip of LRS2 has 155
    # In pretraining, the windows of a clip are mixed with the windows of another clip of the same emotion. The share of
    # the other clip is drawn between 0 and this value. Without the mixing and with few speakers, the network learns to
    # recognise speakers instead of emotions.
    mixing: float = 0.0
    gain: float = 0.0  # `gain` and `bands`: arguments of `augmented_voice`; only for mel features
    bands: int = 0
    annealed: bool = False  # see training.stage.Optimizer
    # Used only if the network setting `manner` is on. If it is a number, the emotion encoder is initialised as a linear
    # discriminant of the clip features (see `calibrated`). The number is the share of the covariance that is replaced
    # by a multiple of the identity. If it is None, the emotion encoder starts from random weights.
    shrink: float | None = None
    # Where the sentences of the clips are known from, in the order of precedence; see the module `sentences`.
    sentences: tuple[str, ...] = ("data",)
    # For the source "sound": the expected share of wrong pairs among the pairs of clips that count as one sentence. On
    # real emotional speech of ten speakers, 0.01 finds 88 % of the pairs of a speaker, and none of the found pairs is
    # wrong (docs/experiments/cem_net.md).
    sound_error: float = 0.01
    # The training stops before its first step if a smaller share of the six combinations of a pair exists as clips.
    least_crossed: float = 0.0


def _labels(train: Sequence[ClipArrays], labelled: Sequence[int], texts: bool) -> aee_settings.Labels:
    return aee_settings.Labels(
        tuple(e for e in EMOTIONS if any(c.emotion == e for c in train)),
        tuple(sorted({train[i].speaker for i in labelled})),
        tuple(sorted({c.sentence_id for c in train if c.sentence_id})),
        texts,
    )


class AeeStage:
    """Trains AEE: first on the three pretraining tasks, then by cross-reconstruction of clip pairs. A `Stage`."""

    name = aee.KIND
    network: type[aee.AEE] = aee.AEE

    def __init__(
        self,
        net: aee_settings.AeeNetSettings,
        settings: AeeSettings,
        weights: aee_settings.AeeLossWeights,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
        transcripts: Mapping[str, str] | None = None,
    ) -> None:
        """`transcripts`: texts of clips by id. Without transcripts, the text task is to recognise the sentence's id.

        Raises UserError if no training clip has an emotion label.
        """
        self.settings, self.weights, self.seed = settings, weights, seed
        self.steps = settings.pretrain_steps + settings.steps
        self.train, self.test = list(train), list(test)
        self.rows = [rounded(aee_features.features_of(c.audio, net)) for c in train]
        self.texts = {k: v for k, v in (transcripts or {}).items() if "text" in settings.pretrain}
        self.labelled = [i for i, c in enumerate(train) if c.emotion in EMOTIONS]
        if not self.labelled:
            raise UserError("AEE learns from emotion labels, and no clip of the training split has one")
        labels = _labels(self.train, self.labelled, bool(self.texts))
        every = np.concatenate(self.rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = self.network(net, labels, every.mean(axis=0), every.std(axis=0) + np.float32(1e-3))
        if net.manner:
            self._fit_clip_features()
        self._same_emotion: dict[str | None, list[int]] = {}
        for i in self.labelled:
            self._same_emotion.setdefault(train[i].emotion, []).append(i)
        self.pairs = ClipPairs(self.train, self.labelled)
        self.crossed = self.pairs.share_of_crossed(seed)
        if self.settings.steps and self.crossed < settings.least_crossed:
            raise UserError(
                f"AEE: {self.crossed:.0%} of the crossed combinations exist as clips, and [aee] least_crossed is "
                f"{settings.least_crossed:.0%}; add sources to [aee] sentences, for example a CSV or `sound` "
                "(docs/reference/cem_net.md, AEE)"
            )
        self._warped = lru_cache(maxsize=4096)(lambda i, onto: aee_features.warp(self.rows[i], self.rows[onto]))

    def _fit_clip_features(self) -> None:
        """Compute the clip features, and the mean and standard deviation of these features.

        If `shrink` is set, the network is initialised as a linear discriminant of these features.
        """
        pairs = zip(self.train, self.rows, strict=True)
        self.clip_features = rounded(np.stack([aee_features.clip_features(c.audio, rows) for c, rows in pairs]))
        self.net.whole_mean.copy_(torch.from_numpy(self.clip_features.mean(axis=0)))
        self.net.whole_std.copy_(torch.from_numpy(self.clip_features.std(axis=0) + np.float32(1e-6)))
        if self.settings.shrink is None:
            return
        emotions = self.net.labels.emotions
        x = self.net.standard_clip(torch.from_numpy(self.clip_features[self.labelled])).numpy()
        classes = np.array([class_of(self.train[i].emotion, emotions) for i in self.labelled])
        speakers = np.array([self.train[i].speaker for i in self.labelled])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            self.net.init_as_linear_rule(calibrated(x, classes, speakers, len(emotions), self.settings.shrink))

    def optimizers(self) -> Mapping[str, Optimizer]:
        s = self.settings
        return {"net": Optimizer(list(self.net.parameters()), s.rate, s.weight_decay, s.betas, s.annealed)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        drawn = (self._clips if step < self.settings.pretrain_steps else self._pairs)(rng)
        return {k: np.stack(v) for k, v in drawn.items()}

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        compute = aee_losses.cross_reconstruction if "corners" in batch else aee_losses.pretraining
        return compute(self.net, batch, self.weights)

    def held_out(self) -> Mapping[str, float]:
        return emotion_figures(self.net, self.test)

    def record(self) -> Mapping[str, object]:
        return self.net.record()

    def _clips(self, rng: np.random.Generator) -> Batch:
        """Draw a batch of clips for the pretraining tasks."""
        out: Batch = {"windows": []}
        for i in rng.integers(len(self.train), size=self.settings.batch):
            windows = self._windows(i, rng)
            sample: Sample = {"windows": windows}
            if "emotion" in self.settings.pretrain:
                sample |= self._emotion_task(i, windows, rng)
            if "identity" in self.settings.pretrain:
                sample["speaker"] = class_of(self.train[i].speaker, self.net.labels.speakers)
            if "text" in self.settings.pretrain:
                sample |= self._text_task(i)
            for name, value in sample.items():
                out.setdefault(name, []).append(value)
        return out

    def _emotion_task(self, i: int, windows: np.ndarray, rng: np.random.Generator) -> Sample:
        """The clip's emotion label, and its windows, mixed with the windows of a random clip of the same emotion."""
        emotion = self.train[i].emotion
        same = self._same_emotion.get(emotion, [i])
        other = same[int(rng.integers(len(same)))]
        other_windows = self._windows(other, rng)
        share = np.float32(rng.uniform(0, self.settings.mixing))
        out: Sample = {"emotion": class_of(emotion, self.net.labels.emotions)}
        out["emotion_windows"] = (1 - share) * windows + share * other_windows
        if self.net.settings.manner:
            out["clip"] = (1 - share) * self.clip_features[i] + share * self.clip_features[other]
        return out

    def _text_task(self, i: int) -> Sample:
        """The clip's transcript with one window per frame, or the sentence's class if there are no transcripts.

        It is {} if the clip has no label.
        """
        c, labels, most = self.train[i], self.net.labels, self.settings.text_frames
        if not self.texts:
            return {"sentence": class_of(c.sentence_id, labels.sentences)} if labels.sentences else {}
        letters = [1 + k for k in map(aee.LETTERS.find, self.texts.get(c.clip_id, "").lower()) if k >= 0]
        letters = letters[: most // 2]
        return {
            "text_windows": aee_features.feature_windows(self.rows[i], np.arange(most), self.net.settings),
            "lengths": min(len(c), most),
            "n_letters": len(letters),
            "letters": np.pad(letters, (0, most // 2 - len(letters))),
        }

    def _pairs(self, rng: np.random.Generator) -> Batch:
        drawn = [self._pair(rng) for _ in range(self.settings.batch)]
        return {name: [pair[name] for pair in drawn] for name in drawn[0]}

    def _pair(self, rng: np.random.Generator) -> Sample:
        """Draws two clips, and the clips with mixed properties; see `ClipPairs`. `known` is 0 where no clip exists."""
        first, second = self.pairs.draw(rng)
        a, b = self.train[first], self.train[second]
        corners = np.zeros((2, 2, 2, *aee_features.window_shape(self.net.settings)), np.float32)
        known = np.zeros((2, 2, 2), np.float32)
        at = [int(rng.integers(len(c))) for c in (a, b)]
        for (i, j, k), found in self.pairs.corners(first, second).items():
            clip = found[int(rng.integers(len(found)))]
            rows = self._warped(clip, (first, second)[k]) if clip != (first, second)[k] else self.rows[clip]
            corners[i, j, k] = aee_features.feature_windows(rows, np.array(at[k : k + 1]), self.net.settings)[0]
            known[i, j, k] = 1
        windows = np.stack([self._windows(i, rng, start=t) for i, t in zip((first, second), at, strict=True)])
        labels = self.net.labels
        emotions = np.array([class_of(c.emotion, labels.emotions) for c in (a, b)])
        speakers = np.array([class_of(c.speaker, labels.speakers) for c in (a, b)])
        out: Sample = {"corners": corners, "known": known, "windows": windows, "emotion": emotions, "speaker": speakers}
        if self.net.settings.manner:
            out["clip"] = self.clip_features[[first, second]]
        return out

    def about(self) -> Mapping[str, object]:
        """What the card says about the data: see `training.stage.Described`."""
        known = sum(bool(self.train[i].sentence_id) for i in self.labelled)
        return {
            "crossed_combinations": round(self.crossed, 4),
            "clips_with_emotion": len(self.labelled),
            "clips_with_sentence": known,
        }

    def _windows(self, i: int, rng: np.random.Generator, start: int | None = None) -> np.ndarray:
        """Windows of a clip at random frames, (K, 28, F), where K is settings.windows.

        Args:
            start: frame of the first window; None: a random frame.
        """
        at = rng.integers(len(self.train[i]), size=self.settings.windows)
        if start is not None:
            at[0] = start
        windows = aee_features.feature_windows(self.rows[i], at, self.net.settings)
        if self.net.settings.features == "mel":
            gain, bands = self.settings.gain, self.settings.bands
            windows = augmented_voice(windows.swapaxes(1, 2), gain, bands, rng).swapaxes(1, 2)
        return windows


def emotion_figures(net: aee.AEE, clips: Sequence[ClipArrays]) -> dict[str, float]:
    """The share of clips whose emotion the network recognises in the audio, for all clips and for each intensity."""
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
    """Computes Fisher's linear discriminant. All classes are assumed to be equally likely.

    As in `cmet_reference.evaluators.emotion`, a share of the covariance within classes is replaced by the mean variance
    times the identity. A class without an example is never predicted.

    Args:
        x: (N, D).
        classes: (N,), 0 to n - 1.
        n: the number of classes.
        shrink: the share of the covariance that is replaced, 0 to 1.

    Returns:
        (D + 1, n) weights; the last row is the bias.
    """
    present = [k for k in range(n) if (classes == k).any()]
    centres = np.stack([x[classes == k].mean(axis=0) for k in present]).astype(np.float64)
    inside = x - centres[np.searchsorted(present, classes)]
    within = inside.T @ inside / len(x)
    level = max(float(np.trace(within)) / len(within), 1e-9)
    weights = np.linalg.solve((1 - shrink) * within + shrink * level * np.eye(len(within)), centres.T)
    out = np.zeros((x.shape[1] + 1, n))
    out[-1] = -1e3
    out[:, present] = np.concatenate([weights, -(weights * centres.T).sum(axis=0, keepdims=True) / 2])
    return out


def calibrated(x: np.ndarray, classes: np.ndarray, speakers: np.ndarray, n: int, shrink: float) -> np.ndarray:
    """The result of `discriminant`, multiplied by a factor that calibrates its log odds for new speakers.

    Without the factor, a discriminant that is fitted to 32 clips of each of four speakers is overconfident on a fifth
    speaker. The factor is between 0.05 and 2. To choose the factor, each speaker in turn is left out of the fit, and
    then the clips of this speaker are classified. The factor with the least cross-entropy is used. If only one speaker
    shows a class, the clips of this class are ignored, because without this speaker the class is unknown. If all clips
    are ignored, the factor is 1.
    """
    shown_by = np.array([len(set(speakers[classes == k].tolist())) for k in range(n)])
    shared = shown_by[classes] > 1
    scale = 1.0
    if shared.any():
        scores = np.zeros((len(x), n))
        for left_out in sorted(set(speakers.tolist())):
            rule = discriminant(x[speakers != left_out], classes[speakers != left_out], n, shrink)
            scores[speakers == left_out] = x[speakers == left_out] @ rule[:-1] + rule[-1]
        scale = min(
            np.geomspace(0.05, 2, 60).tolist(), key=lambda a: cross_entropy(a * scores[shared], classes[shared])
        )
    return scale * discriminant(x, classes, n, shrink)


def cross_entropy(scores: np.ndarray, classes: np.ndarray) -> float:
    """Mean cross-entropy in nats.

    Args:
        scores: (N, C) log odds; a constant may be added to each row.
        classes: (N,) true classes.
    """
    high = scores.max(axis=1)
    return float(
        np.mean(high + np.log(np.exp(scores - high[:, None]).sum(axis=1)) - scores[np.arange(len(scores)), classes])
    )


def class_of(name: str | None, names: Sequence[str]) -> int:
    """The index of a label in `names`; -100, which the cross-entropy ignores, if the label is missing or unknown."""
    return names.index(name) if name in names else -100
