"""EBM, the emotion memory: from emotion-agnostic lips, the sound's emotion and the source's face to an emotional face.

The paper's third module. A value memory holds what emotions add to a face; in training it is read by what was really
added (`values`), and in use by what can be known beforehand (`keys`): the emotion in the target's sound (AEE), the
emotion of the source's picture, the identity, and the emotion-agnostic lips. Aligning the two ways of reading is what
is learnt. The memories have the form of External Attention (Guo et al. 2021): two linear layers and a softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmet_reference.cem_net import audio2mouth
from cmet_reference.cem_net.aee import classification
from cmet_reference.cem_net.audio2mouth import POINTS

KIND = "ebm"
N_POINTS, BLENDSHAPES = 478, 52
N_MOUTH = 3 * len(POINTS)
NOSE = (4, 2)  # MediaPipe's points: its tip and its base


@dataclass(frozen=True)
class Settings:
    """Sizes and what the key is made of. The paper states none of the sizes."""

    slots: int = 64  # K: External Attention's
    width: int = 512  # D: Audio2Mouth's
    # Of the softmax over cosines: at 0.1 a slot that fits (cosine 1) weighs e^10 times one at right angles to it, so
    # that one slot or a blend of few is read; at 1 (External Attention, which has no cosine) all are, always.
    temperature: float = 0.1
    hidden: int = 512  # of the encoders and the decoder
    audio_emotion: int = 128  # of AEE; 0: the key has no emotion from sound (the paper's "w/o AEE")
    picture_emotion: int = 32  # of the source's face, from its blendshapes; 0: none
    identity: int = 0  # 128 (dlib's face ResNet), 512 (ArcFace); 0: none
    emotions: int = 8
    # "lower-half": the decoder moves what lies below the eyes' middle, as the paper's pictures do; the rest stays the
    # base's. "whole-face": all 478 points, since brows and eyes carry emotion too.
    region: Literal["whole-face", "lower-half"] = "whole-face"
    dropout: float = 0.0  # of the key's parts
    # Which vector of the sound's emotion the key holds. 0: AEE's own, as in the paper. Above: the centres of the
    # training clips' vectors, one an emotion, weighted by this power of AEE's probabilities: 1 gives the emotion to be
    # expected, 100 the likeliest alone. A vector between two emotions reads a mean of what both add, which is nearly
    # nothing; in training the centre is that of the clip's label.
    decision: float = 0.0
    # Before an emotion is added, the one that the source's blendshapes show is taken away (`shares`, `shown`). The
    # memory then adds one of eight emotions to a face near rest, and not one of 56 ways from one to another.
    neutral: bool = False
    strength: float = 1.0  # in use: what the memory adds, times this
    # In use: of what is taken away and added, the share that moves what lies below the nose. An emotion that was not
    # heard right costs most at the mouth, which everything that is said moves.
    mouth: float = 1.0


class EBM(nn.Module):
    """The memory. Everything is in the head's frame, in eye distances.

    Buffers: `template` (478, 3); `unit` (): deviation of a coordinate of what is added; `spread` (171, 1434): what the
    rest of a face does when lips and jaw move, fitted linearly; `moves` (478,): 1 where the decoder may move a point;
    `mean`, `std` (52,): of blendshapes' log odds; `tells` (53, C): a linear discriminant of emotions, of these in units
    of `std` and 1; `shown` (C, 1434): how faces in each emotion differ from the same people's neutral ones;
    `centres` (C, E): AEE's mean vector of each emotion.
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

    def __init__(self, settings: Settings) -> None:
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
        self.table = nn.Linear(s.width, 3 * N_POINTS, bias=False)  # beside the decoder; see `furnish`
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
        """The emotion-agnostic face: the references' mean (B, 478, 3) with the mouth moved by (B, T, 57, 3).

        Returns (B, T, 478, 3).
        """
        return rest[:, None] + (lips.flatten(2) @ self.spread).unflatten(2, (-1, 3))

    def standard(self, shapes: Tensor) -> Tensor:
        """(B, 52) of `odds` in units of their deviation."""
        return ((shapes - self.mean) / self.std).clamp(-4, 4)

    def look(self, shapes: Tensor) -> Tensor:
        """The emotion of a source's face: (B, 52) of `odds` to (B, E)."""
        assert self.picture is not None
        return self.picture(self.standard(shapes))  # type: ignore[no-any-return]

    def shares(self, shapes: Tensor) -> Tensor:
        """How likely a source shows each emotion, by the discriminant: (B, 52) of `odds` to (B, C)."""
        ones = torch.ones_like(shapes[:, :1])
        return (torch.cat([self.standard(shapes), ones], dim=1) @ self.tells).softmax(dim=1)

    def start(self, rest: Tensor, lips: Tensor, shapes: Tensor | None) -> Tensor:
        """What the memory adds to: the emotion-agnostic face, its expression taken away where `neutral` is set."""
        base = self.base(rest, lips)
        if not self.settings.neutral:
            return base
        assert shapes is not None
        expression = (self.shares(shapes) @ self.shown).unflatten(1, (-1, 3))
        return base - (expression * self.moves[:, None])[:, None]

    def decided(self, vector: Tensor, probabilities: Tensor) -> Tensor:
        """The key's vector of the sound's emotion: (E,) and (C,), AEE's, to (E,). See `Settings.decision`."""
        power = self.settings.decision
        if not power:
            return vector
        best = probabilities / probabilities.max()
        weights = best**power
        return weights / weights.sum() @ self.centres

    def query(self, lips: Tensor, heard: Tensor | None, seen: Tensor | None, who: Tensor | None) -> Tensor:
        """f_e: (B, T, 57, 3) lips and the clip's features, (B, ...) each, to (B, T, D)."""
        parts = [self.lips((lips / self.unit).flatten(2))]
        for layer, given in ((self.feeling, heard), (self.seen, seen), (self.who, who)):
            if layer is not None:
                assert given is not None
                parts.append(layer(given)[:, None].expand_as(parts[0]))
        return self.key(torch.cat(parts, dim=2))

    def encode(self, added: Tensor) -> Tensor:
        """f_dlip: what is really added to the emotion-agnostic face, (B, T, 478, 3), to (B, T, D).

        Its lips and jaw alone where these alone are generated, as in the paper.
        """
        part = added[:, :, list(POINTS)] if self.settings.region == "lower-half" else added
        return self.added((part / self.unit).flatten(2))

    def address(self, feature: Tensor, memory: Tensor) -> Tensor:
        """Logarithm of the weights of the slots, (B, T, K): softmax of cosine / temperature."""
        cosine = functional.normalize(feature, dim=-1) @ functional.normalize(memory, dim=-1).T
        return (cosine / self.settings.temperature).log_softmax(dim=-1)

    def decode(self, feature: Tensor, lips: Tensor) -> Tensor:
        """(B, T, D) read from the memory and the lips, (B, T, 57, 3), to what is added, (B, T, 478, 3)."""
        said = self.decoder(torch.cat([feature, (lips / self.unit).flatten(2)], dim=2)) + self.table(feature)
        said = said.unflatten(2, (-1, 3))
        return said * self.unit * self.moves[:, None]

    @torch.no_grad()
    def furnish(self) -> None:
        """Begin as a table: slot k adds what emotion k mod C adds (`shown`), its key lies where AEE's centre leads.

        With random slots and keys, what is read is the same for all emotions for the first hundreds of steps, since the
        mean over emotions is learnt first. Told the true label of speakers left out of training, the demo's memory then
        showed it in 17 % of the clips after 200 steps, and in 83 % after 150 where it began as a table.
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
            seen = self.look(self.mean.expand(n, -1)) if self.picture is not None else None
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
        shapes: Tensor | None = None,
        heard: Tensor | None = None,
        who: Tensor | None = None,
    ) -> Tensor:
        """The emotional face, as in use.

        Args:
            rest: (B, 478, 3), the references' mean.
            lips: (B, T, 57, 3), how Audio2Mouth moves the mouth from there.
            shapes: (B, 52), `odds` of the references' blendshapes.
            heard: (B, E), AEE's vector of the target's sound.
            who: (B, I), the identity.

        Returns:
            (B, T, 478, 3).
        """
        seen = self.look(shapes) if self.picture is not None and shapes is not None else None
        weights = self.address(self.query(lips, heard, seen, who), self.keys).exp()
        base, start = self.base(rest, lips), self.start(rest, lips, shapes)
        change = start - base + self.settings.strength * self.decode(weights @ self.values, lips)
        return base + self.kept()[:, None] * change

    def kept(self) -> Tensor:
        """(478,): 1 above the tip of the nose, `Settings.mouth` below its base, a ramp between them."""
        height = self.template[:, 1]
        tip, under = height[NOSE[0]], height[NOSE[1]]
        down = ((height - tip) / (under - tip).clamp(min=1e-6)).clamp(0, 1)
        return 1 - (1 - self.settings.mouth) * down

    def record(self) -> dict[str, Any]:
        """What `build` needs beside the tensors."""
        return asdict(self.settings)


def odds(blendshapes: np.ndarray) -> np.ndarray:
    """Log odds of blendshapes, the mean over frames: (N, 52) in [0, 1] to (52,) float32.

    0.01 is added on either side. Brows and nose move between 0.001 and 0.1, which log odds tell apart: leaving training
    speakers out, a linear discriminant names 64 % of the clips' emotions (one of 8) with 4 speakers, 47 % with 12.
    """
    return np.log((blendshapes + 0.01) / (1.01 - blendshapes)).mean(axis=0).astype(np.float32)


@dataclass(frozen=True)
class Weights:
    """Of the losses; the paper names the terms and no weights. All are of the order of 1 in the units they are taken
    in (deviations of what is added, unit vectors, nats), so none is scaled against another."""

    landmarks: float = 1.0  # L_a2m of the decoded landmarks
    continuity: float = 1.0  # inside it: the paper's lambda
    reconstruction: float = 1.0  # |f_dlip - f_hat|^2
    alignment: float = 1.0  # KL(alpha_k || alpha_v)
    # L_a2m of what is decoded through the keys, as in use. 0 in the paper, which reads with the values alone and lets
    # the alignment do the rest.
    through_keys: float = 0.0
    picture: float = 1.0  # cross-entropy of the source's emotion in its face: what trains the extractor


def loss(net: EBM, batch: Mapping[str, Tensor], weights: Weights) -> tuple[Tensor, dict[str, Tensor]]:
    """All of the memory's losses.

    Args:
        batch: `rest` (B, 478, 3); `shapes` (B, 52); `lips` (B, T, 57, 3); `truth` (B, T, 478, 3); `heard` (B, E) and
            `who` (B, I) where the key has them; `source` (B,): class of the source's emotion, -100 where unlabelled.
    """
    rest, lips = batch["rest"], batch["lips"]
    added = (batch["truth"] - net.start(rest, lips, batch.get("shapes"))) * net.moves[:, None]
    feature = net.encode(added)
    log_values = net.address(feature, net.values)
    read = log_values.exp() @ net.values
    seen = net.look(batch["shapes"]) if net.picture is not None else None
    log_keys = net.address(net.query(lips, batch.get("heard"), seen, batch.get("who")), net.keys)
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


def _landmarks(net: EBM, said: Tensor, added: Tensor, continuity: float) -> Tensor:
    """L_a2m in units of what is added, over the points that may move."""
    kept = net.moves.bool()
    return audio2mouth.loss(said[:, :, kept] / net.unit, added[:, :, kept] / net.unit, continuity)[0]


def load(path: Path) -> tuple[EBM, str]:
    """The network of a checkpoint file, ready to use, and by what its identity is told: none, dlib or arcface.

    Raises UserError where the file is of another kind.
    """
    from cmet_reference.training import checkpoints

    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        net = EBM(Settings(**record["net"]))
        net.load_state_dict(state)
        return net.eval(), record["identity"]


def _mlp(n_in: int, hidden: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, n_out)
    )
