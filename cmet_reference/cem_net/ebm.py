"""EBM, CEM-Net's emotion memory: predicts an emotional face from lips, the audio's emotion and the source's face.

EBM is the third module of the CEM-Net paper (equations 8 to 13). The memory has K slots, and each slot has a key vector
and a value vector. The value vectors encode displacements that emotions add to a face.

- Only in training, the true displacement is encoded as a vector. The weight of a slot is the similarity of this vector
  to the slot's value (8), and the values' reading is the weighted sum of the values (9). The reconstruction loss
  compares the reading with the vector (10).
- A query is computed from the emotion of the target's audio (by AEE), the emotion of the source's picture, the
  identity, and the lips without emotion. The weight of a slot is the similarity of the query to the slot's key (11).
  The alignment loss makes the keys' weights equal to the values' weights (12).
- The keys' reading is the sum of the values with the keys' weights (13). The decoder receives the keys' reading and the
  lips, in training and at inference. The landmark loss compares the decoder's output with the truth.

The memory has the form of External Attention (Guo et al. 2021): two linear layers and a softmax.
With `--config paper`, the network has no part that is not the paper's. Each setting that adds a part of ours says so.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmet_reference.cem_net import audio2mouth
from cmet_reference.cem_net.aee_losses import classification
from cmet_reference.cem_net.audio2mouth import POINTS

KIND = "ebm"
N_POINTS, BLENDSHAPES = 478, 52
N_MOUTH = 3 * len(POINTS)
NOSE = (4, 2)  # MediaPipe's points of the tip and the base of the nose


@dataclass(frozen=True)
class EbmNetSettings:
    """The sizes of the network, and the inputs of the query. The paper gives no sizes."""

    slots: int = 64  # K, as in External Attention
    width: int = 512  # D, as in Audio2Mouth
    # Temperature of the softmax over cosines. At 0.1, a slot with cosine 1 has e^10 times the weight of a slot with
    # cosine 0, so that only one slot or a few slots have an effect. At 1, all slots always have an effect. External
    # Attention uses no cosine and a temperature of 1.
    temperature: float = 0.1
    hidden: int = 512  # units per hidden layer of the encoders and the decoder
    audio_emotion: int = 128  # size of the audio's emotion embedding; 0: none in the query
    # The network that gives the audio's emotion: AEE, or a plain classifier without softmax (the paper's "w/o AEE").
    audio: Literal["aee", "emotion-classifier"] = "aee"
    # False: the query is decoded directly, and there are no slots (the paper's "w/o EBM").
    memory: bool = True
    picture_emotion: int = 32  # size of the emotion embedding of the source's blendshapes; 0: not in the query
    identity: int = 0  # size of the identity embedding: 128 (dlib's face ResNet), 512 (ArcFace), or 0: none
    emotions: int = 8  # number of emotions, C
    # "lower-half": the decoder moves the points below the middle of the eyes, as the paper's pictures show.
    # "whole-face": the decoder moves all 478 points, since brows and eyes show emotion too. Ours.
    region: Literal["whole-face", "lower-half"] = "lower-half"
    dropout: float = 0.0  # dropout of the query's inputs
    # Ours: if True, the output of a linear layer of the reading is added to the decoder's output, and the memory and
    # this layer start as a table of the mean displacement of each emotion (see `init_as_table`). If False, the slots
    # start from random values, as in the paper.
    table: bool = False
    # Ours: if True, the motion of lips and jaw moves the other points of the face too, by a linear map.
    spread: bool = False
    # Ours: chooses the embedding of the audio's emotion in the query. With 0, it is AEE's embedding, as in the paper.
    # Above 0, it is the weighted mean of the centres of the emotions; the weights are AEE's probabilities to the power
    # of this number. With 100, the embedding is nearly the centre of the most probable emotion. With 1, it is the
    # expected centre; this moves the face less if AEE is uncertain. Below 1, it also corrects an AEE that is
    # overconfident for new voices. If the number is above 0, training uses the centre of the clip's labelled emotion.
    decision: float = 0.0
    # Ours: if True, the source's expression is subtracted before the new emotion is added. The expression is estimated
    # from the source's blendshapes (see the buffer `expression`). The memory then learns eight emotions on a neutral
    # face, instead of 56 changes from one emotion to another.
    neutral: bool = False
    strength: float = 1.0  # ours: at inference, the memory's displacement is multiplied by this factor
    # Ours: at inference, the share of the change that is applied below the nose. The demo uses less than 1, because a
    # wrong emotion does most harm at the mouth, where the displacements are largest.
    mouth: float = 1.0


class EBM(nn.Module):
    """The emotion memory. All points are in the head's frame, in units of the eye distance.

    Names of layers and buffers are stored in checkpoints. The buffers are:

    - `template` (478, 3): the mean face in the head's frame.
    - `unit`, scalar: standard deviation of a coordinate of the displacement.
    - `spread` (171, 1434): the linear map from the motion of lips and jaw to the motion of the face. Without the
      setting `spread`, only lips and jaw move.
    - `moves` (478,): 1 for points that the decoder may move, else 0.
    - `mean`, `std` (52,): mean and standard deviation of the log odds of blendshapes.
    - `expression` (53, 1434): the linear map from standardised log odds to the displacement of the face from the same
      person's neutral face; the last row is the bias. It is used with the setting `neutral`.
    - `shown` (C, 1434): mean displacement of the face in each emotion from the same person's neutral face.
    - `centres` (C, E): AEE's mean embedding of each emotion.
    """

    template: Tensor
    mean: Tensor
    std: Tensor
    unit: Tensor
    spread: Tensor
    moves: Tensor
    expression: Tensor
    shown: Tensor
    centres: Tensor

    def __init__(self, settings: EbmNetSettings) -> None:
        super().__init__()
        self.settings = s = settings
        encoded = N_MOUTH if s.region == "lower-half" else 3 * N_POINTS
        self.added = _mlp(encoded, s.hidden, s.width) if s.memory else nn.Identity()  # f_dlip
        self.lips = _mlp(N_MOUTH, s.hidden, s.width)
        self.feeling = nn.Linear(s.audio_emotion, s.width) if s.audio_emotion else None
        self.picture = _mlp(BLENDSHAPES, s.hidden, s.picture_emotion) if s.picture_emotion else None
        self.to_emotion = nn.Linear(s.picture_emotion, s.emotions) if s.picture_emotion else None
        self.seen = nn.Linear(s.picture_emotion, s.width) if s.picture_emotion else None
        self.who = nn.Linear(s.identity, s.width) if s.identity else None
        parts = 1 + bool(s.audio_emotion) + bool(s.picture_emotion) + bool(s.identity)
        self.key = nn.Sequential(
            nn.Dropout(s.dropout),
            nn.ReLU(),
            nn.Linear(parts * s.width, s.hidden),
            nn.ReLU(),
            nn.Linear(s.hidden, s.width),
        )
        self.keys = nn.Parameter(torch.randn(s.slots * s.memory, s.width) / s.width**0.5)  # M_k in the paper
        self.values = nn.Parameter(torch.randn(s.slots * s.memory, s.width) / s.width**0.5)  # M_v in the paper
        self.decoder = _mlp(s.width + N_MOUTH, s.hidden, 3 * N_POINTS)
        self.table = nn.Linear(s.width, 3 * N_POINTS, bias=False) if s.table else None
        self.register_buffer("template", torch.zeros(N_POINTS, 3))
        self.register_buffer("mean", torch.zeros(BLENDSHAPES))
        self.register_buffer("std", torch.ones(BLENDSHAPES))
        self.register_buffer("unit", torch.tensor(1.0))
        self.register_buffer("spread", torch.from_numpy(mouth_only()))
        self.register_buffer("moves", torch.ones(N_POINTS))
        self.register_buffer("expression", torch.zeros(BLENDSHAPES + 1, 3 * N_POINTS))
        self.register_buffer("shown", torch.zeros(s.emotions, 3 * N_POINTS))
        self.register_buffer("centres", torch.zeros(s.emotions, s.audio_emotion))

    def base(self, rest: Tensor, lips: Tensor) -> Tensor:
        """The face without the emotion: the mean of the references, moved by the lips.

        Args:
            rest: (B, 478, 3), the references' mean.
            lips: (B, T, 57, 3), displacements of lips and jaw from `rest`.

        Returns:
            (B, T, 478, 3).
        """
        return rest[:, None] + (lips.flatten(2) @ self.spread).unflatten(2, (-1, 3))

    def standard(self, shapes: Tensor) -> Tensor:
        """Standardises results of `log_odds`, (B, 52), and clips them to 4 standard deviations."""
        return ((shapes - self.mean) / self.std).clamp(-4, 4)

    def picture_emotion(self, blendshapes: Tensor) -> Tensor:
        """The emotion embedding of the source's face, (B, E), from results of `log_odds`, (B, 52)."""
        assert self.picture is not None
        return self.picture(self.standard(blendshapes))  # type: ignore[no-any-return]

    def start(self, rest: Tensor, lips: Tensor, blendshapes: Tensor | None) -> Tensor:
        """The face before the memory's displacement is added, (B, T, 478, 3).

        The face is the result of `base`. With the setting `neutral`, the source's estimated expression is subtracted.
        """
        base = self.base(rest, lips)
        if not self.settings.neutral:
            return base
        assert blendshapes is not None
        shapes = functional.pad(self.standard(blendshapes), (0, 1), value=1.0)
        expression = (shapes @ self.expression).unflatten(1, (-1, 3))
        return base - (expression * self.moves[:, None])[:, None]

    def decided_embedding(self, vector: Tensor, probabilities: Tensor) -> Tensor:
        """The audio's emotion embedding for the query, (E,); see `EbmNetSettings.decision`.

        Args:
            vector: (E,), AEE's embedding.
            probabilities: (C,), AEE's probabilities of the emotions.
        """
        power = self.settings.decision
        if not power:
            return vector
        best = probabilities / probabilities.max()
        weights = best**power
        return weights / weights.sum() @ self.centres

    def query(
        self, lips: Tensor, audio_emotion: Tensor | None, picture_emotion: Tensor | None, identity: Tensor | None
    ) -> Tensor:
        """The query that is compared with the keys, (B, T, D); f_e in the paper.

        Args:
            lips: (B, T, 57, 3), displacements of lips and jaw.
            audio_emotion, picture_emotion, identity: embeddings of the clip, (B, size) each; None for an embedding that
                the settings leave out.
        """
        parts = [self.lips((lips / self.unit).flatten(2))]
        for layer, given in ((self.feeling, audio_emotion), (self.seen, picture_emotion), (self.who, identity)):
            if layer is not None:
                assert given is not None
                parts.append(layer(given)[:, None].expand_as(parts[0]))
        return self.key(torch.cat(parts, dim=2))

    def encode(self, added: Tensor) -> Tensor:
        """Encodes the true displacement, (B, T, 478, 3), as (B, T, D), f_dlip in the paper.

        The displacement is relative to the face without emotion. With `lower-half`, only lips and jaw are encoded, as
        in the paper.
        """
        part = added[:, :, list(POINTS)] if self.settings.region == "lower-half" else added
        return self.added((part / self.unit).flatten(2))

    def address(self, feature: Tensor, memory: Tensor) -> Tensor:
        """The logarithm of the slots' weights, (B, T, K): log softmax of cosine / temperature.

        Args:
            feature: (B, T, D).
            memory: (K, D), the keys or the values.
        """
        cosine = functional.normalize(feature, dim=-1) @ functional.normalize(memory, dim=-1).T
        return (cosine / self.settings.temperature).log_softmax(dim=-1)

    def read(self, query: Tensor) -> Tensor:
        """What is decoded for a query, (B, T, D): the keys' reading of the values; without a memory, the query."""
        return self.address(query, self.keys).exp() @ self.values if self.settings.memory else query

    def decode(self, feature: Tensor, lips: Tensor) -> Tensor:
        """The displacement of the face, (B, T, 478, 3).

        Args:
            feature: (B, T, D), the weighted sum of the memory's values.
            lips: (B, T, 57, 3).
        """
        moved = self.decoder(torch.cat([feature, (lips / self.unit).flatten(2)], dim=2))
        if self.table is not None:
            moved = moved + self.table(feature)
        return moved.unflatten(2, (-1, 3)) * self.unit * self.moves[:, None]

    def forward(
        self,
        rest: Tensor,
        lips: Tensor,
        blendshapes: Tensor | None = None,
        audio_emotion: Tensor | None = None,
        identity: Tensor | None = None,
    ) -> Tensor:
        """The emotional face, computed in the same way as at inference.

        Args:
            rest: (B, 478, 3), the references' mean.
            lips: (B, T, 57, 3), Audio2Mouth's displacements from the references' mean.
            blendshapes: (B, 52), `log_odds` of the references' blendshapes.
            audio_emotion: (B, E), emotion embedding of the target's audio; see `decided_embedding`.
            identity: (B, I), identity embedding.

        Returns:
            (B, T, 478, 3).
        """
        seen = self.picture_emotion(blendshapes) if self.picture is not None and blendshapes is not None else None
        feature = self.read(self.query(lips, audio_emotion, seen, identity))
        base, start = self.base(rest, lips), self.start(rest, lips, blendshapes)
        change = start - base + self.settings.strength * self.decode(feature, lips)
        return base + self.change_share()[:, None] * change

    def change_share(self) -> Tensor:
        """The share of the change that is applied to each point, (478,).

        The share is 1 above the tip of the nose and `EbmNetSettings.mouth` below the base of the nose. It changes
        linearly between tip and base.
        """
        height = self.template[:, 1]
        tip, under = height[NOSE[0]], height[NOSE[1]]
        down = ((height - tip) / (under - tip).clamp(min=1e-6)).clamp(0, 1)
        return 1 - (1 - self.settings.mouth) * down

    def record(self) -> dict[str, object]:
        """JSON values that `load` needs in addition to the tensors."""
        return asdict(self.settings)


