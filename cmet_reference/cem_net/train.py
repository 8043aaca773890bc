"""CEM-Net's stages for the training loop: Audio2Mouth, AEE, EBM, and the renderer where it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cmet_reference.cem_net import aee, audio2mouth, ebm
from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net.audio2mouth import LIPS, POINTS, UPPER, Audio2Mouth
from cmet_reference.cem_net.data import Face, identity_of, mean_face, outside, prepare
from cmet_reference.cem_net.generate import heard_by
from cmet_reference.clips import ClipArrays, read_clips
from cmet_reference.render import flow
from cmet_reference.training.stage import Optimizer
from pipelines.shards import ShardSet
from talking_face.emotions import EMOTIONS
from talking_face.reasons import UserError

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
    annealed: bool = False  # see Optimizer; the paper's rate is constant


def another_voice(mels: np.ndarray, gain: float, bands: int, rng: np.random.Generator) -> np.ndarray:
    """Windows of one voice, (..., bands, S), as another: up to `bands` bands higher or lower, up to `gain` decibels
    louder or softer. 12.5 dB are one unit of the spectrogram."""
    by = int(rng.integers(-bands, bands + 1))
    n = mels.shape[-2]
    moved = mels[..., np.clip(np.arange(n) - by, 0, n - 1), :]
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
        rate, annealed = self.settings.rate, self.settings.annealed
        return {"net": Optimizer(list(self.net.parameters()), rate, annealed=annealed)}

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
    # Pretraining: a clip's windows are mixed with those of another clip of the same emotion, by a share drawn from 0 to
    # this: a voice between two. With few speakers, what tells them apart is otherwise learnt for what tells emotions.
    mixing: float = 0.0
    gain: float = 0.0  # see another_voice; mel only
    bands: int = 0
    annealed: bool = False


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
            self.manners = np.stack([aee.manner(c.audio) for c in train])
            self.net.manner_mean.copy_(torch.from_numpy(self.manners.mean(axis=0)))
            self.net.manner_std.copy_(torch.from_numpy(self.manners.std(axis=0) + np.float32(1e-6)))
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

    def players(self) -> Mapping[str, Optimizer]:
        s = self.settings
        return {"net": Optimizer(list(self.net.parameters()), s.rate, s.weight_decay, s.betas, s.annealed)}

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
                alike = self._alike.get(c.emotion, [i])
                other = alike[int(rng.integers(len(alike)))]
                with_whom = self._heard(other, rng, self.settings.windows)
                share = np.float32(rng.uniform(0, self.settings.mixing))
                out.setdefault("felt", []).append((1 - share) * out["heard"][-1] + share * with_whom)
                if self.net.settings.manner:
                    between = (1 - share) * self.manners[i] + share * self.manners[other]
                    out.setdefault("manner", []).append(between)
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
        emotions = np.array([_class(c.emotion, labels.emotions) for c in (a, b)])
        speakers = np.array([_class(c.speaker, labels.speakers) for c in (a, b)])
        out = {"corners": corners, "known": known, "heard": heard, "emotion": emotions, "speaker": speakers}
        return out | ({"manner": self.manners[[first, second]]} if self.net.settings.manner else {})

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


# -- EBM ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class EbmSettings:
    """How the memory is trained."""

    steps: int
    batch: int = 64  # windows of T frames; the paper does not say
    rate: float = 1e-4  # as Audio2Mouth's; the paper does not say
    weight_decay: float = 0.0
    annealed: bool = False
    sources: int = 2  # clips of the speaker, drawn once, that a clip's references are taken from
    # Added to the source's blendshapes, one draw a window, in units of their deviation: another person's rest. It takes
    # the place of EAMM's augmentation of pictures, whose aim is that the extractor not know people by their faces.
    noise: float = 0.0
    identity: Literal["none", "dlib", "arcface"] = "none"
    # Of the discriminant of the source's emotion, towards a multiple of the identity: leaving training speakers out, it
    # is right in 64 % of the clips with 0.1, 56 % with 0.3 (4 speakers; with 12, 47 % with either).
    shrink: float = 0.1


@dataclass(frozen=True)
class _Pair:
    """A target clip and what is known of it when a source clip of the same speaker gives the face."""

    face: Face
    rest: np.ndarray  # (478, 3), mean of the source's references
    shapes: np.ndarray  # (52,), `ebm.odds` of their blendshapes
    lips: np.ndarray  # (T, 57, 3), how Audio2Mouth moves the mouth from there
    heard: np.ndarray  # (E,)
    source: ClipArrays
    who: np.ndarray  # (I,)


class EbmStage:
    """The emotion memory; Audio2Mouth and AEE are given and stay as they are."""

    name = ebm.KIND

    def __init__(
        self,
        net: ebm.Settings,
        settings: EbmSettings,
        weights: ebm.Weights,
        mouths: Audio2Mouth,
        ears: aee.AEE | None,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
    ) -> None:
        """`ears`: without, the key has no emotion from sound."""
        self.settings, self.weights, self.steps, self.seed = settings, weights, settings.steps, seed
        self.window = mouths.settings.frames
        template = mouths.template.cpu().numpy()
        emotions = tuple(e for e in EMOTIONS if any(c.emotion == e for c in train))
        self.emotions = emotions
        identity = {"none": 0, "dlib": 128, "arcface": 512}[settings.identity]
        heard = ears.settings.emotion if ears else 0
        net = replace(net, audio_emotion=heard, identity=identity, emotions=max(1, len(emotions)))
        faces, held = prepare(train, template), prepare(test, template)
        rng = np.random.default_rng(seed)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = ebm.EBM(net)
        own = [ears.emotion(c.audio) for c in train] if ears else [np.zeros(0, np.float32)] * len(train)
        labels = np.array([_class(c.emotion, emotions) for c in train])
        if ears and len(emotions):
            centres = np.stack([np.stack(own)[labels == k].mean(axis=0) for k in range(len(emotions))])
            self.net.centres.copy_(torch.from_numpy(centres))
            if net.decision:  # the memory learns what each emotion adds, not what AEE mistakes for it
                own = [centres[k] if k >= 0 else vector for k, vector in zip(labels, own, strict=True)]

        def hear(c: ClipArrays) -> np.ndarray:
            return heard_by(ears, self.net, c.audio).numpy() if ears else np.zeros(0, np.float32)

        told = {c.clip_id: vector for c, vector in zip(train, own, strict=True)}
        some = held[:: max(1, len(held) // 48)]
        self.pairs = _pairs(
            faces, mouths, lambda c: told[c.clip_id], settings.sources, settings.identity, rng, cross=False
        )
        self.held = _pairs(some, mouths, hear, 1, settings.identity, rng, True, held)
        self.net.template.copy_(torch.from_numpy(template))
        self.net.spread.copy_(torch.from_numpy(spread_of(faces)))
        if net.region == "lower-half":
            eyes = template[[33, 263], 1].mean()
            self.net.moves.copy_(torch.from_numpy((template[:, 1] > eyes).astype(np.float32)))
        shapes = np.stack([p.shapes for p in self.pairs])
        self.net.mean.copy_(torch.from_numpy(shapes.mean(axis=0)))
        self.net.std.copy_(torch.from_numpy(shapes.std(axis=0) + np.float32(1e-3)))
        self.net.shown.copy_(torch.from_numpy(shown_of(faces, emotions)))
        if net.neutral:
            known = [f.clip for f in faces if f.clip.emotion in emotions]
            seen = self.net.standard(torch.from_numpy(np.stack([ebm.odds(c.blendshapes) for c in known]))).numpy()
            meant = np.array([_class(c.emotion, emotions) for c in known])
            self.net.tells.copy_(torch.from_numpy(discriminant(seen, meant, len(emotions), settings.shrink)))
        added = [p.face.head[::5] - self._start(p)[::5] for p in self.pairs]
        self.net.unit.fill_(float(np.concatenate(added).std()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net.furnish()
        self.read, self.neutral = Reader(faces, emotions), neutral_of(held)
        self.noise = settings.noise * self.net.std.numpy(force=True)

    def players(self) -> Mapping[str, Optimizer]:
        s = self.settings
        return {"net": Optimizer(list(self.net.parameters()), s.rate, s.weight_decay, annealed=s.annealed)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        rng = np.random.default_rng((self.seed, step))
        rows = []
        for i in rng.integers(len(self.pairs), size=self.settings.batch):
            p = self.pairs[i]
            start = int(rng.integers(0, len(p.face) - self.window + 1))
            part = slice(start, start + self.window)
            shapes = p.shapes + rng.normal(size=len(p.shapes)).astype(np.float32) * self.noise
            source = np.array(_class(p.source.emotion, self.emotions))
            rows.append((p.rest, shapes, p.lips[part], p.face.head[part], p.heard, p.who, source))
        names = ("rest", "shapes", "lips", "truth", "heard", "who", "source")
        return dict(zip(names, map(np.stack, zip(*rows, strict=True)), strict=True))

    def loss(self, batch: Mapping[str, Any], player: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        return ebm.loss(self.net, batch, self.weights)

    def held_out(self) -> Mapping[str, float]:
        """Sources of another emotion than the target's. Errors are mean distances in percent of the eyes' distance, of
        all points and of lips and jaw: of the memory's face, of the emotion-agnostic one (`without`), and of the
        source's still face. `direction` is the cosine of what the memory adds on average to a clip with what is really
        added; `emotion` the share of faces that `Reader` reads the target's emotion in, and that of the
        emotion-agnostic, the still and the real ones; `picture` the share of sources whose emotion is seen in their
        face."""
        rows, seen, told = [], [], []
        device = self.net.template.device
        for p in self.held:
            given = [
                torch.from_numpy(np.asarray(x))[None].to(device) for x in (p.rest, p.lips, p.shapes, p.heard, p.who)
            ]
            with torch.inference_mode():
                made = self.net(*given)[0].cpu().numpy()
                if self.net.to_emotion is not None:
                    said = int(self.net.to_emotion(self.net.look(given[2])).argmax())
                    seen.append(said == _class(p.source.emotion, self.emotions))
            truth, base = p.face.head, self._base(p)
            still = np.broadcast_to(p.rest, truth.shape)
            far = [100 * np.linalg.norm(x - truth, axis=2) for x in (made, base, still)]
            a, b = (made - base).mean(axis=0).ravel(), (truth - base).mean(axis=0).ravel()
            cosine = float(a @ b / max(1e-9, np.linalg.norm(a) * np.linalg.norm(b)))
            rows.append([*(x.mean() for x in far), *(x[:, POINTS].mean() for x in far), cosine])
            if self.read.ready and p.face.clip.speaker in self.neutral and p.face.clip.emotion in self.emotions:
                own = self.neutral[p.face.clip.speaker]
                told.append([self.read(x, own) == p.face.clip.emotion for x in (made, base, still, truth)])
        if not rows:
            return {}
        names = ("error", "error_without", "error_still", "mouth", "mouth_without", "mouth_still", "direction")
        figures = dict(zip(names, np.mean(rows, axis=0).round(5).tolist(), strict=True))
        if told:
            read = ("emotion", "emotion_without", "emotion_still", "emotion_truth")
            figures |= dict(zip(read, np.mean(told, axis=0).tolist(), strict=True))
        return figures | ({"picture": float(np.mean(seen))} if seen else {})

    def record(self) -> Mapping[str, Any]:
        return {"net": self.net.record(), "identity": self.settings.identity, "emotions": list(self.emotions)}

    def _base(self, p: _Pair) -> np.ndarray:
        moved = p.lips.reshape(len(p.lips), -1) @ self.net.spread.cpu().numpy()
        return p.rest + moved.reshape(-1, 478, 3)

    def _start(self, p: _Pair) -> np.ndarray:
        given = [torch.from_numpy(x)[None] for x in (p.rest, p.lips, p.shapes)]
        return self.net.start(*given)[0].numpy()


def spread_of(faces: Sequence[Face], ridge: float = 1e-3) -> np.ndarray:
    """What a face does when lips and jaw move: (171, 1434) float32, by ridge regression within clips.

    `ridge` is in units of the mean variance of the lips' and jaw's coordinates; these themselves are passed on as they
    are.
    """
    moved = np.concatenate([f.head - f.head.mean(axis=0) for f in faces]).astype(np.float64)
    x, y = moved[:, POINTS].reshape(len(moved), -1), moved.reshape(len(moved), -1)
    square = x.T @ x
    out = np.linalg.solve(square + ridge * np.trace(square) / len(square) * np.eye(len(square)), x.T @ y)
    out = out.reshape(len(square), -1, 3)
    out[:, POINTS] = np.eye(len(square)).reshape(len(square), -1, 3)
    return out.reshape(len(square), -1).astype(np.float32)


def neutral_of(faces: Sequence[Face]) -> dict[str, np.ndarray]:
    """The mean neutral face of each speaker who has a neutral clip, (478, 3) in the head's frame."""
    found: dict[str, list[np.ndarray]] = {}
    for f in faces:
        if f.clip.emotion == "neutral":
            found.setdefault(f.clip.speaker, []).append(f.head.mean(axis=0))
    return {speaker: np.mean(heads, axis=0) for speaker, heads in found.items()}


