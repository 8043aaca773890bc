"""CEM-Net: sound, Audio2Mouth, AEE and EBM against independent values; each learns a batch by heart."""

from __future__ import annotations

import re
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cmet_pipelines.shards import CARD
from cmet_reference.cem_net import (
    ablation,
    aee,
    aee_features,
    aee_losses,
    aee_settings,
    aee_stage,
    audio2mouth,
    audio2mouth_stage,
    classifier,
    ebm,
    ebm_stage,
    train,
)
from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net.audio2mouth import JAW, LIPS, POINTS, UPPER, Audio2Mouth
from cmet_reference.cem_net.data import mean_face
from cmet_reference.cem_net.generate import CemNetFace
from cmet_reference.cem_net.label_lookup import LabelLookupFace
from cmet_reference.clips import ClipArrays
from cmet_reference.training import checkpoints, config
from cmet_reference.training.options import TrainOptions
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import ClipError, UserError
from talking_face.sealed import read_sealed_json, write_sealed_json
from tests.cmet_eval.conftest import make_record, write_shard_set
from tests.cmet_reference.test_training import Line
from tests.models import models

RNG = np.random.default_rng(5)
MEL = [
    [-0.802481, -0.529715, -4.0, -0.732359],
    [0.152344, -0.218428, -0.874745, 0.123826],
    [-2.078859, -2.557915, -2.325611, -1.421392],
    [-2.854122, -3.332582, -4.0, -2.240653],
]


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


# -- sound -------------------------------------------------------------------------------------------------------------


def test_mel_equals_librosa():
    """Numbers of librosa 0.11.0: stft(n_fft=800, hop_length=200, win_length=800) of the signal after
    scipy.signal.lfilter([1, -0.97], [1], x), filters.mel(sr=16000, n_fft=800, n_mels=80, fmin=55, fmax=7600)."""
    spectrogram = sound.mel(tone())
    assert spectrogram.shape == (80, 41) and spectrogram.dtype == np.float32
    assert np.allclose(spectrogram[np.ix_([0, 5, 40, 79], [0, 1, 20, 40])], MEL, atol=2e-6)
    # Equal in every bit. With filters in float64, these values are one unit in the last place larger.
    exact = np.float32([-0.39896395802497864, -0.8746944665908813, -0.8747020363807678, -0.8747661709785461])
    assert spectrogram[5, [5, 14, 15, 38]].tolist() == exact.tolist()
    assert (sound.mel(np.zeros(1000, np.int16)) == -4).all()
    with pytest.raises(ValueError, match="int16"):
        sound.mel(tone().astype(np.float32))


def test_mel_windows_are_ip_laps():
    spectrogram = np.arange(80)[None].repeat(80, axis=0).astype(np.float32)  # a column's value is its number
    frames = np.arange(2, 15)
    starts = [int(80.0 * ((i - 2) / float(25))) for i in frames]
    windows = sound.mel_windows(spectrogram, frames)
    assert windows.shape == (13, 80, 16) and windows[:, 3, 0].tolist() == starts
    assert sound.mel_windows(spectrogram, np.array([0]))[0, 0].tolist() == [0] * 7 + list(range(1, 10))
    assert sound.mel_windows(spectrogram, np.array([400]))[0, 0].tolist() == [79] * 16
    many = np.arange(2, 5000)
    assert (np.trunc(80 * (many - 2) / 25) == [int(80.0 * ((i - 2) / float(25))) for i in many]).all()


def test_cepstra_are_evps():
    features = pytest.importorskip("python_speech_features")
    audio = tone(640 * 13)
    ours = sound.cepstra(audio)
    theirs = features.mfcc(np.pad(audio / 32768, 1920), 16000, winstep=0.01)  # EVP reads sound as floats
    assert ours.shape == (4 * 13 + 23, 12)
    loud = slice(12, -14)  # without the digital silence, whose logarithm is the smallest float's
    assert np.allclose(ours[loud], theirs[loud, 1:], atol=1e-4)
    windows = sound.cepstrum_windows(ours, np.arange(13))
    assert windows.shape == (13, 28, 12)
    assert (windows[5] == ours[20:48]).all()


# -- Audio2Mouth -------------------------------------------------------------------------------------------------------


def test_points_are_ip_laps():
    assert (len(JAW), len(LIPS), len(UPPER)) == (17, 40, 74)
    assert len(set(POINTS + UPPER)) == 131


@pytest.mark.parametrize("read", ["pose", "ip-lap"])
def test_audio2mouth_shapes_and_gradients(read):
    net = small(read=read)
    out = net(torch.randn(3, 5, 80, 16), torch.randn(3, 5, 131, 3), torch.randn(3, 5, 74, 3))
    assert out.shape == (3, 5, 57, 3)
    out.square().sum().backward()
    every_gradient(net)


