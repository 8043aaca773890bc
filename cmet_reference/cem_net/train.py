"""CEM-Net's stages for the training loop: Audio2Mouth, AEE, EBM, and the renderer where it is there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cmet_reference.cem_net import aee, audio2mouth
from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net.audio2mouth import LIPS, POINTS, UPPER, Audio2Mouth
from cmet_reference.cem_net.data import Face, mean_face, outside, prepare
from cmet_reference.clips import ClipArrays
from cmet_reference.training.stage import Optimizer
from talking_face.emotions import EMOTIONS

_INNER = (LIPS.index(13), LIPS.index(14))  # middle of the inner lips, upper and lower
_ALL = [*UPPER, *POINTS]


@dataclass(frozen=True)
class Audio2MouthSettings:
    """How Audio2Mouth is trained."""

    steps: int
    batch: int = 128  # windows a step (IP-LAP)
    rate: float = 1e-4  # Adam (the paper)
    continuity: float = 1.0  # the paper's lambda
    # Which clips. A reference comes from the clip itself, so what an emotion adds to a face for a whole clip is on both
    # sides and falls out of the displacement: "all" is emotion-agnostic in what it can predict, and with 2 s clips of
    # four speakers gives eight times the data of "neutral".
    emotions: str = "all"
    # Changes of the sound, so that a few voices stand for many: loudness in decibels, and the spectrum moved up or down
    # by whole mel bands (one is 4 to 6 % of pitch and formants). The paper needs none with LRS2.
    gain: float = 0.0
    bands: int = 0


def another_voice(mels: np.ndarray, gain: float, bands: int, rng: np.random.Generator) -> np.ndarray:
    """Windows of one voice, (..., 80, S), as another would sound: up to `bands` bands higher or lower, up to `gain` dB
    louder or softer. 12.5 dB are one unit of the spectrogram."""
    by = int(rng.integers(-bands, bands + 1))
    moved = mels[..., np.clip(np.arange(sound.MELS) - by, 0, sound.MELS - 1), :]
    return np.clip(moved + rng.uniform(-gain, gain) / 12.5, -4, 4).astype(np.float32)


class Audio2MouthStage:
    """Audio2Mouth on windows of T frames, their references drawn from the same clip outside the window."""

    name = audio2mouth.KIND

    def __init__(
        self,
        net: audio2mouth.Settings,
        settings: Audio2MouthSettings,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
    ) -> None:
        self.settings, self.steps, self.seed = settings, settings.steps, seed
        template = mean_face(train)
        kept = [c for c in train if settings.emotions == "all" or c.emotion == settings.emotions]
        self.train, self.test = prepare(kept, template), prepare(test, template)
        moved = np.concatenate([f.head[:, POINTS] - f.head[:, POINTS].mean(axis=0) for f in self.train])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = Audio2Mouth(net, template, float(moved.std()))

    def players(self) -> Mapping[str, Optimizer]:
        return {"net": Optimizer(list(self.net.parameters()), self.settings.rate)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        t, n, settings = self.net.settings.frames, self.net.settings.references, self.settings
        rows = []
        for i in rng.integers(len(self.train), size=self.settings.batch):
            face = self.train[i]
            start = int(rng.integers(0, len(face) - t + 1))
            window = np.arange(start, start + t)
            known = face.head[outside(len(face), start, t, n, rng)]
            mels = another_voice(sound.mel_windows(face.mel, window), settings.gain, settings.bands, rng)
            rest = known[:, POINTS].mean(axis=0)
            rows.append((mels, known[:, _ALL], face.head[window][:, UPPER], face.head[window][:, POINTS] - rest))
        return dict(zip(("mels", "references", "upper", "moved"), map(np.stack, zip(*rows, strict=True)), strict=True))

    def loss(self, batch: Mapping[str, Any], player: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        """In units of the mouth's movement."""
        moved = self.net(batch["mels"], batch["references"], batch["upper"])
        return audio2mouth.loss(moved / self.net.unit, batch["moved"] / self.net.unit, self.settings.continuity)

    def held_out(self) -> Mapping[str, float]:
        return mouth_figures(self.net, self.test)

    def record(self) -> Mapping[str, Any]:
        return self.net.record()


def opening(points: np.ndarray) -> np.ndarray:
    """(T, 57, 3) to (T,): the distance of the inner lips' middles."""
    lips = points[:, -len(LIPS) :]
    return np.linalg.norm(lips[:, _INNER[0]] - lips[:, _INNER[1]], axis=1)


