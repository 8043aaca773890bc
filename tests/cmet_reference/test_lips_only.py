"""Lips from sound without emotion: what of the source video reaches the face."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from cmet_reference.cem_net.audio2mouth import UPPER, Audio2Mouth, Audio2MouthNetSettings
from cmet_reference.cem_net.lips_only import LipsOnlyFace
from cmet_reference.geometry import RIGID, template_of
from cmet_reference.training import checkpoints
from tests.cmet_reference.test_flow import track


def test_lips_only_reads_the_lower_face_of_the_source_nowhere(tmp_path: Path) -> None:
    """Any motion of the source's mouth gives the same lips; the upper face follows the source."""
    rng = np.random.default_rng(0)
    torch.manual_seed(0)
    template = template_of(track(5))
    net = Audio2Mouth(Audio2MouthNetSettings(width=16, heads=2, layers=1, feed_forward=16), template, 0.1)
    path = tmp_path / "audio2mouth.safetensors"
    checkpoints.save(path, net.state_dict(), net.record(), {"trained_on": {"clips": []}})
    face, source = LipsOnlyFace(path), track(8)
    chewed = source.copy()
    lower = sorted(set(range(478)) - set(UPPER) - set(RIGID))
    chewed[:, lower] += rng.normal(0, 3, (8, len(lower), 3)).astype(np.float32)
    sound = rng.normal(0, 3000, 8 * 640).astype(np.int16)
    first, second = (face.landmarks(sound, track(5), points, 8) for points in (source, chewed))
    assert np.abs(first - second).max() < 1e-3
    assert np.abs(first - source)[:, UPPER].max() < 0.01  # px