def test_which_tokens_the_mouth_is_read_from():
    """Without fusion layers a token knows only itself: the sound reaches the lips in IP-LAP's reading alone."""
    given = torch.randn(2, 5, 80, 16), torch.randn(2, 5, 131, 3), torch.randn(2, 5, 74, 3)
    for read, sound_matters in (("pose", False), ("ip-lap", True)):
        net = small(read=read)
        net.fusion = torch.nn.Identity()
        net.eval()
        moved = (net(*given) - net(given[0] + 1, *given[1:])).abs().amax(dim=(0, 1, 3))
        assert (moved[: len(JAW)] == 0).all()
        assert bool((moved[len(JAW) :] > 0).all()) is sound_matters


def test_audio2mouth_of_the_paper():
    """Layers counted: 13 convolutions of sound; as many parameters as the sum below."""
    net = Audio2Mouth(audio2mouth.Audio2MouthNetSettings())
    assert sum(isinstance(m, torch.nn.Conv2d) for m in net.modules()) == 13
    widths = [1, 32, 32, 32, 64, 64, 64, 128, 128, 128, 256, 256, 512]
    mel = sum(a * b * 9 + 3 * b for a, b in pairwise(widths)) + 512 * 512 + 3 * 512
    assert sum(p.numel() for p in net.mel_encoder.parameters()) == mel
    layer = 4 * 512 * 512 + 4 * 512 + 2 * 512 * 1024 + 1024 + 512 + 4 * 512
    assert sum(p.numel() for p in net.fusion.parameters()) == 4 * layer


def test_mouth_loss_by_hand():
    truth = torch.zeros(1, 3, 2, 3)
    predicted = torch.zeros(1, 3, 2, 3)
    predicted[0, 1, 0] = torch.tensor([3.0, 4.0, 0.0])  # one point leaves and comes back
    total, parts = audio2mouth.loss(predicted, truth, weight=0.5)
    assert float(parts["l1"]) == pytest.approx(7 / 18)
    assert float(parts["continuity"]) == pytest.approx(5.0, abs=1e-5)  # 5 there, 5 back
    assert float(total) == pytest.approx(7 / 18 + 2.5, abs=1e-5)


def test_audio2mouth_learns_a_batch_by_heart():
    net = small(dropout=0.0)
    given = torch.randn(2, 5, 80, 16), net.template[list(UPPER + POINTS)].expand(2, 5, -1, -1), torch.randn(2, 5, 74, 3)
    truth = 0.02 * torch.randn(2, 5, 57, 3)
    optimizer = torch.optim.Adam(net.parameters(), 1e-2)
    for step in range(30):
        value, _ = audio2mouth.loss(net(*given) / net.unit, truth / net.unit, weight=0.1)
        if step == 0:
            first = float(value.detach())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.7 * first


def test_mouth_of_a_clip(tmp_path: Path):
    net = small()
    references = (net.template.numpy() + RNG.normal(0, 0.01, (9, 478, 3))).astype(np.float32)
    predicted = net.mouth(tone(640 * 12), references, references, 12)
    assert predicted.shape == (12, 57, 3) and predicted.dtype == np.float32 and np.isfinite(predicted).all()
    assert np.array_equal(predicted, net.mouth(tone(640 * 12), references, references, 12))
    # Short audio is followed by silence; the frames of both agree until 0.1 s before the silence.
    longer = net.mouth(np.pad(tone(640 * 12), (0, 6400)), references, references, 12)
    assert np.allclose(predicted, longer, atol=1e-6)
    checkpoints.save(tmp_path / "audio2mouth.safetensors", net.state_dict(), net.record())
    again = audio2mouth.load(tmp_path / "audio2mouth.safetensors")
    assert np.array_equal(predicted, again.mouth(tone(640 * 12), references, references, 12))


# -- AEE ---------------------------------------------------------------------------------------------------------------

LABELS = aee_settings.Labels(("neutral", "happy", "sad"), ("a", "b"), ("s1", "s2"))
AEE_SMALL = {"width": 4, "hidden": 16, "content": 8, "emotion": 6, "timbre": 5}


def small_aee(**changes) -> aee.AEE:
    torch.manual_seed(0)
    return aee.AEE(aee_settings.AeeNetSettings(**{**AEE_SMALL, **changes}), LABELS)


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


# -- EBM ---------------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("region", ["whole-face", "lower-half"])
def test_ebm_shapes_and_gradients(region):
    net, batch = small_ebm(region=region), faces()
    made = net(batch["rest"], batch["lips"], batch["blendshapes"], batch["audio_emotion"], batch["identity"])
    assert made.shape == (3, 5, 478, 3)
    total, parts = ebm.loss(net, batch, ebm.EbmLossWeights())
    assert set(parts) == {"landmarks", "reconstruction", "alignment", "picture"}
    total.backward()
    every_gradient(net)


