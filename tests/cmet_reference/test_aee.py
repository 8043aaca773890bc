"""AEE: its input features, layers and losses against independent values."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from cmet_reference.cem_net import (
    aee_features,
    aee_losses,
    aee_settings,
    aee_stage,
)
from tests.cmet_reference.cem_net_parts import (
    RNG,
    every_gradient,
    small_aee,
    tone,
)


def octet(settings: aee_settings.AeeNetSettings, pairs: int = 3) -> dict[str, torch.Tensor]:
    torch.manual_seed(1)
    shape = aee_features.window_shape(settings)
    return {
        "corners": torch.randn(pairs, 2, 2, 2, *shape),
        "known": torch.ones(pairs, 2, 2, 2),
        "windows": torch.randn(pairs, 2, 2, *shape),
        "clip": torch.randn(pairs, 2, aee_features.N_PROSODY + 2 * shape[1]),
        "emotion": torch.tensor([[0, 1], [1, 2], [2, 0]])[:pairs],
        "speaker": torch.tensor([[0, 1], [1, 0], [0, 0]])[:pairs],
    }


def test_warp_undoes_a_change_of_tempo():
    tune = RNG.normal(size=(20, 3)).cumsum(axis=0)
    slow = tune[np.repeat(np.arange(20), RNG.integers(1, 4, 20))]
    assert np.allclose(aee_features.warp(slow, tune), tune)
    assert np.allclose(aee_features.warp(tune, slow), slow)
    assert aee_features.warp(tune, RNG.normal(size=(7, 3))).shape == (7, 3)


def test_warp_takes_the_cheapest_path():
    """The total cost of the matches equals that of trying every path on a small case."""
    a, b = RNG.normal(size=(4, 1)), RNG.normal(size=(3, 1))

    def cheapest(i: int, j: int) -> float:
        here = abs(a[i, 0] - b[j, 0])
        before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        return here + min((cheapest(*at) for at in before if min(at) >= 0), default=0.0)

    def costs(i: int, j: int, path: list[tuple[int, int]]) -> list[tuple[float, list[tuple[int, int]]]]:
        path = [(i, j), *path]
        if (i, j) == (0, 0):
            return [(sum(abs(a[x, 0] - b[y, 0]) for x, y in path), path)]
        before = [(i - 1, j), (i, j - 1), (i - 1, j - 1)]
        return [found for at in before if min(at) >= 0 for found in costs(*at, path)]

    total, path = min(costs(3, 2, []))
    assert total == pytest.approx(cheapest(3, 2))
    last = {j: i for i, j in path}
    assert np.array_equal(aee_features.warp(a, b), a[[last[j] for j in range(3)]])


@pytest.mark.parametrize(
    "changes", [{"features": "mfcc"}, {"features": "mel", "pool": 4, "merge": 5, "timeless": True, "manner": True}]
)
def test_aee_shapes_and_gradients(changes):
    net = small_aee(**changes)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.emotion_encoder.modules()) == 8
    assert sum(isinstance(m, torch.nn.Linear) for m in net.emotion_encoder.modules()) == 3
    batch = octet(net.settings)
    made = net.decoder(torch.randn(2, 6 + 5 + 8))
    assert made.shape == (2, *aee_features.window_shape(net.settings))
    total, _ = aee_losses.cross_reconstruction(net, batch, aee_settings.AeeLossWeights())
    pretraining, _ = aee_losses.pretraining(
        net,
        {
            "windows": batch["windows"][:, 0],
            "emotion_windows": batch["windows"][:, 1],
            "clip": batch["clip"][:, 1],
            "sentence": torch.tensor([0, 1, -100]),
        },
        aee_settings.AeeLossWeights(),
    )
    (total + pretraining).backward()
    every_gradient(net)
    predicted = net.emotion(tone(640 * 6))
    assert predicted.shape == (6,) and predicted.dtype == np.float32
    assert net.probabilities(tone(640 * 6)).sum() == pytest.approx(1, abs=1e-5)


def test_prosody_features_measure_loudness_and_pitch():
    """Ten decibels more move the level alone by ten; a glide upwards has a slope, and its mirror the opposite one."""
    soft = tone(16000)
    loud = (soft * 10**0.5).clip(-32768, 32767).astype(np.int16)
    moved = aee_features.prosody_features(loud) - aee_features.prosody_features(soft)
    assert moved[4] == pytest.approx(10, abs=0.5) and abs(moved[0]) < 0.01 and np.isfinite(moved).all()
    glide = 120 * 2 ** (np.arange(16000) / 16000)  # Hz: an octave in a second
    wave = sum(np.sin(k * 2 * np.pi * np.cumsum(glide) / 16000) for k in (1, 2, 3))
    up = (3000 * wave).astype(np.int16)
    assert aee_features.prosody_features(up)[10] == pytest.approx(np.log(2) / 2, rel=0.25)
    assert aee_features.prosody_features(up[::-1].copy())[10] == pytest.approx(-np.log(2) / 2, rel=0.25)
    assert np.isfinite(aee_features.prosody_features(np.zeros(640, np.int16))).all()


def test_aee_begins_as_a_rule():
    """Initialised with a rule, its log odds are those of the rule on the clip features, for any windows."""
    net = small_aee(features="mel", merge=5, manner=True).eval()
    rule = RNG.normal(size=(aee_features.N_PROSODY + 2 * 16 + 1, 3))
    net.init_as_linear_rule(rule)
    wholes = torch.randn(4, len(rule) - 1)
    with torch.no_grad():
        odds = net.to_emotion(net.emotion_embedding(torch.randn(4, 2, 28, 16), wholes))
    assert np.allclose(odds, wholes.numpy() @ rule[:-1] + rule[-1], atol=1e-4)


def test_calibration_is_of_speakers_left_out():
    """Speakers with other class centres make the discriminant less confident; its directions stay."""
    classes, speakers = np.tile([0, 1], 60), np.repeat(["a", "b", "c"], 40)
    x = RNG.normal(size=(120, 3)) + classes[:, None] * np.array([1, 0, 0])
    plain = aee_stage.discriminant(x, classes, 2, 0.1)
    alike = aee_stage.calibrated(x, classes, speakers, 2, 0.1) / plain
    moved = x + 4 * (speakers == "a")[:, None] * np.array([1, 0, 0]) * (1 - 2 * classes[:, None])
    apart = aee_stage.calibrated(moved, classes, speakers, 2, 0.1) / aee_stage.discriminant(moved, classes, 2, 0.1)
    assert np.ptp(alike) < 1e-9 and np.ptp(apart) < 1e-9 and apart.mean() < 0.5 * alike.mean()
    assert 0.5 < alike.mean() <= 2
    alone = aee_stage.calibrated(x, classes, np.full(120, "a"), 2, 0.1)
    assert np.array_equal(alone, plain)
    shown_by_c = np.random.default_rng(1).normal(np.array([0, 9, 0]), size=(10, 3))
    lonely = np.concatenate([x, shown_by_c])
    three, who = np.append(classes, [2] * 10), np.append(speakers, ["c"] * 10)
    factor = aee_stage.calibrated(lonely, three, who, 3, 0.1) / aee_stage.discriminant(lonely, three, 3, 0.1)
    assert factor.mean() == pytest.approx(alike.mean(), rel=0.25)  # 0.05 if it counted
    scores = np.array([[0.0, np.log(3)], [2.0, 2.0]])
    assert aee_stage.cross_entropy(scores, np.array([1, 0])) == pytest.approx((np.log(4 / 3) + np.log(2)) / 2)


def test_each_combination_is_decoded_from_its_own_parts():
    """A decoder that gives back its code shows whose emotion, timbre and content went into which corner."""
    net = small_aee().eval()
    batch = octet(net.settings, 1)
    codes = []
    net.decoder = torch.nn.Module()
    net.decoder.forward = lambda code: codes.append(code) or torch.zeros(len(code), 28, 12)
    aee_losses.cross_reconstruction(net, batch, aee_settings.AeeLossWeights())
    emotion, voice, content = codes[0].split([6, 5, 8], dim=1)
    with torch.no_grad():
        e = [net.encode(net.emotion_encoder, batch["windows"][:, n])[0] for n in (0, 1)]
        t = [net.encode(net.timbre_encoder, batch["windows"][:, n])[0] for n in (0, 1)]
        c = [net.content_encoder(batch["corners"][:, n, n, n])[0] for n in (0, 1)]
    for row, (i, j, k) in enumerate(np.ndindex(2, 2, 2)):
        assert torch.allclose(emotion[row], e[j], atol=1e-5)
        assert torch.allclose(voice[row], t[i], atol=1e-5)
        assert torch.allclose(content[row], c[k], atol=1e-5)


def test_aee_losses_by_hand():
    net = small_aee()
    net.decoder = torch.nn.Module()
    net.decoder.forward = lambda code: torch.zeros(len(code), 28, 12)
    batch = octet(net.settings, 1)
    batch["corners"] = torch.zeros_like(batch["corners"])
    batch["corners"][0, 1, 1, 0] = 2.0  # error 4 in one of the corners
    batch["corners"][0, 1, 0, 0] = 9.0  # not known
    batch["known"][0, 1, 0, 0] = 0
    _, parts = aee_losses.cross_reconstruction(net, batch, aee_settings.AeeLossWeights())
    assert float(parts["reconstruction"]) == pytest.approx(4 / 7, rel=1e-5)
    content = torch.tensor([[[2.0, 0.0], [0.0, 1.0]]])
    twin = torch.tensor([[[0.0, 3.0], [0.0, 1.0]]])  # the first one's twin is far away, the second's is the same
    known = torch.tensor([[1.0, 1.0]])
    # First: near = sqrt 2, far = sqrt 2: margin. Second: near 0, far |(0, 1) - (0, 1)| = 0: margin.
    assert float(aee_losses.content_triplet(content, twin, known, 0.5)) == pytest.approx(0.5, abs=1e-5)
    twin = torch.tensor([[[5.0, 0.0], [0.0, 1.0]]])
    assert float(aee_losses.content_triplet(content, twin, known, 0.5)) == 0.0  # near 0, far sqrt 2
    assert float(aee_losses.content_triplet(content, twin, known, 2.0)) == pytest.approx(2 - 2**0.5, abs=1e-5)
    logits = torch.tensor([[0.0, 0.0], [3.0, 1.0]])
    assert float(aee_losses.classification(logits, torch.tensor([1, -100]))) == pytest.approx(np.log(2))
    assert float(aee_losses.classification(logits, torch.tensor([-100, -100]))) == 0.0


def test_aee_learns_a_batch_by_heart():
    net = small_aee()
    batch = octet(net.settings)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    first = None
    for _ in range(20):
        value, _ = aee_losses.cross_reconstruction(net, batch, aee_settings.AeeLossWeights())
        first = first or float(value.detach())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.75 * first