def shown_of(faces: Sequence[Face], emotions: Sequence[str]) -> np.ndarray:
    """(C, 1434): the mean over clips of how a face in an emotion differs from the same person's neutral one."""
    neutral = neutral_of(faces)
    out = np.zeros((len(emotions), 3 * ebm.N_POINTS), np.float32)
    for k, emotion in enumerate(emotions):
        gaps = [
            f.head.mean(axis=0) - neutral[f.clip.speaker]
            for f in faces
            if f.clip.emotion == emotion and f.clip.speaker in neutral
        ]
        if gaps:
            out[k] = np.mean(gaps, axis=0).ravel()
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


class Reader:
    """Tells a clip's emotion from its landmarks: a discriminant of how its mean shape differs from the same person's
    neutral one, of the training split's first principal components. For figures: it knows the neutral face."""

    def __init__(self, faces: Sequence[Face], emotions: Sequence[str], parts: int = 15, shrink: float = 0.1) -> None:
        neutral = neutral_of(faces)
        faces = [f for f in faces if f.clip.speaker in neutral and f.clip.emotion in emotions]
        self.emotions = emotions
        self.ready = len(faces) > 2 * parts
        if self.ready:
            gaps = np.stack([(f.head.mean(axis=0) - neutral[f.clip.speaker]).ravel() for f in faces])
            self.middle = gaps.mean(axis=0)
            self.axes = np.linalg.svd(gaps - self.middle, full_matrices=False)[2][:parts].T
            self.axes /= ((gaps - self.middle) @ self.axes).std(axis=0) + 1e-9
            meant = np.array([_class(f.clip.emotion, emotions) for f in faces])
            self.weights = discriminant((gaps - self.middle) @ self.axes, meant, len(emotions), shrink)

    def __call__(self, head: np.ndarray, neutral: np.ndarray) -> str:
        """(T, 478, 3) and (478, 3), in the head's frame."""
        x = ((head.mean(axis=0) - neutral).ravel() - self.middle) @ self.axes
        return self.emotions[int((x @ self.weights[:-1] + self.weights[-1]).argmax())]