# The paper's parts by the names of the layers: f_dlip's encoder, f_e's layers, M_v, M_k, the landmark decoder.
ENCODER, QUERY, VALUES, KEYS, DECODER = (
    {"added"},
    {"lips", "feeling", "seen", "who", "key"},
    {"values"},
    {"keys"},
    {"decoder"},
)


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("landmarks", QUERY | KEYS | VALUES | DECODER),  # L_a2m of the keys' reading, eq. 11 and 13
        ("reconstruction", ENCODER | VALUES),  # eq. 8 to 10
        ("alignment", ENCODER | VALUES | QUERY | KEYS),  # eq. 12
        ("picture", {"picture", "to_emotion"}),  # the frozen extractor of the source's emotion: no other loss trains it
    ],
)
def test_each_loss_trains_the_parts_of_its_equations_and_no_others(name, reached):
    net, batch = small_ebm(), faces()
    ebm.loss(net, batch, ebm.EbmLossWeights())[1][name].backward()
    trained = {n for n, p in net.named_parameters() if p.grad is not None and p.grad.abs().sum() > 0}
    assert trained == {n for n, _ in net.named_parameters() if n.split(".")[0] in reached}


def test_losses_of_the_paper_by_hand():
    """Equations 8 to 13 of one frame, in numpy, from the network's encodings."""
    net, batch = small_ebm(region="whole-face"), {k: v[:1] for k, v in faces().items()}
    with torch.no_grad():
        _, parts = ebm.loss(net, batch, ebm.EbmLossWeights(continuity=0.0))
        base = net.base(batch["rest"], batch["lips"])
        code = net.encode(batch["truth"] - base)[0].numpy()
        picture = net.picture_emotion(batch["blendshapes"])
        query = net.query(batch["lips"], batch["audio_emotion"], picture, batch["identity"])[0].numpy()
    keys, values = net.keys.detach().numpy(), net.values.detach().numpy()

    def shares(of: np.ndarray, memory: np.ndarray) -> np.ndarray:
        near = of @ memory.T / np.outer(np.linalg.norm(of, axis=1), np.linalg.norm(memory, axis=1))
        e = np.exp(near / net.settings.temperature)
        return e / e.sum(axis=1, keepdims=True)

    of_values, of_keys = shares(code, values), shares(query, keys)
    assert float(parts["reconstruction"]) == pytest.approx(((code - of_values @ values) ** 2).sum(1).mean(), rel=1e-4)
    divergence = (of_keys * np.log(of_keys / of_values)).sum(1).mean()
    assert float(parts["alignment"]) == pytest.approx(divergence, rel=1e-4)
    with torch.no_grad():
        read = torch.from_numpy(of_keys @ values)[None]
        drawn = net.decoder(torch.cat([read, batch["lips"].flatten(2)], dim=2)).unflatten(2, (-1, 3))
        face = net(batch["rest"], batch["lips"], batch["blendshapes"], batch["audio_emotion"], batch["identity"])
    assert float(parts["landmarks"]) == pytest.approx(float((base + drawn - batch["truth"]).abs().mean()), rel=1e-4)
    assert torch.allclose(face, base + drawn, atol=1e-5)  # inference decodes what training decodes


def test_the_default_settings_have_no_part_of_ours():
    """Random slots of the seed, no table, no map to other points, the source's expression as it is."""
    net, batch = small_ebm(), faces()
    assert net.table is None and torch.equal(net.values, small_ebm().values)
    lips, rest, base = list(POINTS), batch["rest"][:, None], net.base(batch["rest"], batch["lips"])
    assert torch.equal(base[:, :, lips], rest[:, :, lips] + batch["lips"])
    assert (base != rest).any(dim=3).sum() == 3 * 5 * len(lips)
    shares = torch.rand(3).softmax(dim=0)
    assert net.decided_embedding(vector := torch.randn(5), shares) is vector
    assert torch.equal(net.start(batch["rest"], batch["lips"], None), net.base(batch["rest"], batch["lips"]))
    assert (net.change_share() == 1).all() and net.settings.strength == 1


def test_a_memory_without_a_table_starts_from_the_seed():
    """The stage with the paper's settings starts with the slots of its seed, whatever the clips show."""
    stage = ebm_stage.EbmStage(
        ebm.EbmNetSettings(slots=4, width=8, hidden=8, picture_emotion=4),
        ebm_stage.EbmSettings(2, batch=2),
        ebm.EbmLossWeights(),
        ebm_stage.FixedNetworks(small().eval(), None, files=models()),
        clips_of(),
        [],
        seed=3,
    )
    torch.manual_seed(3)
    fresh = ebm.EBM(stage.net.settings)
    assert all(torch.equal(a, b) for a, b in zip(stage.net.parameters(), fresh.parameters(), strict=True))


