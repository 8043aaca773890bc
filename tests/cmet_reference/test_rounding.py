"""Features that enter a training are rounded, so that last bits of their computation do not reach the training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from cmet_reference.cem_net import audio, data
from cmet_reference.clips import ClipArrays
from cmet_reference.cmet import train
from cmet_reference.evaluators import data as evaluators
from cmet_reference.geometry import mean_face
from cmet_reference.training.rounding import STEP, rounded
from cmet_reference.voice import Prosody
from talking_face.pretrained import evaluator_networks

RNG = np.random.default_rng(0)
SOUND = np.cumsum(RNG.integers(-900, 901, 640 * 30)).clip(-20000, 20000).astype(np.int16)
LANDMARKS = RNG.uniform(40, 210, (478, 3)).astype(np.float32) + RNG.normal(0, 1, (30, 478, 3)).astype(np.float32)
CLIP = ClipArrays(Path(), "m/A/1", "m", "A", "happy", 3, "s1", LANDMARKS, np.full((30, 52), 0.1, np.float32), SOUND)


def one_ulp(monkeypatch: pytest.MonkeyPatch) -> None:
    """From here on, numpy's Fourier transforms and logarithms differ in the last bit, as on another processor."""
    transform, logarithm = np.fft.rfft, np.log10

    def other_transform(*how: object, **named: object) -> np.ndarray:
        return transform(*how, **named) * (1 + 2.0**-52)  # type: ignore[arg-type]

    monkeypatch.setattr(np.fft, "rfft", other_transform)
    monkeypatch.setattr(np, "log10", lambda x: np.nextafter(logarithm(x), np.inf))


def features() -> dict[str, np.ndarray]:
    (face,) = data.prepare([CLIP], mean_face([LANDMARKS]))
    return {
        "head": face.head,
        "mel": face.mel,
        "cepstra": face.cepstra,
        "prosody": train.vectors_of([CLIP], Prosody()),
        "lip-sync cepstra": evaluators.rounded(evaluator_networks.cepstra(SOUND)),
    }


def test_one_ulp_in_transforms_and_logarithms_gives_the_same_features(monkeypatch: pytest.MonkeyPatch) -> None:
    before, plain = features(), audio.mel(SOUND)
    one_ulp(monkeypatch)
    for name, values in features().items():
        assert values.tobytes() == before[name].tobytes(), name
    assert np.abs(plain - audio.mel(SOUND)).max() < STEP / 100


def test_rounding_is_finer_than_what_features_say_and_coarser_than_their_last_bit() -> None:
    values = RNG.normal(0, 2, 100_000)
    assert np.abs(rounded(values) - values).max() <= STEP / 2 + 1e-7
    assert rounded(values).dtype == np.float32 and (rounded(rounded(values)) == rounded(values)).all()
    nudged = np.nextafter(values, np.inf)
    assert rounded(nudged).tobytes() == rounded(values).tobytes()
    moved = (rounded(np.nextafter(values.astype(np.float32), np.inf, dtype=np.float32)) != rounded(values)).mean()
    assert moved < 5e-3  # a difference in the last bit of float32 remains in few values
