"""Trains the network `Skin`, which corrects creases, on pairs of skins of one person in two expressions.

A skin is the logarithm of the brightness of a face, on the square onto which the appearance model aligns all faces.
"""

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
    annealed: bool = True  # see training.stage.Optimizer
    doubt: float = 0.5  # standard deviation of noise on the source's coordinates, relative to that of the coordinates
    clips: int = 64  # greatest number of clips per speaker
    looks: int = 3  # L, skins per clip
    # Change of brightness from pixel to pixel, in log units, above which a pixel of a speaker gets little weight, but
    # at least `least`. Such pixels are at brows, frames of glasses and hair. At these pixels, a shift by one pixel
    # changes the brightness more than any crease.
    edge: float = 0.06
    least: float = 0.08


class Seen(NamedTuple):
    """The skins of N clips, L skins per clip."""

    skins: np.ndarray  # (N, L, 128, 128) float16, log brightness
    expressions: np.ndarray  # (N, L, K) float32, coordinates of the expression; see Appearance.expression
    speakers: np.ndarray  # (N,), the speaker of each clip
    weights: Mapping[str, np.ndarray]  # (128, 128) float32 by speaker, the weight of each pixel in the loss


def load(path: Path, device: str = "cpu") -> skin.Skin:
    """The network of a checkpoint file, in evaluation mode. Raises UserError if the file cannot be used."""
    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        net = skin.Skin(skin.SkinNetSettings(**record["settings"]), record["axes"])
        net.load_state_dict(state)
    return net.eval().to(device)


def corrected(appearance: Path, path: Path) -> Appearance:
    """The appearance model of a checkpoint, with the trained correction of another checkpoint.

    Args:
        appearance: the checkpoint of the appearance model.
        path: the checkpoint of the correction.

    Raises:
        UserError: a file cannot be used.
    """
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
        """`appearance`: the fitted appearance model, which gives the square, the coordinates and the mean creases.

        Raises UserError if no speaker has two clips with a face.
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
        """The share of the squared change of held-out speakers' skin that the network explains.

        `explained` is the share for the whole change, and `explained_fine` is the share for its fine part (see
        `skin.fine`). Figures whose names contain `_alike` are the shares that the mean creases explain without the
        network.
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
    """Draws `n` random pairs of skins, each of one person.

    The two skins of a pair can be from the same clip; then the difference of the two skins is small.

    Returns:
        `skin`, the first skin; `creases`, the mean creases for the change of expression; `change`, the true difference
        of the skins; `weight`, the weight of each pixel: (n, 128, 128) each. `source` and `target`, the coordinates of
        both expressions: (n, K) each.
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
    """For the index of each clip, the indices of all clips of its speaker, including the clip itself.

    Clips of speakers with only one clip are left out.
    """
    of = {speaker: np.flatnonzero(speakers == speaker) for speaker in sorted(set(speakers.tolist()))}
    return {int(i): own for own in of.values() if len(own) > 1 for i in own}


def read_skins(
    clips: Sequence[ClipArrays],
    appearance: Appearance,
    settings: SkinSettings,
    draw: np.random.Generator,
    quiet: bool = True,
) -> Seen:
    """Reads the skins of clips.

    The frames of a clip with a face are divided into L equal parts, and the skin is read at the middle of each part. If
    a speaker has more than `settings.clips` clips, this number of clips is drawn at random.
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