def test_ebm_without_parts_of_its_key():
    """A memory trained without AEE, pictures or identity has no weights for them and asks for none."""
    net, batch = small_ebm(audio_emotion=0, picture_emotion=0, identity=0), faces()
    total, parts = ebm.loss(net, {k: batch[k] for k in ("rest", "lips", "truth", "source")}, ebm.EbmLossWeights())
    assert set(parts) == {"landmarks", "reconstruction", "alignment"} and torch.isfinite(total)
    assert net(batch["rest"], batch["lips"]).shape == (3, 5, 478, 3)


def test_only_the_region_moves():
    net, batch = small_ebm(region="lower-half"), faces()
    net.moves[:200] = 0
    added = net(
        batch["rest"], batch["lips"], batch["blendshapes"], batch["audio_emotion"], batch["identity"]
    ) - net.base(batch["rest"], batch["lips"])
    assert (added[:, :, :200] == 0).all() and (added[:, :, 200:] != 0).any()


def test_addresses_and_alignment_by_hand():
    net = small_ebm(width=2, slots=2, temperature=0.5)
    memory = torch.tensor([[3.0, 0.0], [0.0, 0.1]])  # length does not count
    weights = net.address(torch.tensor([[[7.0, 0.0]]]), memory).exp()
    assert torch.allclose(weights[0, 0], torch.tensor([np.e**2, 1.0]).float() / (np.e**2 + 1))
    p, q = torch.tensor([[0.75, 0.25]]), torch.tensor([[0.5, 0.5]])
    divergence = 0.75 * np.log(1.5) + 0.25 * np.log(0.5)
    assert float(ebm.alignment(p.log(), q.log())) == pytest.approx(divergence, rel=1e-5)
    assert float(ebm.alignment(q.log(), p.log())) != pytest.approx(divergence, rel=1e-2)  # from keys to values


def table(**changes) -> ebm.EBM:
    """A memory that begins as a table of three emotions."""
    given = {"hidden": 64, "width": 16, "identity": 0, "region": "whole-face", "table": True}
    net = small_ebm(**given, **changes).eval()
    torch.manual_seed(4)
    net.centres.copy_(torch.randn(3, 5))
    net.shown.copy_(torch.randn(3, 1434))
    ebm.init_as_table(net)
    return net


def test_a_memory_begins_as_a_table():
    net, batch = table(), faces()
    for k in range(3):
        embedding = net.centres[k].expand(3, -1)
        with torch.no_grad():
            added = net(batch["rest"], 0 * batch["lips"], 0 * batch["blendshapes"], embedding)[0, 0] - batch["rest"][0]
        near = [float(torch.cosine_similarity(added.flatten(), row, dim=0)) for row in net.shown]
        assert int(np.argmax(near)) == k and near[k] > 0.8


def test_an_emotion_is_decided():
    net = table(decision=0.0)
    vector, shares = torch.randn(5), torch.tensor([0.5, 0.3, 0.2])
    assert net.decided_embedding(vector, shares) is vector
    expected = {1.0: shares, 2.0: torch.tensor([25.0, 9.0, 4.0]) / 38, 100.0: torch.tensor([1.0, 0.0, 0.0])}
    for power, weights in expected.items():
        net.settings = replace(net.settings, decision=power)
        assert torch.allclose(net.decided_embedding(vector, shares), weights @ net.centres, atol=1e-5)


def test_the_source_s_emotion_is_taken_away_and_the_mouth_moves_less():
    net, batch = table(neutral=True, mouth=0.25, strength=2.0), faces()
    net.expression[0] = net.shown[1] / 3  # the first blendshape shows the second emotion
    shapes = torch.zeros(3, 52)
    shapes[:, 0] = 3
    base, start = net.base(batch["rest"], batch["lips"]), net.start(batch["rest"], batch["lips"], shapes)
    assert torch.allclose((base - start)[:, 0].flatten(1), net.shown[1].expand(3, -1), atol=1e-5)
    net.template[:, 1] = torch.linspace(-1, 1, 478)
    net.template[list(ebm.NOSE), 1] = torch.tensor([0.0, 0.5])
    kept = net.change_share()
    assert kept[10] == 1 and kept[-10] == 0.25 and float(net.change_share()[ebm.NOSE[0]]) == 1
    with torch.no_grad():
        picture = net.picture_emotion(shapes)
        weights = net.address(net.query(batch["lips"], batch["audio_emotion"], picture, None), net.keys).exp()
        whole = net.decode(weights @ net.values, batch["lips"])
        made = net(batch["rest"], batch["lips"], shapes, batch["audio_emotion"])
    assert torch.allclose(made, base + net.change_share()[:, None] * (start - base + 2 * whole), atol=1e-4)


