"""The weight store checks what it finds; signatures read back; vocabulary and errors hold their promises."""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from pathlib import Path

import pytest

from talking_face.emotions import EMOTIONS, canonical
from talking_face.pretrained import store
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.signature import Signature, digest
from tests.models import models


@pytest.fixture
def sandbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache and an empty weights folder."""
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path / "mine"))
    (tmp_path / "mine").mkdir()
    yield tmp_path


def test_weights_in_wheels_are_found_without_importing_them() -> None:
    assert store.weight_path("face_landmarker", files=models()).stat().st_size == store.weight("face_landmarker").bytes
    assert store.weight_hash("dlib_68", files=models()).startswith("fbdc2cb8")


def test_a_missing_file_says_what_it_is_and_how_to_get_it(sandbox: Path) -> None:
    with pytest.raises(store.MissingWeights) as caught:
        store.weight_path("syncnet_v2", files=models())
    for part in ("syncnet_v2.model", "Oxford", "cmet-eval weights fetch syncnet_v2", "CMET_EVAL_WEIGHTS"):
        assert part in str(caught.value)


def test_a_wrong_file_is_refused(sandbox: Path) -> None:
    (sandbox / "mine" / "syncnet_v2.model").write_bytes(b"not it")
    with pytest.raises(UserError, match="not the registered syncnet_v2"):
        store.weight_path("syncnet_v2", files=models())


def test_a_file_without_a_known_hash_is_pinned_on_first_use(sandbox: Path) -> None:
    path = sandbox / "mine" / "facial_expression_model_weights.onnx"
    path.write_bytes(b"first")
    assert store.weight_path("deepface_emotion", files=models()) == path
    path.write_bytes(b"another")
    with pytest.raises(UserError, match="not the pinned"):
        store.weight_path("deepface_emotion", files=models())


def test_fetch_takes_one_member_of_a_zip_and_checks_it(sandbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = sandbox / "pack.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../evil/w.onnx", b"weights")
    entry = store.Weight(
        name="w",
        about="a test file",
        file="w.onnx",
        licence="none",
        sha256=hashlib.sha256(b"weights").hexdigest(),
        url="https://example.invalid/pack.zip",
        url_member="w.onnx",
    )
    monkeypatch.setattr(store, "registry", lambda: {"w": entry})
    monkeypatch.setattr("pooch.retrieve", lambda *a, **k: str(archive))
    path = store.fetch("w", progress=False, files=models())
    assert path == sandbox / "cache" / "weights" / "w.onnx" and path.read_bytes() == b"weights"
    assert not (sandbox.parent / "evil").exists()


def test_signatures_read_back_and_refuse_what_would_not() -> None:
    signature = Signature("m_lmd", {"variant": "eat", "points": "dlib68@fbdc2cb8", "loud": True, "version": "1.0.0"})
    assert str(signature) == "m_lmd|variant:eat|points:dlib68@fbdc2cb8|loud:yes|version:1.0.0"
    assert Signature.parse(str(signature)) == signature
    with pytest.raises(ValueError):
        Signature("m_lmd", {"variant": "a|b"})
    with pytest.raises(ValueError):
        Signature.parse("m_lmd|variant")


def test_digests_ignore_key_order_only() -> None:
    assert digest({"a": 1, "b": [1, 2]}) == digest({"b": [1, 2], "a": 1})
    assert digest({"a": 1}) != digest({"a": 2})


def test_labels_from_the_wild_become_ours() -> None:
    assert [canonical(x) for x in ("Anger", " happy", "joy", "FEARFUL")] == ["angry", "happy", "happy", "fear"]
    assert canonical("Sarcastic") == "sarcastic" and "sarcastic" not in EMOTIONS


def test_a_clip_error_keeps_its_reason_across_processes() -> None:
    error = pickle.loads(pickle.dumps(ClipError(Reason.NO_FACE, "x.mp4 shows nobody")))
    assert error.reason is Reason.NO_FACE and error.detail == "x.mp4 shows nobody"