def _pairs(
    faces: Sequence[Face],
    mouths: Audio2Mouth,
    hear: Callable[[ClipArrays], np.ndarray],
    sources: int,
    identity: str,
    rng: np.random.Generator,
    cross: bool,
    among: Sequence[Face] = (),
) -> list[_Pair]:
    """Target clips with source clips of the same speaker; `cross`: of another emotion than the target's."""
    out = []
    n = mouths.settings.references
    known: dict[str, np.ndarray] = {}
    for face in faces:
        c = face.clip
        mine = [f for f in among or faces if f.clip.speaker == c.speaker and f.clip.clip_id != c.clip_id]
        if cross:
            mine = [f for f in mine if f.clip.emotion != c.emotion]
        heard = hear(c)
        for k in rng.choice(len(mine), min(sources, len(mine)), replace=False) if mine else []:
            source = mine[int(k)]
            take = np.linspace(0, len(source) - 1, n).round().astype(int)
            shown, shapes = source.head[take], ebm.odds(source.clip.blendshapes[take])
            rest = shown.mean(axis=0)
            lips = mouths.mouth(c.audio, shown, source.head, len(face)) - rest[list(POINTS)]
            if identity != "none" and source.clip.clip_id not in known:
                picture = ShardSet(source.clip.folder).frames(source.clip.clip_id, [0])[0]
                known[source.clip.clip_id] = identity_of(picture, source.clip.landmarks[0], identity)
            who = known.get(source.clip.clip_id, np.zeros(0, np.float32))
            out.append(_Pair(face, rest, shapes, lips, heard, source.clip, who))
    return out


