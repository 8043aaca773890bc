"""Trains EBM, CEM-Net's emotion memory, on pairs of a source clip and a target clip of one speaker.

The module also measures the memory's errors on held-out speakers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from cmet_pipelines.shards import ShardSet
from cmet_reference.cem_net import aee, ebm
from cmet_reference.cem_net.aee_stage import class_of, discriminant
from cmet_reference.cem_net.audio2mouth import POINTS, Audio2Mouth
from cmet_reference.cem_net.data import Face, identity_of, prepare
from cmet_reference.cem_net.generate import audio_emotion_of
from cmet_reference.clips import ClipArrays
from cmet_reference.kept import kept_arrays
from cmet_reference.training.stage import Optimizer
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import weight_tag
from talking_face.signature import digest

ARCFACE = "arcface_w600k_r50"  # the entry of ArcFace in the registry of pretrained files
DLIB_FACE = "dlib_face_resnet"  # the entry of dlib's face ResNet
IDENTITY_SIZES = {"none": 0, "dlib": 128, "arcface": 512}


@dataclass(frozen=True)
class EbmSettings:
    """How the memory is trained."""

    steps: int
    batch: int = 64  # windows of T frames per step; the paper gives no number
    rate: float = 1e-4  # learning rate, the same as for Audio2Mouth; the paper gives none
    weight_decay: float = 0.0
    annealed: bool = False  # see training.stage.Optimizer
    sources: int = 2  # number of source clips of the same speaker per target clip, drawn once before training
    # Standard deviation of random noise on the source's blendshapes, in units of the blendshapes' own standard
    # deviation. The noise is drawn once per window. It imitates another person's neutral face, so that the classifier
    # of the source's emotion does not learn to recognise people. EAMM augments the pictures for this purpose.
    noise: float = 0.0
    identity: Literal["none", "dlib", "arcface"] = "none"
    # Used with the network setting `neutral`: the penalty of `expression_map`, in units of the mean variance of the
    # inputs. docs/experiments/cem_net.md compares values; a weak penalty helps less than removing nothing.
    ridge: float = 0.5


@dataclass(frozen=True)
class Pair:
    """A target clip, and the inputs from a source clip of the same speaker. E and I are the sizes of two embeddings."""

    face: Face  # the target clip
    rest: np.ndarray  # (478, 3), mean of the references, which are frames of the source clip
    blendshapes: np.ndarray  # (52,), `ebm.log_odds` of the references' blendshapes
    lips: np.ndarray  # (T, 57, 3), Audio2Mouth's displacements from the mean of the references
    audio_emotion: np.ndarray  # (E,), emotion embedding of the target's audio
    source: ClipArrays
    identity: np.ndarray  # (I,), identity embedding of the source


@dataclass(frozen=True)
class FixedNetworks:
    """The networks that the memory uses but that this stage does not train."""

    mouths: Audio2Mouth
    encoder: aee.AEE | None  # gives the emotion of the audio; None: the query does not use it
    files: ModelFiles  # folders in which the identity networks are searched for
    keep: bool = False  # keep what the networks compute for the training clips next to the shards; see `kept`


class EbmStage:
    """Trains the emotion memory on pairs of clips. Audio2Mouth and AEE are not trained. Implements `Stage`."""

    name = ebm.KIND

    def __init__(
        self,
        net: ebm.EbmNetSettings,
        settings: EbmSettings,
        weights: ebm.EbmLossWeights,
        fixed: FixedNetworks,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
    ) -> None:
        self.settings, self.weights, self.steps, self.seed = settings, weights, settings.steps, seed
        mouths, encoder = fixed.mouths, fixed.encoder
        self.window = mouths.settings.frames
        self.emotions = tuple(e for e in EMOTIONS if any(c.emotion == e for c in train))
        template = mouths.template.cpu().numpy()
        faces, held_out = prepare(train, template), prepare(test, template)
        sizes = replace(
            net,
            audio_emotion=encoder.size if encoder else 0,
            identity=IDENTITY_SIZES[settings.identity],
            emotions=max(1, len(self.emotions)),
        )
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = ebm.EBM(sizes)
        embeddings = self._training_embeddings(encoder, train, fixed.keep)

        def embedding(clip: ClipArrays) -> np.ndarray:
            return audio_emotion_of(encoder, self.net, clip.audio).numpy() if encoder else np.zeros(0, np.float32)

        rng = np.random.default_rng(seed)
        some = held_out[:: max(1, len(held_out) // 48)]
        pairs = PairMaker(mouths, Identities(settings.identity, fixed.files), rng, fixed.keep)
        self.pairs = pairs.make(faces, faces, lambda c: embeddings[c.clip_id], settings.sources)
        self.held_pairs = pairs.make(some, held_out, embedding, 1, cross=True)
        self._fill_buffers(template, faces)
        if net.table:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(seed)
                ebm.init_as_table(self.net)
        self.classifier, self.neutral = ShapeClassifier(faces, self.emotions), neutral_faces(held_out)
        self.noise = settings.noise * self.net.std.numpy(force=True)

    def _training_embeddings(
        self, encoder: aee.AEE | None, train: Sequence[ClipArrays], keep: bool
    ) -> dict[str, np.ndarray]:
        """The audio's emotion embedding of every training clip, by id. It also fills the network's buffer `centres`."""
        vectors = [np.zeros(0, np.float32)] * len(train)
        if encoder:
            vectors = _arrays(train, _name("emotion", encoder), lambda c: encoder.emotion(c.audio), keep)
        if encoder and self.emotions:
            labels = np.array([class_of(c.emotion, self.emotions) for c in train])
            centres = np.stack([np.stack(vectors)[labels == k].mean(axis=0) for k in range(len(self.emotions))])
            self.net.centres.copy_(torch.from_numpy(centres))
            if self.net.settings.decision:  # use the labels, so that AEE's mistakes have no effect
                vectors = [centres[k] if k >= 0 else vector for k, vector in zip(labels, vectors, strict=True)]
        return {c.clip_id: vector for c, vector in zip(train, vectors, strict=True)}

    def _fill_buffers(self, template: np.ndarray, faces: Sequence[Face]) -> None:
        """Compute the network's buffers from the training split, before the training."""
        net = self.net
        net.template.copy_(torch.from_numpy(template))
        if net.settings.spread:
            net.spread.copy_(torch.from_numpy(mouth_spread(faces)))
        if net.settings.region == "lower-half":
            eyes = template[[33, 263], 1].mean()
            net.moves.copy_(torch.from_numpy((template[:, 1] > eyes).astype(np.float32)))
        blendshapes = np.stack([p.blendshapes for p in self.pairs])
        net.mean.copy_(torch.from_numpy(blendshapes.mean(axis=0)))
        net.std.copy_(torch.from_numpy(blendshapes.std(axis=0) + np.float32(1e-3)))
        net.shown.copy_(torch.from_numpy(emotion_displacements(faces, self.emotions)))
        if net.settings.neutral:
            shapes = net.standard(torch.from_numpy(blendshapes)).numpy()
            net.expression.copy_(torch.from_numpy(self._expression_map(shapes, neutral_faces(faces))))
        some = self.pairs[:: 1 + len(self.pairs) // 2048]  # these pairs are enough: 0.2 GB of frames
        added = [p.face.head[::5] - self._start(p)[::5] for p in some]
        net.unit.fill_(float(np.concatenate(added).std()))

    def _expression_map(self, shapes: np.ndarray, neutral: Mapping[str, np.ndarray]) -> np.ndarray:
        """The result of `expression_map` for the sources of all pairs; zero if no speaker shows a neutral face.

        Args:
            shapes: (N, 52), the standardised log odds of the pairs.
            neutral: see `neutral_faces`.
        """
        known = [i for i, p in enumerate(self.pairs) if p.source.speaker in neutral]
        if not known:
            return np.zeros(self.net.expression.shape, np.float32)
        moved = np.stack([(self.pairs[i].rest - neutral[self.pairs[i].source.speaker]).ravel() for i in known])
        return expression_map(shapes[known], moved, self.settings.ridge)

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
            blendshapes = p.blendshapes + rng.normal(size=len(p.blendshapes)).astype(np.float32) * self.noise
            source = np.array(class_of(p.source.emotion, self.emotions))
            rows.append((p.rest, blendshapes, p.lips[part], p.face.head[part], p.audio_emotion, p.identity, source))
        names = ("rest", "blendshapes", "lips", "truth", "audio_emotion", "identity", "source")
        return dict(zip(names, map(np.stack, zip(*rows, strict=True)), strict=True))

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        return ebm.loss(self.net, batch, self.weights)

    def held_out(self) -> Mapping[str, float]:
        """Figures of held-out pairs in which source and target have different emotions.

        - `error`: mean distance of all points from the truth, in percent of the eye distance.
        - `mouth`: the same distance, for the points of lips and jaw.
        - `direction`: cosine between the mean displacement that the memory adds to a clip and the true displacement.
        - `emotion`: share of clips whose target emotion `ShapeClassifier` recognises.
        - `picture`: share of sources whose emotion the network recognises in their blendshapes.

        These figures describe the face that the memory predicts. Names with `_without` describe the face without
        emotion, names with `_still` the source's face without motion, and names with `_truth` the real face.
        """
        errors, recognised, pictures = [], [], []
        for p in self.held_pairs:
            face, picture = self._predict(p)
            truth, base = p.face.head, self._base(p)
            still = np.broadcast_to(p.rest, truth.shape)
            distances = [100 * np.linalg.norm(x - truth, axis=2) for x in (face, base, still)]
            cosine = _cosine((face - base).mean(axis=0).ravel(), (truth - base).mean(axis=0).ravel())
            errors.append([*(x.mean() for x in distances), *(x[:, POINTS].mean() for x in distances), cosine])
            target = p.face.clip
            if self.classifier.ready and target.speaker in self.neutral and target.emotion in self.emotions:
                neutral = self.neutral[target.speaker]
                recognised.append([self.classifier(x, neutral) == target.emotion for x in (face, base, still, truth)])
            if picture is not None:
                pictures.append(picture == class_of(p.source.emotion, self.emotions))
        if not errors:
            return {}
        names = ("error", "error_without", "error_still", "mouth", "mouth_without", "mouth_still", "direction")
        figures = dict(zip(names, np.mean(errors, axis=0).round(5).tolist(), strict=True))
        if recognised:
            of_emotion = ("emotion", "emotion_without", "emotion_still", "emotion_truth")
            figures |= dict(zip(of_emotion, np.mean(recognised, axis=0).tolist(), strict=True))
        return figures | ({"picture": float(np.mean(pictures))} if pictures else {})

    def record(self) -> Mapping[str, object]:
        return {"net": self.net.record(), "identity": self.settings.identity, "emotions": list(self.emotions)}

    def _predict(self, p: Pair) -> tuple[np.ndarray, int | None]:
        """The face that the memory predicts, (T, 478, 3), and the predicted class of the source's emotion.

        The class is None if the network does not classify the source's emotion.
        """
        device = self.net.template.device
        arrays = (p.rest, p.lips, p.blendshapes, p.audio_emotion, p.identity)
        given = [torch.from_numpy(np.asarray(x))[None].to(device) for x in arrays]
        with torch.inference_mode():
            face = self.net(*given)[0].cpu().numpy()
            if self.net.to_emotion is None:
                return face, None
            return face, int(self.net.to_emotion(self.net.picture_emotion(given[2])).argmax())

    def _base(self, p: Pair) -> np.ndarray:
        moved = p.lips.reshape(len(p.lips), -1) @ self.net.spread.cpu().numpy()
        return p.rest + moved.reshape(-1, 478, 3)

    def _start(self, p: Pair) -> np.ndarray:
        rest, lips, blendshapes = (torch.from_numpy(x)[None] for x in (p.rest, p.lips, p.blendshapes))
        return self.net.start(rest, lips, blendshapes)[0].numpy()


def _cosine(a: np.ndarray, b: np.ndarray) -> float:
    return float(a @ b / max(1e-9, np.linalg.norm(a) * np.linalg.norm(b)))


def mouth_spread(faces: Sequence[Face], ridge: float = 1e-3) -> np.ndarray:
    """The linear map from the motion of lips and jaw to the motion of the whole face, (171, 1434) float32.

    The map is a ridge regression of displacements from the mean face of each clip. The points of lips and jaw are exact
    copies of the input.

    Args:
        ridge: the penalty, in units of the mean variance of the coordinates of lips and jaw.
    """
    square, product = np.zeros((3 * len(POINTS),) * 2), np.zeros((3 * len(POINTS), 3 * ebm.N_POINTS))
    for f in faces:  # one clip at a time, because all frames of a large corpus need 30 GB
        moved = (f.head - f.head.mean(axis=0)).astype(np.float64)
        x = moved[:, POINTS].reshape(len(moved), -1)
        square += x.T @ x
        product += x.T @ moved.reshape(len(moved), -1)
    out = np.linalg.solve(square + ridge * np.trace(square) / len(square) * np.eye(len(square)), product)
    out = out.reshape(len(square), -1, 3)
    out[:, POINTS] = np.eye(len(square)).reshape(len(square), -1, 3)
    return out.reshape(len(square), -1).astype(np.float32)


def expression_map(shapes: np.ndarray, moved: np.ndarray, ridge: float) -> np.ndarray:
    """The ridge regression of displacements of the face on blendshapes, (S + 1, D) float32; the last row is the bias.

    Args:
        shapes: (N, S), standardised log odds.
        moved: (N, D), displacements from the same person's neutral face.
        ridge: the penalty, in units of the mean variance of `shapes`. The bias has no penalty.
    """
    middle = shapes.mean(axis=0)
    x = (shapes - middle).astype(np.float64)
    square = x.T @ x / len(x)
    penalty = ridge * np.trace(square) / len(square) + 1e-9
    map_ = np.linalg.solve(square + penalty * np.eye(len(square)), x.T @ (moved - moved.mean(axis=0)) / len(x))
    return np.concatenate([map_, moved.mean(axis=0)[None] - middle[None] @ map_]).astype(np.float32)


def neutral_faces(faces: Sequence[Face]) -> dict[str, np.ndarray]:
    """The mean neutral face by speaker, (478, 3) in the head's frame. Speakers without a neutral clip are left out."""
    found: dict[str, list[np.ndarray]] = {}
    for f in faces:
        if f.clip.emotion == "neutral":
            found.setdefault(f.clip.speaker, []).append(f.head.mean(axis=0))
    return {speaker: np.mean(heads, axis=0) for speaker, heads in found.items()}


def emotion_displacements(faces: Sequence[Face], emotions: Sequence[str]) -> np.ndarray:
    """The mean displacement of the face from the same person's neutral face, for each emotion: (C, 1434) float32."""
    neutral = neutral_faces(faces)
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


class ShapeClassifier:
    """Classifies the emotion of a clip from its landmarks, for the held-out figures.

    The input is the displacement of the clip's mean face from the same person's neutral face. The displacement is
    projected to the first principal components of the training split. A linear discriminant classifies the result.
    """

    def __init__(self, faces: Sequence[Face], emotions: Sequence[str], parts: int = 15, shrink: float = 0.1) -> None:
        neutral = neutral_faces(faces)
        faces = [f for f in faces if f.clip.speaker in neutral and f.clip.emotion in emotions]
        self.emotions = emotions
        self.ready = len(faces) > 2 * parts
        if self.ready:
            gaps = np.stack([(f.head.mean(axis=0) - neutral[f.clip.speaker]).ravel() for f in faces])
            self.middle = gaps.mean(axis=0)
            self.axes = np.linalg.svd(gaps - self.middle, full_matrices=False)[2][:parts].T
            self.axes /= ((gaps - self.middle) @ self.axes).std(axis=0) + 1e-9
            classes = np.array([class_of(f.clip.emotion, emotions) for f in faces])
            self.weights = discriminant((gaps - self.middle) @ self.axes, classes, len(emotions), shrink)

    def __call__(self, head: np.ndarray, neutral: np.ndarray) -> str:
        """The emotion of a face, (T, 478, 3), given the person's neutral face, (478, 3), both in the head's frame."""
        x = ((head.mean(axis=0) - neutral).ravel() - self.middle) @ self.axes
        return self.emotions[int((x @ self.weights[:-1] + self.weights[-1]).argmax())]


class Identities:
    """Computes the identity embedding of each clip once, from the first picture of the clip."""

    def __init__(self, kind: Literal["none", "dlib", "arcface"], files: ModelFiles) -> None:
        self.kind, self.files = kind, files
        self._opened = cache(ShardSet)
        self._known: dict[str, np.ndarray] = {}

    @property
    def name(self) -> str:
        """A name for kept embeddings. It contains the hash of the network's file."""
        entry = {"arcface": ARCFACE, "dlib": DLIB_FACE}.get(self.kind)
        return f"identity-{self.kind}" + (f"-{weight_tag(entry, self.files)}" if entry else "")

    def of(self, clip: ClipArrays) -> np.ndarray:
        """The identity embedding of a clip, (I,) float32; empty if the kind is `none`."""
        if self.kind == "none":
            return np.zeros(0, np.float32)
        if clip.clip_id not in self._known:
            picture = self._opened(clip.folder).frames(clip.clip_id, [0])[0]
            self._known[clip.clip_id] = identity_of(picture, clip.landmarks[0], self.kind, self.files)
        return self._known[clip.clip_id]


@dataclass(frozen=True)
class PairMaker:
    """Draws source clips for target clips, and computes the lips and the identity of each pair.

    The lips are computed on the device of `mouths`, all windows of a clip in batches of 256. With `keep`, lips and
    identities are kept next to the shards, so that a resumed training reads them.
    """

    mouths: Audio2Mouth
    identities: Identities
    rng: np.random.Generator
    keep: bool = False

    def make(
        self,
        targets: Sequence[Face],
        sources: Sequence[Face],
        embedding: Callable[[ClipArrays], np.ndarray],
        count: int,
        cross: bool = False,
    ) -> list[Pair]:
        """Combines target clips with random source clips of the same speaker.

        Args:
            targets: the target clips.
            sources: the clips from which the source clips are drawn.
            embedding: computes the emotion embedding of a clip's audio.
            count: number of source clips per target clip.
            cross: use only sources whose emotion differs from the target's.
        """
        rounds = self._rounds(targets, sources, count, cross)
        lips = [self._lips(pairs) for pairs in rounds]
        identities = self._identities([source.clip for pairs in rounds for _, source in pairs.values()])
        out = []
        for n, face in enumerate(targets):
            drawn = [(pairs[n][1], moved[n]) for pairs, moved in zip(rounds, lips, strict=True) if n in pairs]
            audio_emotion = embedding(face.clip) if drawn else None
            for source, moved in drawn:
                assert audio_emotion is not None
                rest, blendshapes = self._rest(source), ebm.log_odds(source.clip.blendshapes[self._take(source)])
                identity = identities[source.clip.folder, source.clip.clip_id]
                lips_moved = moved - rest[list(POINTS)]
                out.append(Pair(face, rest, blendshapes, lips_moved, audio_emotion, source.clip, identity))
        return out

    def _rounds(
        self, targets: Sequence[Face], sources: Sequence[Face], count: int, cross: bool
    ) -> list[dict[int, tuple[Face, Face]]]:
        """The drawn pairs (target, source) by the number of the target; the k-th item has the k-th source of each."""
        rounds: list[dict[int, tuple[Face, Face]]] = [{} for _ in range(count)]
        of: dict[str, list[Face]] = {}
        for face in sources:
            of.setdefault(face.clip.speaker, []).append(face)
        for n, face in enumerate(targets):
            target = face.clip
            own = [f for f in of.get(target.speaker, ()) if f.clip.clip_id != target.clip_id]
            if cross:
                own = [f for f in own if f.clip.emotion != target.emotion]
            for k, i in enumerate(self.rng.choice(len(own), min(count, len(own)), replace=False) if own else []):
                rounds[k][n] = face, own[int(i)]
        return rounds

    def _lips(self, pairs: Mapping[int, tuple[Face, Face]]) -> dict[int, np.ndarray]:
        """The positions of lips and jaw for each pair, (T, 57, 3), by the number of the target."""
        source_of = {(target.clip.folder, target.clip.clip_id): source for target, source in pairs.values()}

        def compute(clip: ClipArrays) -> np.ndarray:
            source = source_of[clip.folder, clip.clip_id]
            return self.mouths.mouth(clip.audio, source.head[self._take(source)], source.head, len(clip))

        clips = [target.clip for target, _ in pairs.values()]
        name = _name("lips", self.mouths, [[t.clip.clip_id, s.clip.clip_id] for t, s in pairs.values()])
        return dict(zip(pairs, _arrays(clips, name, compute, self.keep), strict=True))

    def _identities(self, clips: Sequence[ClipArrays]) -> dict[tuple[Path, str], np.ndarray]:
        """The identity embeddings of clips, by shard set and id."""
        once = list({(clip.folder, clip.clip_id): clip for clip in clips}.values())
        keep = self.keep and self.identities.kind != "none"
        vectors = _arrays(once, self.identities.name, self.identities.of, keep)
        return {(clip.folder, clip.clip_id): vector for clip, vector in zip(once, vectors, strict=True)}

    def _take(self, source: Face) -> np.ndarray:
        """The numbers of the source's frames that are references."""
        return np.linspace(0, len(source) - 1, self.mouths.settings.references).round().astype(int)

    def _rest(self, source: Face) -> np.ndarray:
        return source.head[self._take(source)].mean(axis=0)


def _name(what: str, net: torch.nn.Module, *more: object) -> str:
    """A name for kept arrays. It identifies the network that computes them, and what else they depend on."""
    hashed = sha256()
    for key, value in sorted(net.state_dict().items()):
        hashed.update(key.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return f"{what}-{digest([hashed.hexdigest(), *more], 16)}"


def _arrays(
    clips: Sequence[ClipArrays], name: str, compute: Callable[[ClipArrays], np.ndarray], keep: bool
) -> list[np.ndarray]:
    """The array of each clip, float32. With `keep`, arrays of an earlier run are read (see `kept_arrays`)."""
    if keep:
        return kept_arrays(clips, name, compute)
    return [np.asarray(compute(clip), np.float32) for clip in clips]