def mouth_only() -> np.ndarray:
    """The linear map by which only lips and jaw move, (171, 1434) float32: see the buffer `spread`."""
    out = np.zeros((len(POINTS), 3, N_POINTS, 3), np.float32)
    for k, point in enumerate(POINTS):
        out[k, :, point] = np.eye(3)
    return out.reshape(N_MOUTH, 3 * N_POINTS)


@torch.no_grad()
def init_as_table(net: EBM) -> None:
    """Initialise a memory with the setting `table` as a table of emotions.

    Slot k gives the mean displacement of emotion k mod C (`shown`). The key of the slot is the query for AEE's centre
    of this emotion. If slots and keys start from random values, the network first learns the mean over emotions, and
    gives the same displacement for all emotions during the first hundreds of steps. In a test with the demo's settings,
    the true emotion was an input, and the speakers were left out of training. After 200 steps from random values, the
    face showed the true emotion in 17 % of the clips. After 150 steps from a table, the face showed the true emotion in
    83 % of the clips.
    """
    s, training = net.settings, net.training
    assert net.table is not None
    net.eval()
    which = torch.arange(s.slots) % s.emotions
    nn.init.orthogonal_(net.values)
    net.table.weight.copy_((net.shown / net.unit)[which].T @ net.values)
    for weight in net.decoder[-1].parameters():
        weight.zero_()
    if net.feeling is not None:
        net.feeling.weight.mul_(4 / net.centres.std().clamp(min=1e-6))  # gives the emotion more weight than the lips
        net.feeling.bias.copy_(-net.feeling.weight @ net.centres.mean(dim=0))
        n = len(net.centres)
        seen = net.picture_emotion(net.mean.expand(n, -1)) if net.picture is not None else None
        found = net.query(
            torch.zeros(n, 1, len(POINTS), 3),
            net.centres,
            seen,
            torch.zeros(n, s.identity) if s.identity else None,
        )[:, 0]
        middle = found.mean(dim=0)
        net.key[-1].bias.sub_(middle)  # type: ignore[operator]
        net.keys.copy_((found - middle)[which])
    net.train(training)


