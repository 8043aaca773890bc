"""Trains `Skin` on pairs of one person's skin in two expressions, on the square of the appearance model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import ClipArrays, by_speaker
from cmet_reference.geometry import fit_pose, to_head
from cmet_reference.render import appearance_stage, skin
from cmet_reference.render.appearance import SIDE, Appearance, frames_around
from cmet_reference.training import checkpoints
from cmet_reference.training.stage import Optimizer
from talking_face.progress import Progress
from talking_face.reasons import UserError

KIND = "skin"


@dataclass(frozen=True)
class SkinSettings:
    """How the network is trained."""

    steps: int = 400
    batch: int = 6
    rate: float = 2.5e-3  # learning rate
    weight_decay: float = 0.01
    annealed: bool = True
    doubt: float = 0.5  # standard deviation of noise on the source's coordinates, in units of theirs
    clips: int = 64  # per speaker
    looks: int = 3  # skins per clip, L
    # Where a speaker's own skin changes by more than this from pixel to pixel (log units: brows, frames of glasses,
    # hair), a displacement by a pixel outweighs any crease: it has less weight, at least `least`.
    edge: float = 0.06
    least: float = 0.08


class Seen(NamedTuple):
    """Skins of N clips, L of each."""

    skins: np.ndarray  # (N, L, 128, 128) float16
    expressions: np.ndarray  # (N, L, K) float32
    speakers: np.ndarray  # (N,)
    weights: Mapping[str, np.ndarray]  # (128, 128) float32 by speaker


def load(path: Path, device: str = "cpu") -> skin.Skin:
    """The network of a checkpoint. Raises UserError where it cannot be used."""
    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        net = skin.Skin(skin.SkinNetSettings(**record["settings"]), record["axes"])
        net.load_state_dict(state)
    return net.eval().to(device)


def corrected(appearance: Path, path: Path) -> Appearance:
    """A fitted `Appearance` with a trained correction. Raises UserError where a file cannot be used."""
    return appearance_stage.load(appearance, load(path), f"-{KIND}-{checkpoints.revision(path)}")


class SkinStage:
    """Trains the correction on pairs of skins of one person. Implements `Stage`."""

    name = KIND

    def __init__(
        self,
        net: skin.SkinNetSettings,
        settings: SkinSettings,
        appearance: Appearance,
        train: Sequence[ClipArrays],
        test: Sequence[ClipArrays],
        seed: int,
        quiet: bool = True,
    ) -> None:
        """`appearance`: has the square, the coordinates and the mean creases.

        Raises UserError where no speaker has two clips with a face.
        """
        self.settings, self.seed, self.steps, self.appearance = settings, seed, settings.steps, appearance
        draw = np.random.default_rng(seed)
        self.train = read_skins(train, appearance, settings, draw, quiet)
        self.test = read_skins(test, appearance, settings, draw, quiet)
        self.others = _others(self.train.speakers)
        if not self.others:
            raise UserError("the skin is learnt from two clips of one speaker, and no speaker of these shards has two")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.net = skin.Skin(net, len(appearance.axes))
        z, who = self.train.expressions, self.train.speakers
        own = np.concatenate([z[who == name] - z[who == name].mean(axis=(0, 1)) for name in sorted(set(who.tolist()))])
        self.net.middle.copy_(torch.from_numpy(z.mean(axis=(0, 1))))
        self.net.spread.copy_(torch.from_numpy(z.std(axis=(0, 1)) + np.float32(1e-3)))
        self.net.apart.copy_(torch.from_numpy(np.sqrt(2) * own.std(axis=(0, 1)) + 1e-3))
        self.net.face.copy_(torch.from_numpy(appearance.square.image(appearance.square.edge)))

    def optimizers(self) -> Mapping[str, Optimizer]:
        s = self.settings
        return {"net": Optimizer(list(self.net.parameters()), s.rate, s.weight_decay, annealed=s.annealed)}

    def batch(self, step: int) -> Mapping[str, np.ndarray]:
        draw = np.random.default_rng((self.seed, step))
        out = pairs(self.train, self.others, self.appearance, self.settings.batch, draw)
        doubt = self.settings.doubt * draw.standard_normal(out["source"].shape)
        return {**out, "doubt": doubt.astype(np.float32)}

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        predicted = self.net(batch["skin"], batch["creases"], batch["source"], batch["target"], batch["doubt"])
        return skin.loss(predicted, batch["change"], batch["weight"])

    @torch.no_grad()
    def held_out(self) -> Mapping[str, float]:
        """The explained share of the squared change of held-out speakers' skin, in total and of its fine part.

        `_alike`: explained by the mean creases alone.
        """
        others = _others(self.test.speakers)
        if not others:
            return {}
        drawn = pairs(self.test, others, self.appearance, 96, np.random.default_rng(self.seed))
        given = {name: torch.from_numpy(x).to(self.net.face.device) for name, x in drawn.items()}
        predicted = self.net(given["skin"], given["creases"], given["source"], given["target"])
        change, weight, out = given["change"], given["weight"], {}
        for name, part in (("explained", lambda x: x), ("explained_fine", skin.fine)):
            whole = (weight * part(change) ** 2).sum().clamp(min=1e-12)
            for which, guess in (("", predicted), ("_alike", given["creases"])):
                out[name + which] = 1 - float((weight * (part(guess) - part(change)) ** 2).sum() / whole)
        return out

    def record(self) -> Mapping[str, object]:
        return {"settings": asdict(self.net.settings), "axes": len(self.net.middle)}


def pairs(
    seen: Seen, others: Mapping[int, np.ndarray], appearance: Appearance, n: int, draw: np.random.Generator
) -> dict[str, np.ndarray]:
    """`n` random pairs of skins of one person: `skin`, `creases`, `change` and `weight` (n, 128, 128), `source` and
    `target` (n, K). A pair may be of one clip, with little change.
    """
    a = draw.choice(np.array(list(others)), n)
    b = np.array([draw.choice(others[int(i)]) for i in a])
    k, m = draw.integers(seen.skins.shape[1], size=(2, n))
    before, after = seen.skins[a, k].astype(np.float32), seen.skins[b, m].astype(np.float32)
    weight = np.stack([seen.weights[str(seen.speakers[i])] for i in a])
    source, target = seen.expressions[a, k], seen.expressions[b, m]
    creases = appearance.ratio(target - source)
    images = {"skin": before, "creases": creases, "change": after - before, "weight": weight}
    return {**images, "source": source, "target": target}


def _others(speakers: np.ndarray) -> dict[int, np.ndarray]:
    """From a clip's index to those of all clips of its speaker, itself included; without speakers of one clip."""
    of = {speaker: np.flatnonzero(speakers == speaker) for speaker in sorted(set(speakers.tolist()))}
    return {int(i): own for own in of.values() if len(own) > 1 for i in own}