def test_expression_map_is_a_ridge_regression():
    """It equals least squares with one more row for each input, whose value is the root of the penalty."""
    shapes, moved = RNG.normal(1, 2, (30, 4)), RNG.normal(size=(30, 6))
    found = ebm_stage.expression_map(shapes, moved, 0.5)
    penalty = 0.5 * shapes.var(axis=0).mean() * len(shapes)
    rows = np.concatenate([np.c_[shapes, np.ones(30)], np.sqrt(penalty) * np.eye(4, 5)])
    wanted = np.linalg.lstsq(rows, np.concatenate([moved, np.zeros((4, 6))]), rcond=None)[0]
    assert np.allclose(found, wanted, atol=1e-5)


def test_discriminant_is_the_bayes_rule_of_equal_gaussians():
    """Without shrinking, its scores differ by the log odds of the fitted Gaussians."""
    x = np.concatenate([RNG.normal(size=(40, 2)) @ np.array([[1, 0.5], [0, 1]]) + at for at in ((0, 0), (2, 1))])
    classes = np.repeat([0, 2], 40)
    rule = ebm_stage.discriminant(x, classes, 3, 0.0)
    means = [x[classes == k].mean(axis=0) for k in (0, 2)]
    inside = np.concatenate([x[classes == k] - m for k, m in zip((0, 2), means, strict=True)])
    inverse = np.linalg.inv(inside.T @ inside / len(inside))
    at = np.array([0.7, -0.2])
    scores = at @ rule[:-1] + rule[-1]
    odds = [-0.5 * (at - m) @ inverse @ (at - m) for m in means]
    assert scores[2] - scores[0] == pytest.approx(odds[1] - odds[0], rel=1e-3)
    assert scores.argmin() == 1  # no example, never named


def test_ebm_learns_a_batch_by_heart():
    net, batch = small_ebm(hidden=32), faces()
    optimizer = torch.optim.Adam(net.parameters(), 5e-3)
    weights = ebm.EbmLossWeights(continuity=0.1)
    first = None
    for _ in range(40):
        value, _ = ebm.loss(net, batch, weights)
        first = first or float(value.detach())
        optimizer.zero_grad()
        value.backward()
        optimizer.step()
    assert float(value.detach()) < 0.8 * first


# -- stages ------------------------------------------------------------------------------------------------------------


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


def test_pairs_share_what_they_should():
    """Where two speakers say the same sentences, all eight combinations are real clips, their features as named."""
    settings = aee_stage.AeeSettings(1, 0, batch=4)
    stage = aee_stage.AeeStage(
        aee_settings.AeeNetSettings(**AEE_SMALL), settings, aee_settings.AeeLossWeights(), clips_of(), [], 0
    )
    batch = stage.batch(0)
    assert batch["known"].all()
    assert (batch["speaker"][:, 0] != batch["speaker"][:, 1]).all()
    assert (batch["emotion"][:, 0] != batch["emotion"][:, 1]).all()
    alone = aee_stage.AeeStage(
        aee_settings.AeeNetSettings(**AEE_SMALL), settings, aee_settings.AeeLossWeights(), clips_of("a"), [], 0
    ).batch(0)
    assert alone["known"].all() and (alone["speaker"] == 0).all()
    # The windows of the two clips are the corners (0, 0, 0) and (1, 1, 1).
    assert np.array_equal(batch["windows"][:, 0, 0], batch["corners"][:, 0, 0, 0])
    assert np.array_equal(batch["windows"][:, 1, 0], batch["corners"][:, 1, 1, 1])


def three_stages(folder: Path, seed: int) -> list[torch.nn.Module]:
    """A few steps of each, from settings as small as can be."""
    clips = clips_of()
    first = audio2mouth_stage.Audio2MouthStage(
        audio2mouth.Audio2MouthNetSettings(width=16, layers=1, heads=2, feed_forward=16),
        audio2mouth_stage.Audio2MouthSettings(2, batch=2, gain=3.0, bands=1),
        clips,
        clips,
        seed,
    )
    second = aee_stage.AeeStage(
        aee_settings.AeeNetSettings(**AEE_SMALL, manner=True),
        aee_stage.AeeSettings(1, 1, batch=2, mixing=1.0, shrink=0.2),
        aee_settings.AeeLossWeights(),
        clips,
        clips,
        seed,
    )
    nets = []
    for stage in (first, second):
        few_steps(stage, seed)
        checkpoints.save(folder / f"{stage.name}.safetensors", stage.net.state_dict(), stage.record())
        nets.append(stage.net.eval())
    mouths, encoder = audio2mouth.load(folder / "audio2mouth.safetensors"), aee.load(folder / "aee.safetensors")
    settings = ebm_stage.EbmSettings(2, batch=2, noise=0.5)
    own = ebm.EbmNetSettings(slots=4, width=8, hidden=8, picture_emotion=4, decision=100.0, neutral=True)
    third = ebm_stage.EbmStage(
        own,
        settings,
        ebm.EbmLossWeights(),
        ebm_stage.FixedNetworks(mouths, encoder, files=models()),
        clips,
        clips,
        seed,
    )
    few_steps(third, seed)
    assert third.held_out()["error_still"] > 0
    checkpoints.save(folder / "ebm.safetensors", third.net.state_dict(), third.record())
    return [*nets, third.net]


