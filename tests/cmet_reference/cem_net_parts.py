"""Small networks, settings and clips for the tests of CEM-Net."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from cmet_reference.cem_net import (
    aee,
    aee_settings,
    audio2mouth,
    ebm,
)
from cmet_reference.cem_net.audio2mouth import Audio2Mouth
from cmet_reference.clips import ClipArrays

RNG = np.random.default_rng(5)


def tone(samples: int = 8000) -> np.ndarray:
    """(N,) int16: 220 Hz and a rising whistle."""
    t = np.arange(samples) / 16000
    return (8000 * np.sin(2 * np.pi * 220 * t) + 2000 * np.sin(2 * np.pi * 3000 * t * t)).astype(np.int16)


def small(**changes) -> Audio2Mouth:
    settings = audio2mouth.Audio2MouthNetSettings(
        **{"width": 16, "layers": 1, "heads": 2, "feed_forward": 16, **changes}
    )
    torch.manual_seed(0)
    return Audio2Mouth(settings, RNG.normal(0, 0.5, (478, 3)).astype(np.float32), 0.02)


def every_gradient(net: torch.nn.Module) -> None:
    for name, p in net.named_parameters():
        assert p.grad is not None and torch.isfinite(p.grad).all(), name
        assert p.grad.abs().sum() > 0, name


LABELS = aee_settings.Labels(("neutral", "happy", "sad"), ("a", "b"), ("s1", "s2"))
AEE_SMALL = {"width": 4, "hidden": 16, "content": 8, "emotion": 6, "timbre": 5}


def small_aee(**changes) -> aee.AEE:
    torch.manual_seed(0)
    return aee.AEE(aee_settings.AeeNetSettings(**{**AEE_SMALL, **changes}), LABELS)


def small_ebm(**changes) -> ebm.EBM:
    torch.manual_seed(0)
    given = {
        "slots": 6,
        "width": 8,
        "hidden": 16,
        "audio_emotion": 5,
        "picture_emotion": 4,
        "identity": 3,
        "emotions": 3,
    }
    return ebm.EBM(ebm.EbmNetSettings(**{**given, **changes}))


def faces(clips: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(2)
    return {
        "rest": torch.randn(clips, 478, 3),
        "blendshapes": torch.rand(clips, 52),
        "lips": torch.randn(clips, 5, 57, 3),
        "truth": torch.randn(clips, 5, 478, 3),
        "audio_emotion": torch.randn(clips, 5),
        "identity": torch.randn(clips, 3),
        "source": torch.tensor([0, 2, -100])[:clips],
    }


def clips_of(speakers: str = "ab", frames: int = 16) -> list[ClipArrays]:
    """Small clips with random faces and sound: two speakers, two emotions, two sentences."""
    rng = np.random.default_rng(3)
    mean = rng.normal(0, 60, (478, 3))
    mean[[33, 263]] = [[-50, 0, 0], [50, 0, 0]]
    out = []
    for speaker in speakers:
        own = mean + rng.normal(0, 2, (478, 3))
        for emotion in ("neutral", "happy"):
            for sentence in ("s1", "s2"):
                out.append(
                    ClipArrays(
                        Path(),
                        f"{speaker}/{emotion}/{sentence}",
                        "test",
                        speaker,
                        emotion,
                        1,
                        sentence,
                        (own + 128 + rng.normal(0, 1, (frames, 478, 3))).astype(np.float32),
                        np.zeros((frames, 52), np.float32),
                        rng.integers(-3000, 3000, 640 * frames).astype(np.int16),
                    )
                )
    return out


def few_steps(stage: Any, seed: int, rate: float = 1e-3) -> None:
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(stage.optimizers()["net"].parameters, rate)
    for step in range(stage.steps):
        given = {k: torch.from_numpy(v) for k, v in stage.batch(step).items()}
        optimizer.zero_grad()
        stage.loss(given, "net")[0].backward()
        optimizer.step()