# -- the four stages ---------------------------------------------------------------------------------------------------

STAGES = (audio2mouth.KIND, aee.KIND, ebm.KIND, "renderer")  # in training order


def stages(
    config: Mapping[str, Any], folders: Mapping[str, Path], out: Path, seed: int = 0, quiet: bool = True
) -> list[Callable[[], Any] | None]:
    """What `cmet-eval train cem-net` trains; None where the settings leave a stage out.

    Audio2Mouth, the renderer and the text of AEE learn from the shard set called `lrs2` where there is one, as in the
    paper, and from the main one otherwise; all else from the main one (and any other).
    """
    felt = [folder for name, folder in folders.items() if name != "lrs2"]
    spoken = [folders["lrs2"]] if "lrs2" in folders else felt

    def split(where: Sequence[Path]) -> tuple[list[ClipArrays], list[ClipArrays]]:
        train = read_clips(where, quiet=quiet)
        try:
            return train, read_clips(where, "test", quiet=quiet)
        except UserError:
            return train, []  # nothing is held out

    def first() -> Audio2MouthStage:
        net, settings = _settings(config, "audio2mouth")
        return Audio2MouthStage(net, settings, *split(spoken), seed)

    def second() -> AeeStage:
        train, test = split(felt)
        if "lrs2" in folders:
            train = train + read_clips(spoken, quiet=quiet)
        net, settings, weights = _settings(config, "aee")
        return AeeStage(net, settings, weights, train, test, seed, transcripts_of({c.folder for c in train}))

    def third() -> EbmStage:
        mouths = audio2mouth.load(out / "audio2mouth.safetensors")
        net, settings, weights = _settings(config, "ebm")
        ears = aee.load(out / "aee.safetensors") if net.audio_emotion else None
        return EbmStage(net, settings, weights, mouths, ears, *split(felt), seed)

    def fourth() -> Any:
        return flow.stage(config["renderer"], *split(spoken), seed)

    return [first, second, third, fourth if "renderer" in config else None]


def transcripts_of(folders: Iterable[Path]) -> dict[str, str]:
    """Texts of the clips that have one, by id."""
    out: dict[str, str] = {}
    for folder in sorted(folders):
        rows = ShardSet(folder).clips
        told = rows["transcript"]
        out |= {str(k): v for k, v in zip(rows["clip_id"], told, strict=True) if isinstance(v, str) and v.strip()}
    return out


_TABLES: dict[str, tuple[Any, Any, Any]] = {
    "audio2mouth": (audio2mouth.Settings, Audio2MouthSettings, None),
    "aee": (aee.Settings, AeeSettings, aee.Weights),
    "ebm": (ebm.Settings, EbmSettings, ebm.Weights),
}


def _settings(config: Mapping[str, Any], name: str) -> list[Any]:
    """A stage's table: the network's settings (in `net`), the training's, and the losses' weights (in `weights`)."""
    table: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in config[name].items()}
    own = [table.pop("net", {}), table, table.pop("weights", {})]
    try:
        return [kind(**values) for kind, values in zip(_TABLES[name], own, strict=True) if kind]
    except TypeError as error:
        raise UserError(f"[{name}] has a field that is none ({error})") from None