class LoudIsHappy(torch.nn.Module):
    """Replaces AEE: a loud clip is happy."""

    size = 2

    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        happy = np.abs(audio).mean() > 1000
        return np.array([1 - happy, happy], np.float32)

    emotion = probabilities


def smiling(clips: list[ClipArrays]) -> list[ClipArrays]:
    """The happy clips are loud, their lips and jaw are 6 % of the eye distance lower, and a blendshape shows it."""
    out = []
    for clip in clips:
        happy = float(clip.emotion == "happy")
        landmarks, shapes = clip.landmarks.copy(), clip.blendshapes.copy()
        landmarks[:, POINTS, 1] = 138 + np.abs(landmarks[:, POINTS, 1] - 128) + 6 * happy  # below the eyes
        shapes[:, 0] = 0.8 * happy
        audio = (clip.audio * (0.1 + 0.9 * happy)).astype(np.int16)
        out.append(replace(clip, landmarks=landmarks, blendshapes=shapes, audio=audio))
    return out


OURS = {"table": True, "spread": True, "neutral": True, "decision": 0.5}


@pytest.mark.parametrize(("net", "steps"), [({}, 300), (OURS, 40)])
def test_a_trained_memory_is_nearer_to_the_truth_than_no_memory(net, steps):
    """On a speaker who was not used in training. The paper's parts alone need more steps than with ours."""
    clips = smiling(clips_of("abcd"))
    sizes = audio2mouth.Audio2MouthNetSettings(width=16, layers=1, heads=2, feed_forward=16)
    mouths = Audio2Mouth(sizes, mean_face(clips), 0.02).eval()
    for layer in (mouths.jaw, mouths.lips):
        torch.nn.init.zeros_(layer.weight)
        torch.nn.init.zeros_(layer.bias)
    stage = ebm_stage.EbmStage(
        ebm.EbmNetSettings(slots=8, width=16, hidden=32, picture_emotion=4, **net),
        ebm_stage.EbmSettings(steps, batch=16),
        ebm.EbmLossWeights(continuity=0.0),
        ebm_stage.FixedNetworks(mouths, LoudIsHappy(), files=models()),
        [c for c in clips if c.speaker != "d"],
        [c for c in clips if c.speaker == "d"],
        seed=0,
    )
    few_steps(stage, 0, rate=5e-3)
    stage.net.eval()
    found = stage.held_out()
    assert found["mouth"] < 0.6 * min(found["mouth_without"], found["mouth_still"])
    assert found["direction"] > 0.5


def few_steps(stage: Any, seed: int, rate: float = 1e-3) -> None:
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(stage.optimizers()["net"].parameters, rate)
    for step in range(stage.steps):
        given = {k: torch.from_numpy(v) for k, v in stage.batch(step).items()}
        optimizer.zero_grad()
        stage.loss(given, "net")[0].backward()
        optimizer.step()


def test_same_seed_same_weights_and_a_face_from_the_files(tmp_path: Path):
    one, two, other = (three_stages(tmp_path, seed) for seed in (0, 0, 1))
    for a, b, c in zip(one, two, other, strict=True):
        assert all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))
        assert any(not torch.equal(x, y) for x, y in zip(a.parameters(), c.parameters(), strict=True))
    clips = clips_of()
    face, plain = CemNetFace(tmp_path, files=models()), CemNetFace(tmp_path, memory=False, files=models())
    given = clips[0].audio, clips[1].landmarks[:3], clips[2].landmarks
    made = face.landmarks(*given, 20, reference_blendshapes=clips[1].blendshapes[:3])
    without = plain.landmarks(*given, 20)
    with pytest.raises(ValueError, match="reference_frames"):
        face.landmarks(*given, 20)
    assert made.shape == without.shape == (20, 478, 3) and np.isfinite(made).all()
    assert face.revision != plain.revision
    # Without the memory the upper face is the references' but for the eyes, in the source's pose.
    nose = [4, 6, 197]
    assert np.abs(without[:, nose] - clips[1].landmarks[:3].mean(axis=0)[nose]).max() < 12


