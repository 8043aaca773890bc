"""CEM-Net's sound features and Audio2Mouth against independent values."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net import (
    audio2mouth,
)
from cmet_reference.cem_net.audio2mouth import JAW, LIPS, POINTS, UPPER, Audio2Mouth
from cmet_reference.training import checkpoints
from tests.cmet_reference.cem_net_parts import (
    RNG,
    every_gradient,
    small,
    tone,
)

MEL = [
    [-0.802481, -0.529715, -4.0, -0.732359],
    [0.152344, -0.218428, -0.874745, 0.123826],
    [-2.078859, -2.557915, -2.325611, -1.421392],
    [-2.854122, -3.332582, -4.0, -2.240653],
]


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