def log_odds(blendshapes: np.ndarray) -> np.ndarray:
    """The mean log odds of blendshapes over N frames: (N, 52) in [0, 1] to (52,) float32.

    The formula is log((x + 0.01) / (1.01 - x)). The blendshapes of brows and nose vary between 0.001 and 0.1, and log
    odds enlarge the differences in this range. In a test, one training speaker at a time was left out. A linear
    discriminant of the log odds classified the clips of this speaker into 8 emotions. The result was correct for 64 %
    of the clips with 4 speakers, and for 47 % with 12 speakers.
    """
    return np.log((blendshapes + 0.01) / (1.01 - blendshapes)).mean(axis=0).astype(np.float32)


@dataclass(frozen=True)
class EbmLossWeights:
    """Weights of the losses. The paper names the losses and gives no weights; the defaults are the plain sum.

    Each loss has a magnitude near 1 in its unit, so the weights need not balance the losses. The units are standard
    deviations of the displacement, lengths of unit vectors, and nats.
    """

    landmarks: float = 1.0  # L_a2m (see audio2mouth.loss) of the landmarks that are decoded from the keys' reading
    continuity: float = 1.0  # weight of the continuity loss inside L_a2m, the paper's lambda
    reconstruction: float = 1.0  # squared distance between the encoded displacement and the values' reading
    alignment: float = 1.0  # KL divergence between the keys' weights and the values' weights of the slots
    # Cross-entropy of the emotion that is recognised in the source's face. In the paper, a network that is trained
    # before recognises it. Ours is trained at the same time, but only by this loss.
    picture: float = 1.0


