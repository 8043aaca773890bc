"""Trains Audio2Mouth, CEM-Net's lip network, on windows of clips, and measures its errors on held-out clips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net import audio2mouth
from cmet_reference.cem_net.audio2mouth import LIPS, POINTS, UPPER, Audio2Mouth
from cmet_reference.cem_net.data import Face, mean_face, outside, prepare
from cmet_reference.clips import ClipArrays
from cmet_reference.training.stage import Optimizer

ALL = [*UPPER, *POINTS]  # the points of a reference: upper face, then jaw, then lips
_INNER = (LIPS.index(13), LIPS.index(14))  # middle points of the inner edges of the upper and the lower lip


@dataclass(frozen=True)
class Audio2MouthSettings:
    """How Audio2Mouth is trained."""

    steps: int
    batch: int = 128  # windows per step (IP-LAP)
    rate: float = 1e-4  # learning rate of Adam (the paper)
    continuity: float = 1.0  # weight of the continuity loss, the paper's lambda
    # The emotion of the training clips, or "all". The references are from the same clip. So the references contain the
    # constant displacement of the clip's emotion, and this displacement cancels. Therefore lips without emotion are
    # learnt from "all" too, which has eight times the data of "neutral".
    emotions: str = "all"
    # Augmentation, for data with few voices: `gain` is a change of loudness in decibels, `bands` a shift of the
    # spectrum by whole mel bands. A shift by one band changes pitch and formants by 4 to 6 %. The paper trains on LRS2
    # without augmentation.
    gain: float = 0.0
    bands: int = 0
    annealed: bool = False  # see training.stage.Optimizer; the paper's learning rate is constant


def augmented_voice(mels: np.ndarray, gain: float, bands: int, rng: np.random.Generator) -> np.ndarray:
    """Changes pitch and loudness of mel spectrogram windows, (..., mel bands, S). All windows get the same change.

    Args:
        gain: greatest change of loudness in decibels; 12.5 dB are one unit of the spectrogram.
        bands: greatest shift in mel bands.
    """
    shift = int(rng.integers(-bands, bands + 1))
    n = mels.shape[-2]
    moved = mels[..., np.clip(np.arange(n) - shift, 0, n - 1), :]
    return np.clip(moved + rng.uniform(-gain, gain) / 12.5, -4, 4).astype(np.float32)


class Audio2MouthStage:
    """Trains Audio2Mouth on windows of T frames. Implements `Stage`.

    The references of a window are random frames of the same clip that are outside of the window.
    """

    name = audio2mouth.KIND

    def __init__(
        self,
        net: audio2mouth.Audio2MouthNetSettings,
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

    def optimizers(self) -> Mapping[str, Optimizer]:
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
            mels = augmented_voice(sound.mel_windows(face.mel, window), settings.gain, settings.bands, rng)
            rest = known[:, POINTS].mean(axis=0)
            rows.append((mels, known[:, ALL], face.head[window][:, UPPER], face.head[window][:, POINTS] - rest))
        return dict(zip(("mels", "references", "upper", "moved"), map(np.stack, zip(*rows, strict=True)), strict=True))

    def loss(self, batch: Mapping[str, Tensor], optimizer: str) -> tuple[Tensor, Mapping[str, Tensor]]:
        """See `audio2mouth.loss`. Displacements are divided by the network's `unit` first."""
        moved = self.net(batch["mels"], batch["references"], batch["upper"])
        return audio2mouth.loss(moved / self.net.unit, batch["moved"] / self.net.unit, self.settings.continuity)

    def held_out(self) -> Mapping[str, float]:
        return mouth_figures(self.net, self.test)

    def record(self) -> Mapping[str, object]:
        return self.net.record()


def opening(points: np.ndarray) -> np.ndarray:
    """The opening of the mouth in each frame, (T,): the distance between the middles of the inner lips.

    Args:
        points: (T, 57, 3), the points `POINTS`.
    """
    lips = points[:, -len(LIPS) :]
    return np.linalg.norm(lips[:, _INNER[0]] - lips[:, _INNER[1]], axis=1)


def mouth_figures(net: Audio2Mouth, faces: Sequence[Face], most: int = 64) -> dict[str, float]:
    """Figures of Audio2Mouth on held-out clips. Without such clips, the result is empty.

    The references are evenly spaced frames of the clip itself.

    - `error`: mean distance of the points of lips and jaw from the truth, in percent of the eye distance.
    - `error_shuffled`: the same error, if the network gets the audio of another clip of the speaker.
    - `error_still`: the same error of a still mouth, namely the mean of the references.
    - `opening_r`: correlation of the mouth's opening with the true opening, mean over clips.
    - `opening_r_shuffled`: the same correlation, if the network gets the audio of another clip.

    Args:
        most: greatest number of clips that are used.
    """
    if not faces:
        return {}
    rows = []
    chosen = [faces[i] for i in np.linspace(0, len(faces) - 1, min(most, len(faces))).round().astype(int)]
    for i, face in enumerate(chosen):
        truth = face.head[:, POINTS]
        known = face.head[np.linspace(0, len(face) - 1, net.settings.references).round().astype(int)]
        others = [f for f in chosen if f.clip.speaker == face.clip.speaker and f.clip.clip_id != face.clip.clip_id]
        other = others[i % len(others)] if others else face
        predicted = net.mouth(face.clip.audio, known, face.head, len(face))
        shuffled = net.mouth(other.clip.audio, known, face.head, len(face))
        still = np.broadcast_to(known[:, POINTS].mean(axis=0), truth.shape)
        error = [100 * float(np.linalg.norm(x - truth, axis=2).mean()) for x in (predicted, shuffled, still)]
        rows.append([*error, _correlation(predicted, truth), _correlation(shuffled, truth)])
    names = ("error", "error_shuffled", "error_still", "opening_r", "opening_r_shuffled")
    return dict(zip(names, np.mean(rows, axis=0).round(5).tolist(), strict=True))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    x, y = opening(a), opening(b)
    return float(np.corrcoef(x, y)[0, 1]) if x.std() > 1e-9 and y.std() > 1e-9 else 0.0
