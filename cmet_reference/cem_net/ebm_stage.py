"""How the emotion memory is trained: faces from one emotion to another, read through keys and through values."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from cmet_pipelines.shards import ShardSet
from cmet_reference.cem_net import aee, ebm
from cmet_reference.cem_net.aee_stage import class_of, discriminant
from cmet_reference.cem_net.audio2mouth import POINTS, Audio2Mouth
from cmet_reference.cem_net.data import Face, identity_of, prepare
from cmet_reference.cem_net.generate import heard_by
from cmet_reference.clips import ClipArrays
from cmet_reference.training.stage import Optimizer
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.model_files import ModelFiles


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
class Pair:
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
        files: ModelFiles | None = None,
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
        labels = np.array([class_of(c.emotion, emotions) for c in train])
        if ears and len(emotions):
            centres = np.stack([np.stack(own)[labels == k].mean(axis=0) for k in range(len(emotions))])
            self.net.centres.copy_(torch.from_numpy(centres))
            if net.decision:  # the memory learns what each emotion adds, not what AEE mistakes for it
                own = [centres[k] if k >= 0 else vector for k, vector in zip(labels, own, strict=True)]

        def hear(c: ClipArrays) -> np.ndarray:
            return heard_by(ears, self.net, c.audio).numpy() if ears else np.zeros(0, np.float32)

        told = {c.clip_id: vector for c, vector in zip(train, own, strict=True)}
        few = held[:: max(1, len(held) // 48)]
        identify = partial(identity_of, by=settings.identity, files=files) if identity else None
        self.pairs = _pairs(faces, mouths, lambda c: told[c.clip_id], settings.sources, identify, rng, cross=False)
        self.held_pairs = _pairs(few, mouths, hear, 1, identify, rng, True, held)
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
            meant = np.array([class_of(c.emotion, emotions) for c in known])
            self.net.tells.copy_(torch.from_numpy(discriminant(seen, meant, len(emotions), settings.shrink)))
        some = self.pairs[:: 1 + len(self.pairs) // 2048]  # 0.2 GB of frames tell as much as more
        added = [p.face.head[::5] - self._start(p)[::5] for p in some]
        self.net.unit.fill_(float(np.concatenate(added).std()))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net.furnish()
        self.read, self.neutral = Reader(faces, emotions), neutral_of(held)
        self.noise = settings.noise * self.net.std.numpy(force=True)

    def optimizers(self) -> Mapping[str, Optimizer]:
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
            source = np.array(class_of(p.source.emotion, self.emotions))
            rows.append((p.rest, shapes, p.lips[part], p.face.head[part], p.heard, p.who, source))
        names = ("rest", "shapes", "lips", "truth", "heard", "who", "source")
        return dict(zip(names, map(np.stack, zip(*rows, strict=True)), strict=True))

    def loss(self, batch: Mapping[str, Any], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
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
        for p in self.held_pairs:
            given = [
                torch.from_numpy(np.asarray(x))[None].to(device) for x in (p.rest, p.lips, p.shapes, p.heard, p.who)
            ]
            with torch.inference_mode():
                made = self.net(*given)[0].cpu().numpy()
                if self.net.to_emotion is not None:
                    said = int(self.net.to_emotion(self.net.look(given[2])).argmax())
                    seen.append(said == class_of(p.source.emotion, self.emotions))
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

    def _base(self, p: Pair) -> np.ndarray:
        moved = p.lips.reshape(len(p.lips), -1) @ self.net.spread.cpu().numpy()
        return p.rest + moved.reshape(-1, 478, 3)

    def _start(self, p: Pair) -> np.ndarray:
        given = [torch.from_numpy(x)[None] for x in (p.rest, p.lips, p.shapes)]
        return self.net.start(*given)[0].numpy()


def spread_of(faces: Sequence[Face], ridge: float = 1e-3) -> np.ndarray:
    """What a face does when lips and jaw move: (171, 1434) float32, by ridge regression within clips.

    `ridge` is in units of the mean variance of the lips' and jaw's coordinates; these themselves are passed on as they
    are.
    """
    square, product = np.zeros((3 * len(POINTS),) * 2), np.zeros((3 * len(POINTS), 3 * ebm.N_POINTS))
    for f in faces:  # clip by clip: a large corpus has 30 GB of frames
        moved = (f.head - f.head.mean(axis=0)).astype(np.float64)
        x = moved[:, POINTS].reshape(len(moved), -1)
        square += x.T @ x
        product += x.T @ moved.reshape(len(moved), -1)
    out = np.linalg.solve(square + ridge * np.trace(square) / len(square) * np.eye(len(square)), product)
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
            meant = np.array([class_of(f.clip.emotion, emotions) for f in faces])
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
    identify: Callable[[np.ndarray, np.ndarray], np.ndarray] | None,
    rng: np.random.Generator,
    cross: bool,
    among: Sequence[Face] = (),
) -> list[Pair]:
    """Target clips with source clips of the same speaker; `cross`: of another emotion than the target's."""
    out = []
    n = mouths.settings.references
    known: dict[str, np.ndarray] = {}
    opened = cache(ShardSet)
    of: dict[str, list[Face]] = {}
    for face in among or faces:
        of.setdefault(face.clip.speaker, []).append(face)
    for face in faces:
        c = face.clip
        mine = [f for f in of.get(c.speaker, ()) if f.clip.clip_id != c.clip_id]
        if cross:
            mine = [f for f in mine if f.clip.emotion != c.emotion]
        heard = hear(c)
        for k in rng.choice(len(mine), min(sources, len(mine)), replace=False) if mine else []:
            source = mine[int(k)]
            take = np.linspace(0, len(source) - 1, n).round().astype(int)
            shown, shapes = source.head[take], ebm.odds(source.clip.blendshapes[take])
            rest = shown.mean(axis=0)
            lips = mouths.mouth(c.audio, shown, source.head, len(face)) - rest[list(POINTS)]
            if identify is not None and source.clip.clip_id not in known:
                picture = opened(source.clip.folder).frames(source.clip.clip_id, [0])[0]
                known[source.clip.clip_id] = identify(picture, source.clip.landmarks[0])
            who = known.get(source.clip.clip_id, np.zeros(0, np.float32))
            out.append(Pair(face, rest, shapes, lips, heard, source.clip, who))
    return out