def mouth_figures(net: Audio2Mouth, faces: Sequence[Face], most: int = 64) -> dict[str, float]:
    """Audio2Mouth on clips it was not trained on, the references being five frames of the clip.

    Errors are mean distances of lips and jaw in percent of the eyes' distance; correlations are of the mouth's opening
    with the true one, the mean over clips. `shuffled` is the same with the sound of another clip of the speaker,
    `still` the references' mean.
    """
    rows = []
    chosen = [faces[i] for i in np.linspace(0, len(faces) - 1, min(most, len(faces))).round().astype(int)]
    for i, face in enumerate(chosen):
        truth = face.head[:, POINTS]
        known = face.head[np.linspace(0, len(face) - 1, net.settings.references).round().astype(int)]
        others = [f for f in chosen if f.clip.speaker == face.clip.speaker and f.clip.clip_id != face.clip.clip_id]
        other = others[i % len(others)] if others else face
        said = net.mouth(face.clip.audio, known, face.head, len(face))
        shuffled = net.mouth(other.clip.audio, known, face.head, len(face))
        still = np.broadcast_to(known[:, POINTS].mean(axis=0), truth.shape)
        error = [100 * float(np.linalg.norm(x - truth, axis=2).mean()) for x in (said, shuffled, still)]
        rows.append([*error, _correlation(said, truth), _correlation(shuffled, truth)])
    names = ("error", "error_shuffled", "error_still", "opening_r", "opening_r_shuffled")
    return dict(zip(names, np.mean(rows, axis=0).round(5).tolist(), strict=True))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    x, y = opening(a), opening(b)
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 1e-9 and y.std() > 1e-9 else 0.0


# -- AEE ---------------------------------------------------------------------------------------------------------------


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
    gain: float = 0.0  # see another_voice; mel only
    bands: int = 0


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
        labels = aee.Labels(
            tuple(e for e in EMOTIONS if any(c.emotion == e for c in train)),
            tuple(sorted({c.speaker for c in train})),
            tuple(sorted({c.sentence_id for c in train if c.sentence_id})),
            bool(self.texts),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = aee.AEE(net, labels, every.mean(axis=0), every.std(axis=0) + np.float32(1e-3))
        self._spoken: dict[tuple[str, str | None, str | None], list[int]] = {}
        for i, c in enumerate(train):
            self._spoken.setdefault((c.speaker, c.emotion, c.sentence_id), []).append(i)
        self._warped = lru_cache(maxsize=4096)(lambda i, onto: aee.warp(self.rows[i], self.rows[onto]))

    def players(self) -> Mapping[str, Optimizer]:
        s = self.settings
        return {"net": Optimizer(list(self.net.parameters()), s.rate, s.weight_decay, s.betas)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        drawn = (self._clips if step < self.settings.pretrain_steps else self._pairs)(rng)
        return {k: np.stack(v) for k, v in drawn.items()}

    def loss(self, batch: Mapping[str, Any], player: str) -> tuple[Tensor, Mapping[str, Tensor]]:
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
                out.setdefault("emotion", []).append(_class(c.emotion, labels.emotions))
            if "identity" in self.settings.pretrain:
                out.setdefault("speaker", []).append(_class(c.speaker, labels.speakers))
            if "text" in self.settings.pretrain and self.texts:
                frames = np.arange(self.settings.text_frames)
                text = [1 + k for k in map(aee.LETTERS.find, self.texts.get(c.clip_id, "").lower()) if k >= 0]
                text = text[: self.settings.text_frames // 2]
                out.setdefault("spoken", []).append(aee.feature_windows(self.rows[i], frames, self.net.settings))
                out.setdefault("lengths", []).append(min(len(c), self.settings.text_frames))
                out.setdefault("n_letters", []).append(len(text))
                out.setdefault("letters", []).append(np.pad(text, (0, self.settings.text_frames // 2 - len(text))))
            elif "text" in self.settings.pretrain and labels.sentences:
                out.setdefault("sentence", []).append(_class(c.sentence_id, labels.sentences))
        return out

    def _pairs(self, rng: np.random.Generator) -> dict[str, list[Any]]:
        names = ("corners", "known", "heard", "emotion", "speaker")
        out: dict[str, list[Any]] = {name: [] for name in names}
        for _ in range(self.settings.batch):
            for name, value in zip(names, self._pair(rng), strict=True):
                out[name].append(value)
        return out

    def _pair(self, rng: np.random.Generator) -> tuple[Any, ...]:
        """Two clips that share nothing but perhaps the voice, and the six between them, as far as they are there.

        The second voice is another's who says one of the first clip's other sentences too, where there is one. Where no
        speakers share sentences (the embedded corpus at its smallest), both voices are one person's: the timbre of a
        recording must then serve another recording of the same person.
        """
        first = int(rng.integers(len(self.train)))
        a = self.train[first]
        heard_of = [c for c in self.train if c.sentence_id != a.sentence_id and c.emotion != a.emotion]
        mine = {c.sentence_id for c in self.train if c.speaker == a.speaker}
        theirs = {c.speaker for c in self.train if c.speaker != a.speaker and c.sentence_id == a.sentence_id}
        shared = [c for c in heard_of if c.sentence_id in mine and c.speaker in (theirs or {a.speaker})]
        others = shared or heard_of or self.train
        b = others[int(rng.integers(len(others)))]
        corners = np.zeros((2, 2, 2, *aee.window_shape(self.net.settings.features)), np.float32)
        known = np.zeros((2, 2, 2), np.float32)
        second = next(i for i, c in enumerate(self.train) if c is b)
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
        emotions = np.array([_class(c.emotion, labels.emotions) for c in (a, b)])
        speakers = np.array([_class(c.speaker, labels.speakers) for c in (a, b)])
        return corners, known, heard, emotions, speakers

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


def _class(name: str | None, names: Sequence[str]) -> int:
    """Where a label stands; -100, which cross-entropy leaves out, for none."""
    return names.index(name) if name in names else -100