def read_skins(
    clips: Sequence[ClipArrays],
    appearance: Appearance,
    settings: SkinSettings,
    draw: np.random.Generator,
    quiet: bool = True,
) -> Seen:
    """The skins of clips at the middles of equal parts of their frames with a face.

    Of a speaker with more than `settings.clips` clips, that many are drawn.
    """
    of = by_speaker(clips)
    square, opened = appearance.square, cache(ShardSet)
    skins, expressions, speakers, weights = [], [], [], {}
    total = sum(min(settings.clips, len(own)) for own in of.values())
    with Progress(total, "clips", "skin", quiet) as progress:
        for speaker, own in of.items():
            if len(own) > settings.clips:
                own = [own[i] for i in sorted(draw.choice(len(own), settings.clips, replace=False))]
            mine = []
            for clip in own:
                progress.advance()
                shards = opened(clip.folder)
                valid = np.flatnonzero(shards.valid(clip.clip_id)[: len(clip)])
                if not len(valid):
                    continue
                at = valid[((np.arange(settings.looks) + 0.5) * len(valid) / settings.looks).astype(int)]
                head = to_head(clip.landmarks, fit_pose(clip.landmarks, appearance.template))
                near = np.stack([frames_around(t, len(clip)) for t in at])
                frames = shards.frames(clip.clip_id, near.ravel().tolist())
                parts = zip(np.split(frames, len(near)), near, strict=True)
                mine.append([appearance.mean_skin(pictures, clip.landmarks[t]) for pictures, t in parts])
                expressions.append(appearance.expression(head)[at])
                speakers.append(speaker)
            if mine:
                flat = appearance_stage.smooth_skin(
                    np.asarray(np.mean(mine, axis=(0, 1), dtype=np.float32)), settings.edge
                )
                weights[speaker] = square.image(square.edge) * np.maximum(flat, settings.least)
                skins.append(np.array(mine, np.float16))
    shape = (0, settings.looks, SIDE, SIDE)
    return Seen(
        np.concatenate(skins) if skins else np.zeros(shape, np.float16),
        np.array(expressions, np.float32).reshape(-1, settings.looks, len(appearance.axes)),
        np.array(speakers),
        weights,
    )
