"""EBM, CEM-Net's emotion memory: predicts an emotional face from lips, the audio's emotion and the source's face.

The paper's third module. A value memory stores the displacements that emotions add to a face. Training reads it with
the true displacement (`values`). Inference reads it with the inputs (`keys`): the emotion of the target's audio (AEE),
the emotion of the source's picture, the identity, and the emotion-agnostic lips. The network learns to align the two.
The memories have the form of External Attention (Guo et al. 2021): two linear layers and a softmax.
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
NOSE = (4, 2)  # MediaPipe's points: its tip and its base


@dataclass(frozen=True)
class EbmNetSettings:
    """The network's sizes, and the parts of its key. The paper gives no sizes."""

    slots: int = 64  # K: External Attention's
    width: int = 512  # D: Audio2Mouth's
    # Of the softmax over cosines: at 0.1 a slot that fits (cosine 1) weighs e^10 times one at right angles to it, so
    # that one slot or few slots are read; at 1 (External Attention, which has no cosine) all slots are always read.
    temperature: float = 0.1
    hidden: int = 512  # of the encoders and the decoder
    audio_emotion: int = 128  # size of AEE's embedding; 0: no emotion of the audio in the key (the paper's "w/o AEE")
    picture_emotion: int = 32  # size of the embedding of the source's blendshapes; 0: none
    identity: int = 0  # 128 (dlib's face ResNet), 512 (ArcFace); 0: none
    emotions: int = 8
    # "lower-half": the decoder moves the points below the middle of the eyes, as the paper's pictures show.
    # "whole-face": it moves all 478 points, since brows and eyes show emotion too.
    region: Literal["whole-face", "lower-half"] = "whole-face"
    dropout: float = 0.0  # of the key's parts
    # The embedding of the audio's emotion in the key. 0: AEE's own, as in the paper. Above 0: the mean of the emotions'
    # centres, weighted by this power of AEE's probabilities: 1 gives the expected emotion, 100 the likeliest one alone.
    # An embedding between two emotions reads the mean of both displacements, which is nearly zero. Training uses the
    # centre of the clip's label.
    decision: float = 0.0
    # Subtract the emotion that the source's blendshapes show (`emotion_shares`, `shown`) before the new one is added.
    # The memory then learns eight emotions on a neutral face, instead of 56 changes from one emotion to another.
    neutral: bool = False
    strength: float = 1.0  # at inference, the factor of the memory's displacement
    # At inference, the share of the change that is applied below the nose. A wrong emotion costs most at the mouth,
    # which speech moves.
    mouth: float = 1.0


