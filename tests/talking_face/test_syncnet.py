"""SyncNet's branches and cepstra against syncnet_python and python_speech_features, and how weights are loaded."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
import torch

from talking_face.pretrained import s3fd, store, syncnet
from talking_face.pretrained.mfcc import mfcc
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from tests.syncnet_stand_in import babble, official_form, reference_net, smooth_frames


@pytest.mark.parametrize("n", [1, 399, 400, 401, 560, 561, 12800])
@pytest.mark.parametrize("kind", ["noise", "silence", "loudest", "silence-then-speech"])
def test_cepstra_equal_python_speech_features(kind: str, n: int) -> None:
    """Library 0.6; measured difference 7e-13. Its handling of digital silence and of the last window included."""
    library = pytest.importorskip("python_speech_features")
    samples = {
        "noise": np.random.default_rng(n).integers(-3000, 3000, n).astype(np.int16),
        "silence": np.zeros(n, np.int16),
        "loudest": np.where(np.arange(n) % 2, 32767, -32768).astype(np.int16),
        "silence-then-speech": np.where(np.arange(n) < n // 2, 0, babble(n, 1)).astype(np.int16),
    }[kind]
    np.testing.assert_allclose(mfcc(samples), library.mfcc(samples, 16000), atol=1e-9)


def test_cepstra_of_float_samples_are_refused() -> None:
    with pytest.raises(ValueError, match="int16"):
        mfcc(np.zeros(640, np.float32))


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The stand-in as the official file is: torch's old format, no counters of batches."""
    pytest.importorskip("syncnet_python")
    path = tmp_path_factory.mktemp("weights") / "syncnet_v2.model"
    torch.save(official_form(reference_net()), path, _use_new_zipfile_serialization=False)
    return path


def test_embeddings_equal_syncnet_python(saved: Path) -> None:
    """Through the file. Values reach 3; measured difference 2e-5 for lips, 1e-6 for sound."""
    state = syncnet.load_state(saved)
    assert {name: tuple(value.shape) for name, value in state.items()} == syncnet.state_shapes()
    official = store.weight("syncnet_v2").bytes
    assert official is not None and abs(saved.stat().st_size - official) < 20_000  # names and padding; of 54 MB
    net = syncnet.SyncNet(state, "stand-in", batch=4)
    crops, samples = smooth_frames(10, 224, 1), babble(11 * 640, 2)
    bgr = torch.from_numpy(crops[..., ::-1].copy()).permute(3, 0, 1, 2)[None].float()
    rows = torch.from_numpy(mfcc(samples)).float().T[None, None]
    with torch.no_grad():
        lip = reference_net().forward_lip(torch.cat([bgr[:, :, i : i + 5] for i in range(6)])).numpy()
        sound = reference_net().forward_aud(torch.cat([rows[..., 4 * i : 4 * i + 20] for i in range(6)])).numpy()
    np.testing.assert_allclose(net.lip(crops), lip, atol=1e-4)
    np.testing.assert_allclose(net.sound(samples, 6), sound, atol=1e-4)
    assert np.abs(net.lip(crops[..., ::-1]) - lip).max() > 0.01  # the colour order matters
    np.testing.assert_allclose(net.lip(crops[2:]), net.lip(crops)[2:], atol=1e-4)  # the batch does not


def test_what_is_not_the_network_is_refused(saved: Path, tmp_path: Path) -> None:
    state = syncnet.load_state(saved)
    with pytest.raises(UserError, match=r"1 tensors differ, the first is netfclip\.3\.weight"):
        syncnet.SyncNet({name: value for name, value in state.items() if name != "netfclip.3.weight"}, "x")
    with pytest.raises(UserError, match=r"first is netcnnaud\.18\.bias"):
        syncnet.SyncNet({**state, "netcnnaud.18.bias": torch.zeros(3)}, "x")
    # A pickle that would run code is not run.
    (tmp_path / "evil.model").write_bytes(pickle.dumps(_Evil(), protocol=2))
    with pytest.raises(pickle.UnpicklingError):
        syncnet.load_state(tmp_path / "evil.model")
    # The store takes only the registered bytes.
    with pytest.raises(UserError, match=r"is not the registered syncnet_v2: sha256 .* expected 961e8696f888fce4"):
        syncnet.syncnet(ModelFiles((saved.parent,)))


class _Evil:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("this must not run",)


def test_s3fd_finds_what_syncnet_python_finds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeded weights whose last layer is sure of a face, so that there are boxes to compare."""
    pytest.importorskip("syncnet_python")
    from syncnet_python.detectors.s3fd import S3FD
    from syncnet_python.detectors.s3fd.nets import S3FDNet

    torch.manual_seed(0)
    net = S3FDNet(device="cpu")
    with torch.no_grad():
        for head in net.conf[3:]:
            head.bias.copy_(torch.tensor([-3.0, 3.0]))
    torch.save(net.state_dict(), tmp_path / "sfd_face.pth")
    known = {"s3fd": store.weight("s3fd").model_copy(update={"sha256": None})}
    monkeypatch.setattr(store, "registry", lambda: known)
    frame = smooth_frames(1, 320, 3)[0]
    found = s3fd.detect_faces_s3fd(frame, ModelFiles((tmp_path,), tmp_path / "cache"))
    expected = S3FD(net, device="cpu").detect_faces(frame, conf_th=0.9, scales=[0.25])
    assert len(found) >= 1
    np.testing.assert_allclose(np.array(found), expected, atol=1e-4)