def loss(net: EBM, batch: Mapping[str, Tensor], weights: EbmLossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """All losses of the memory: the weighted sum of the losses, and each loss by name.

    These networks receive a gradient:

    - `landmarks`: the query's layers, the keys, the values, the decoder;
    - `reconstruction`: the encoder of the true displacement, the values;
    - `alignment`: the encoder of the true displacement, the values, the query's layers, the keys;
    - `picture`: the network that recognises the emotion of the source's face. No other loss trains this network.

    Args:
        batch: `rest` (B, 478, 3), `blendshapes` (B, 52) and `lips` (B, T, 57, 3), see `EBM.forward`; `truth`
            (B, T, 478, 3), the true face; `audio_emotion` (B, E) and `identity` (B, I), if the query uses them;
            `source` (B,), class of the source's emotion, -100 if unlabelled.
    """
    rest, lips = batch["rest"], batch["lips"]
    added = (batch["truth"] - net.start(rest, lips, batch.get("blendshapes"))) * net.moves[:, None]
    seen = net.picture_emotion(batch["blendshapes"]) if net.picture is not None else None
    frozen = None if seen is None else seen.detach()
    query = net.query(lips, batch.get("audio_emotion"), frozen, batch.get("identity"))
    parts = {"landmarks": _landmarks(net, net.decode(net.read(query), lips), added, weights.continuity)}  # (11), (13)
    if net.settings.memory:
        feature = net.encode(added)
        log_values = net.address(feature, net.values)  # (8)
        of_values = log_values.exp() @ net.values  # (9)
        parts["reconstruction"] = (feature - of_values).square().sum(dim=-1).mean()  # (10)
        parts["alignment"] = alignment(net.address(query, net.keys), log_values)  # (12)
    if net.to_emotion is not None and seen is not None:
        parts["picture"] = classification(net.to_emotion(seen), batch["source"])
    return sum((getattr(weights, k) * v for k, v in parts.items()), torch.zeros((), device=rest.device)), parts


def alignment(log_keys: Tensor, log_values: Tensor) -> Tensor:
    """The KL divergence KL(alpha_k || alpha_v) between the keys' and the values' weights, in nats, mean over frames.

    The arguments are the logarithms of the weights, (..., K) each.
    """
    return (log_keys.exp() * (log_keys - log_values)).sum(dim=-1).mean()


def _landmarks(net: EBM, predicted: Tensor, added: Tensor, continuity: float) -> Tensor:
    """The loss L_a2m of the displacements, divided by `unit`, over the points that the decoder may move."""
    kept = net.moves.bool()
    return audio2mouth.loss(predicted[:, :, kept] / net.unit, added[:, :, kept] / net.unit, continuity)[0]


def load(path: Path) -> tuple[EBM, str]:
    """The network of a checkpoint file in evaluation mode, and its kind of identity embedding: none, dlib or arcface.

    Raises UserError if the file cannot be used.
    """
    from cmet_reference.training import checkpoints

    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        net = EBM(EbmNetSettings(**record["net"]))
        net.load_state_dict(state)
        return net.eval(), record["identity"]


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_out)
    )