class EBM(nn.Module):
    """The memory. All points are in the head's frame, in eye distances. Names of layers and buffers are stored.

    Buffers: `template` (478, 3); `unit` (): standard deviation of a coordinate of the displacement; `spread`
    (171, 1434): the linear map from lips and jaw to the whole face; `moves` (478,): 1 where the decoder may move a
    point; `mean`, `std` (52,): of the log odds of blendshapes; `tells` (53, C): a linear discriminant of emotions on
    standardised log odds and a 1; `shown` (C, 1434): mean displacement of each emotion from the same people's neutral
    faces; `centres` (C, E): AEE's mean embedding of each emotion.
    """

    template: Tensor
    mean: Tensor
    std: Tensor
    unit: Tensor
    spread: Tensor
    moves: Tensor
    tells: Tensor
    shown: Tensor
    centres: Tensor

    def __init__(self, settings: EbmNetSettings) -> None:
        super().__init__()
        self.settings = s = settings
        self.added = _mlp(N_MOUTH if s.region == "lower-half" else 3 * N_POINTS, s.hidden, s.width)  # f_dlip
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
        self.keys = nn.Parameter(torch.randn(s.slots, s.width) / s.width**0.5)  # M_k
        self.values = nn.Parameter(torch.randn(s.slots, s.width) / s.width**0.5)  # M_v
        self.decoder = _mlp(s.width + N_MOUTH, s.hidden, 3 * N_POINTS)
        self.table = nn.Linear(s.width, 3 * N_POINTS, bias=False)  # added to the decoder; see `init_as_table`
        self.register_buffer("template", torch.zeros(N_POINTS, 3))
        self.register_buffer("mean", torch.zeros(BLENDSHAPES))
        self.register_buffer("std", torch.ones(BLENDSHAPES))
        self.register_buffer("unit", torch.tensor(1.0))
        self.register_buffer("spread", torch.zeros(N_MOUTH, 3 * N_POINTS))
        self.register_buffer("moves", torch.ones(N_POINTS))
        self.register_buffer("tells", torch.zeros(BLENDSHAPES + 1, s.emotions))
        self.register_buffer("shown", torch.zeros(s.emotions, 3 * N_POINTS))
        self.register_buffer("centres", torch.zeros(s.emotions, s.audio_emotion))

    def base(self, rest: Tensor, lips: Tensor) -> Tensor:
        """The emotion-agnostic face: the references' mean (B, 478, 3), moved with the mouth by (B, T, 57, 3).

        Returns (B, T, 478, 3).
        """
        return rest[:, None] + (lips.flatten(2) @ self.spread).unflatten(2, (-1, 3))

    def standard(self, shapes: Tensor) -> Tensor:
        """(B, 52) of `log_odds`, standardised and clipped to 4 standard deviations."""
        return ((shapes - self.mean) / self.std).clamp(-4, 4)

    def picture_emotion(self, blendshapes: Tensor) -> Tensor:
        """The emotion embedding of a source's face: (B, 52) of `log_odds` to (B, E)."""
        assert self.picture is not None
        return self.picture(self.standard(blendshapes))  # type: ignore[no-any-return]

    def emotion_shares(self, blendshapes: Tensor) -> Tensor:
        """The discriminant's probability of each emotion in a source: (B, 52) of `log_odds` to (B, C)."""
        ones = torch.ones_like(blendshapes[:, :1])
        return (torch.cat([self.standard(blendshapes), ones], dim=1) @ self.tells).softmax(dim=1)

    def start(self, rest: Tensor, lips: Tensor, blendshapes: Tensor | None) -> Tensor:
        """The face before the memory's displacement, (B, T, 478, 3); with `neutral`, without its expression."""
        base = self.base(rest, lips)
        if not self.settings.neutral:
            return base
        assert blendshapes is not None
        expression = (self.emotion_shares(blendshapes) @ self.shown).unflatten(1, (-1, 3))
        return base - (expression * self.moves[:, None])[:, None]

    def decided_embedding(self, vector: Tensor, probabilities: Tensor) -> Tensor:
        """The audio's emotion embedding for the key: AEE's (E,) and its probabilities (C,) to (E,).

        See `EbmNetSettings.decision`.
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
        """f_e: (B, T, 57, 3) lips and the clip's embeddings, (B, ...) each, to (B, T, D)."""
        parts = [self.lips((lips / self.unit).flatten(2))]
        for layer, given in ((self.feeling, audio_emotion), (self.seen, picture_emotion), (self.who, identity)):
            if layer is not None:
                assert given is not None
                parts.append(layer(given)[:, None].expand_as(parts[0]))
        return self.key(torch.cat(parts, dim=2))

    def encode(self, added: Tensor) -> Tensor:
        """f_dlip: the true displacement from the emotion-agnostic face, (B, T, 478, 3), to (B, T, D).

        With `lower-half` only lips and jaw are read, as in the paper.
        """
        part = added[:, :, list(POINTS)] if self.settings.region == "lower-half" else added
        return self.added((part / self.unit).flatten(2))

    def address(self, feature: Tensor, memory: Tensor) -> Tensor:
        """Logarithm of the slots' weights, (B, T, K): log softmax of cosine / temperature."""
        cosine = functional.normalize(feature, dim=-1) @ functional.normalize(memory, dim=-1).T
        return (cosine / self.settings.temperature).log_softmax(dim=-1)

    def decode(self, feature: Tensor, lips: Tensor) -> Tensor:
        """(B, T, D) read from the memory, and the lips (B, T, 57, 3), to the displacement (B, T, 478, 3)."""
        moved = self.decoder(torch.cat([feature, (lips / self.unit).flatten(2)], dim=2)) + self.table(feature)
        moved = moved.unflatten(2, (-1, 3))
        return moved * self.unit * self.moves[:, None]

    @torch.no_grad()
    def init_as_table(self) -> None:
        """Initialise as a table: slot k adds the displacement of emotion k mod C (`shown`); its key is AEE's centre.

        With random slots and keys the network reads the same for all emotions during the first hundreds of steps, since
        it learns the mean over emotions first. Given the true label of speakers left out of training, the demo's memory
        showed it in 17 % of the clips after 200 steps, and in 83 % after 150 steps where it began as a table.
        """
        s, training = self.settings, self.training
        self.eval()
        which = torch.arange(s.slots) % s.emotions
        nn.init.orthogonal_(self.values)
        self.table.weight.copy_((self.shown / self.unit)[which].T @ self.values)
        for weight in self.decoder[-1].parameters():
            weight.zero_()
        if self.feeling is not None:
            self.feeling.weight.mul_(4 / self.centres.std().clamp(min=1e-6))  # louder than the lips
            self.feeling.bias.copy_(-self.feeling.weight @ self.centres.mean(dim=0))
            n = len(self.centres)
            seen = self.picture_emotion(self.mean.expand(n, -1)) if self.picture is not None else None
            found = self.query(
                torch.zeros(n, 1, len(POINTS), 3),
                self.centres,
                seen,
                torch.zeros(n, s.identity) if s.identity else None,
            )[:, 0]
            middle = found.mean(dim=0)
            self.key[-1].bias.sub_(middle)  # type: ignore[operator]
            self.keys.copy_((found - middle)[which])
        self.train(training)

    def forward(
        self,
        rest: Tensor,
        lips: Tensor,
        blendshapes: Tensor | None = None,
        audio_emotion: Tensor | None = None,
        identity: Tensor | None = None,
    ) -> Tensor:
        """The emotional face, as at inference.

        Args:
            rest: (B, 478, 3), the references' mean.
            lips: (B, T, 57, 3), Audio2Mouth's displacements from there.
            blendshapes: (B, 52), `log_odds` of the references' blendshapes.
            audio_emotion: (B, E), AEE's embedding of the target's audio.
            identity: (B, I).

        Returns:
            (B, T, 478, 3).
        """
        seen = self.picture_emotion(blendshapes) if self.picture is not None and blendshapes is not None else None
        weights = self.address(self.query(lips, audio_emotion, seen, identity), self.keys).exp()
        base, start = self.base(rest, lips), self.start(rest, lips, blendshapes)
        change = start - base + self.settings.strength * self.decode(weights @ self.values, lips)
        return base + self.change_share()[:, None] * change

    def change_share(self) -> Tensor:
        """(478,): 1 above the tip of the nose, `EbmNetSettings.mouth` below its base, linear between them."""
        height = self.template[:, 1]
        tip, under = height[NOSE[0]], height[NOSE[1]]
        down = ((height - tip) / (under - tip).clamp(min=1e-6)).clamp(0, 1)
        return 1 - (1 - self.settings.mouth) * down

    def record(self) -> dict[str, object]:
        """What `load` needs next to the tensors."""
        return asdict(self.settings)