def test_label_lookup_adds_the_mean_displacement_of_the_label(tmp_path: Path):
    three_stages(tmp_path, 0)
    clips = clips_of()
    face = LabelLookupFace(tmp_path, files=models())
    rest, lips = torch.randn(1, 478, 3), torch.randn(1, 4, 57, 3)
    key = {"blendshapes": torch.randn(1, 52)}
    made = {}
    for label in face.emotions:
        face.label = label
        made[label] = face.expressive(rest, lips, key)
    for k, label in enumerate(face.emotions):
        start = face.memory.start(rest, lips, key["blendshapes"])[0].detach().numpy()
        shown = face.memory.shown[k].reshape(478, 3).numpy() * face.memory.moves[:, None].numpy()
        assert np.allclose(made[label] - start, shown[None], atol=1e-5)
    # The table is the mean of the training split: happy minus the same person's neutral face, in the head's frame.
    assert face.emotions == ("neutral", "happy") and float(face.memory.shown[1].abs().sum()) > 0
    given = clips[0].audio, clips[1].landmarks[:3], clips[2].landmarks, 20
    drawn = face.landmarks(*given, reference_blendshapes=clips[1].blendshapes[:3])
    assert drawn.shape == (20, 478, 3) and np.isfinite(drawn).all()
    face.label = "sarcastic"
    with pytest.raises(ClipError, match="the training split has no sarcastic; it has neutral, happy"):
        face.landmarks(*given, reference_blendshapes=clips[1].blendshapes[:3])


def test_files_of_an_earlier_version_say_what_to_run(tmp_path):
    net = small_aee()
    path = tmp_path / "aee.safetensors"
    text = "was trained by an earlier version; train again: `cmet-eval train cem-net --stage aee --data SHARDS --fresh`"
    state, record = net.state_dict(), net.record()
    fewer = dict(list(state.items())[1:])
    no_labels = {"settings": record["settings"]}
    other_field = {**record, "settings": {**record["settings"], "gone": 1}}
    for tensors, header in ((fewer, record), (state, no_labels), (state, other_field)):
        checkpoints.save(path, tensors, header)
        with pytest.raises(UserError, match=re.escape(text)):
            aee.load(path)
    checkpoints.save(path, state, record)
    assert aee.load(path).settings == net.settings


@pytest.mark.parametrize("name", ["demo", "adapted", "paper"])
def test_settings_of_the_package(name):
    settings = config.load("cmet_reference.cem_net", name)
    for stage in train.STAGES:
        if stage != "renderer" and stage in settings:  # flow_stage.make_stage reads its own
            assert train.stage_settings(settings, stage), stage
    factories = train.stages(settings, {"main": Path()}, Path(), TrainOptions(quiet=True), models())
    made = [stage for stage, factory in zip(train.STAGES, factories, strict=True) if factory is not None]
    assert made == [stage for stage in train.STAGES if stage in settings]
    with pytest.raises(UserError, match="aee"):
        train.stage_settings({"aee": {"nonsense": 1}}, "aee")


def test_the_ablation_trains_again_with_other_data_or_settings_and_says_first_what_it_lacks(tmp_path, monkeypatch):
    def shards(name, split):
        folder = write_shard_set(tmp_path / name, [make_record(0, 12, clip_id="c", speaker="A", split=split)])
        write_sealed_json(folder / CARD, {**read_sealed_json(folder / CARD, ""), "digest": name * 32})
        return folder

    def made(data, rate=0.01):
        settings = {"line": {"rate": rate}}
        ablation.Ablation(data, settings, tmp_path / "out").train(lambda: Line(2), settings, tmp_path / "out", 0)
        return (tmp_path / "out" / "line.safetensors").stat().st_mtime_ns

    a, b = shards("a", "train"), shards("b", "test")
    first = made(a)
    assert made(a) == first
    second = made(b)
    assert second > first and made(b, 0.02) > second
    settings = config.load("cmet_reference.cem_net", "demo")
    with pytest.raises(UserError, match="no test split"):
        ablation.run(a, settings, [0], tmp_path / "out")
    monkeypatch.delenv("CMET_EVAL_WEIGHTS", raising=False)
    with pytest.raises(MissingWeights, match="train evaluators"):
        ablation.run(b, settings, [0], tmp_path / "out", pictures=1)