def log_odds(blendshapes: np.ndarray) -> np.ndarray:
    """Log odds of blendshapes, the mean over frames: (N, 52) in [0, 1] to (52,) float32.

    0.01 is added on either side. Brows and nose move between 0.001 and 0.1, a range that log odds resolve. Leaving
    training speakers out, a linear discriminant recognises 64 % of the emotions (of 8) with 4 speakers, 47 % with 12.
    """
    return np.log((blendshapes + 0.01) / (1.01 - blendshapes)).mean(axis=0).astype(np.float32)


@dataclass(frozen=True)
class EbmLossWeights:
    """Weights of the losses. The paper names the terms and gives no weights.

    All losses are of the order of 1 in their units (standard deviations of the displacement, unit vectors, nats), so
    the weights need not balance them.
    """

    landmarks: float = 1.0  # L_a2m of the decoded landmarks
    continuity: float = 1.0  # inside it: the paper's lambda
    reconstruction: float = 1.0  # |f_dlip - f_hat|^2
    alignment: float = 1.0  # KL(alpha_k || alpha_v)
    # L_a2m of the face decoded through the keys, as at inference. 0 in the paper, which trains the decoder with the
    # values alone and relies on the alignment.
    through_keys: float = 0.0
    picture: float = 1.0  # cross-entropy of the source's emotion in its face; it trains the extractor


def loss(net: EBM, batch: Mapping[str, Tensor], weights: EbmLossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """All losses of the memory.

    Args:
        batch: `rest` (B, 478, 3); `blendshapes` (B, 52); `lips` (B, T, 57, 3); `truth` (B, T, 478, 3);
            `audio_emotion` (B, E) and `identity` (B, I) where the key has them; `source` (B,): class of the source's
            emotion, -100 where unlabelled.
    """
    rest, lips = batch["rest"], batch["lips"]
    added = (batch["truth"] - net.start(rest, lips, batch.get("blendshapes"))) * net.moves[:, None]
    feature = net.encode(added)
    log_values = net.address(feature, net.values)
    read = log_values.exp() @ net.values
    seen = net.picture_emotion(batch["blendshapes"]) if net.picture is not None else None
    log_keys = net.address(net.query(lips, batch.get("audio_emotion"), seen, batch.get("identity")), net.keys)
    far = _landmarks(net, net.decode(read, lips), added, weights.continuity)
    parts = {
        "landmarks": far,
        "reconstruction": (feature - read).square().sum(dim=-1).mean(),
        "alignment": alignment(log_keys, log_values),
    }
    if weights.through_keys:
        parts["through_keys"] = _landmarks(
            net, net.decode(log_keys.exp() @ net.values, lips), added, weights.continuity
        )
    if net.to_emotion is not None and seen is not None:
        parts["picture"] = classification(net.to_emotion(seen), batch["source"])
    return sum((getattr(weights, k) * v for k, v in parts.items()), torch.zeros((), device=rest.device)), parts


def alignment(log_keys: Tensor, log_values: Tensor) -> Tensor:
    """KL(alpha_k || alpha_v) in nats, mean over frames; from logarithms (..., K)."""
    return (log_keys.exp() * (log_keys - log_values)).sum(dim=-1).mean()


def _landmarks(net: EBM, predicted: Tensor, added: Tensor, continuity: float) -> Tensor:
    """L_a2m in units of the displacement, over the points that may move."""
    kept = net.moves.bool()
    return audio2mouth.loss(predicted[:, :, kept] / net.unit, added[:, :, kept] / net.unit, continuity)[0]


def load(path: Path) -> tuple[EBM, str]:
    """The network of a checkpoint file in evaluation mode, and the kind of its identity: none, dlib or arcface.

    Raises UserError where the file cannot be used.
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