def test_the_plain_classifier_gives_logits_and_stands_in_for_aee(tmp_path: Path):
    """Its embedding is its output without softmax; it has no other networks; a memory is trained with it."""
    clips = clips_of()
    net = aee_settings.AeeNetSettings(**AEE_SMALL)
    stage = classifier.ClassifierStage(net, aee_stage.AeeSettings(1, 2, batch=4), clips, clips, 0)
    assert stage.steps == 3 and set(stage.batch(2)) == {"windows", "emotion", "emotion_windows"}
    _, parts = stage.loss({k: torch.from_numpy(v) for k, v in stage.batch(2).items()}, "net")
    assert set(parts) == {"emotion"}
    owned = {name.split(".")[0] for name, _ in stage.net.named_parameters()}
    assert owned == {"emotion_encoder", "to_emotion"}
    few_steps(stage, 0)
    checkpoints.save(tmp_path / "emotion-classifier.safetensors", stage.net.state_dict(), stage.record())
    found = classifier.load("emotion-classifier", tmp_path)
    audio = clips[0].audio
    logits = found.emotion(audio)
    assert logits.shape == (2,) == (found.size,)
    assert np.allclose(np.exp(logits) / np.exp(logits).sum(), found.probabilities(audio), atol=1e-6)
    hidden = torch.from_numpy(aee.AEE.emotion(found, audio))
    assert np.allclose(found.to_emotion(hidden).detach().numpy(), logits, atol=1e-6)
    three_stages(tmp_path, 0)
    chosen = ebm.EbmNetSettings(slots=4, width=8, hidden=8, picture_emotion=4, audio="emotion-classifier")
    fixed = ebm_stage.FixedNetworks(audio2mouth.load(tmp_path / "audio2mouth.safetensors"), found, files=models())
    memory = ebm_stage.EbmStage(chosen, ebm_stage.EbmSettings(1, batch=2), ebm.EbmLossWeights(), fixed, clips, clips, 0)
    assert memory.net.settings.audio_emotion == 2 and np.allclose(memory.pairs[0].audio_emotion, found.emotion(
        memory.pairs[0].face.clip.audio
    ))  # fmt: skip
    checkpoints.save(tmp_path / "ebm.safetensors", memory.net.state_dict(), memory.record())
    face = CemNetFace(tmp_path, files=models())
    assert isinstance(face.encoder, classifier.EmotionClassifier)


def test_without_a_memory_the_feature_is_decoded_and_the_decoder_learns():
    net, batch = small_ebm(memory=False), faces()
    assert not len(net.keys) and not len(net.values) and not list(net.added.parameters())
    value, parts = ebm.loss(net, batch, ebm.EbmLossWeights())
    assert set(parts) == {"landmarks", "picture"}
    value.backward()
    for name in ("decoder", "key", "lips", "feeling"):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in getattr(net, name).parameters()), name
    query = torch.randn(3, 5, 8)
    assert net.read(query) is query
    kept = small_ebm()
    weights = torch.nn.functional.normalize(query, dim=-1) @ torch.nn.functional.normalize(kept.keys, dim=-1).T
    expected = (weights / kept.settings.temperature).softmax(dim=-1) @ kept.values
    assert torch.allclose(kept.read(query), expected, atol=1e-5)


def test_the_rows_of_table_iv_remove_what_the_paper_removes():
    settings = config.load("cmet_reference.cem_net", "demo")
    nets = {}
    for row, changes in ablation.ROWS.items():
        changed = {**settings, "ebm": {**settings["ebm"], "net": {**settings["ebm"]["net"], **changes}}}
        nets[row] = train.stage_settings(changed, "ebm")[0]
        made = dict(
            zip(
                train.STAGES,
                train.stages(changed, {"main": Path()}, Path(), TrainOptions(quiet=True), models()),
                strict=True,
            )
        )
        assert (made["emotion-classifier"] is not None) == (row == "without AEE")
    assert nets["without AEE"] == replace(nets["full"], audio="emotion-classifier")
    assert nets["without EBM"] == replace(nets["full"], memory=False, table=False)


def test_table_of_the_ablation():
    """Student's t for two seeds is 12.706: the half width of the interval of 4 and 5 is 12.706 * 0.7071 / 1.4142."""
    found = {
        "full": {"M-LMD": [4.0, 5.0], "all points": [2.0, 2.0], "emotion": [0.25, 0.35]},
        "without AEE": {"M-LMD": [5.0, 6.5], "all points": [2.0, 2.0], "emotion": [0.25, 0.25]},
    }
    lines = ablation.table_of(found).splitlines()
    assert lines[2] == "| full | 4.50 ± 6.35 | 2.00 ± 0.00 | 0.300 ± 0.635 |"
    assert (
        lines[5].startswith("| full minus |")
        and lines[7] == "| without AEE | -1.25 ± 3.18 | 0.00 ± 0.00 | 0.050 ± 0.635 |"
    )
    alone = {row: {name: values[:1] for name, values in cells.items()} for row, cells in found.items()}
    assert ablation.table_of(alone).splitlines()[2] == "| full | 4.00 | 2.00 | 0.250 |"
