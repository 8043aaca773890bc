"""LPIPS against the package's own code with the same weights, its heads as the package ships them, and its rules."""

from __future__ import annotations

import importlib.machinery
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmet_metrics.base import Sample
from talking_face.pretrained import lpips_alex, store
from talking_face.reasons import Reason, UserError
from tests.metrics.by_key import by_key
from tests.models import models
from tests.stand_ins import seeded

FILE = "alexnet-owt-7be5be79.pth"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which the store looks for AlexNet, whose hash is not asked for."""
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    entry = store.registry()[lpips_alex.BACKBONE].model_copy(update={"sha256": None})
    known = {**store.registry(), lpips_alex.BACKBONE: entry}
    monkeypatch.setattr(store, "registry", lambda: known)
    yield tmp_path


def backbone() -> dict[str, Any]:
    """AlexNet's seeded convolutions under torchvision's names, with a piece of the classifier, which is not used."""
    torch = pytest.importorskip("torch")
    return {**seeded(lpips_alex.build_features()), "classifier.6.bias": torch.zeros(1000)}


def pictures(n: int, height: int, width: int, seed: int) -> np.ndarray:
    coarse = np.random.default_rng(seed).integers(0, 256, (n, 6, 6, 3), np.uint8)
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse])


@pytest.fixture
def reference(monkeypatch: pytest.MonkeyPatch) -> Any:
    """`lpips.LPIPS(net="alex")` on `backbone()`. For torchvision, which it takes AlexNet from, stand the layers that
    torchvision 0.27's alexnet.py names, in a plain nn.Sequential."""
    pytest.importorskip("torch")
    from torch import nn

    def alexnet(pretrained: bool) -> Any:
        conv, pool = nn.Conv2d, lambda: nn.MaxPool2d(3, 2)
        layers = [conv(3, 64, 11, 4, 2), nn.ReLU(), pool(), conv(64, 192, 5, padding=2), nn.ReLU(), pool()]
        layers += [conv(192, 384, 3, padding=1), nn.ReLU(), conv(384, 256, 3, padding=1), nn.ReLU()]
        net = nn.Module()
        net.features = nn.Sequential(*layers, conv(256, 256, 3, padding=1), nn.ReLU(), pool())
        net.load_state_dict({k: v for k, v in backbone().items() if k.startswith("features.")})
        return net

    fake, models = types.ModuleType("torchvision"), types.ModuleType("torchvision.models")
    for module in (fake, models):
        module.__spec__ = importlib.machinery.ModuleSpec(module.__name__, None)
    models.alexnet, fake.models = alexnet, models  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torchvision", fake)
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lpips"]:
        monkeypatch.delitem(sys.modules, name)
    lpips = pytest.importorskip("lpips")
    yield lpips.LPIPS(net="alex", verbose=False)
    for name in [name for name in sys.modules if name.partition(".")[0] == "lpips"]:
        sys.modules.pop(name)


def test_distances_equal_the_package(weights: Path, reference: Any) -> None:
    torch = pytest.importorskip("torch")
    torch.save(backbone(), weights / FILE)
    for size in ((64, 64), (97, 130), (31, 256)):
        a, b = pictures(3, *size, seed=1), pictures(3, *size, seed=2)
        b[0] = np.clip(a[0].astype(int) + 3, 0, 255)
        with torch.no_grad():
            shown = [torch.from_numpy(x.transpose(0, 3, 1, 2)).float() / 127.5 - 1 for x in (a, b)]
            theirs = reference(*shown).flatten().numpy()
        ours = lpips_alex.lpips_alex(a, b, files=models())
        np.testing.assert_allclose(ours, theirs, atol=1e-6, rtol=1e-5)
        assert 0 < ours[0] < ours[1]
        np.testing.assert_allclose(lpips_alex.lpips_alex(b, a, files=models()), ours, rtol=1e-6)
    assert by_key("lpips:alex").score(Sample(a), Sample(a)).value == 0
    score = by_key("lpips:alex").score(Sample(a), Sample(b))
    assert score.value == pytest.approx(float(ours.mean()), rel=1e-6) and score.stats["frames"] == 3
    assert by_key("lpips:alex").score(Sample(a), Sample(b[:2])).reason is Reason.LENGTH_MISMATCH
    tiny = Sample(a[:, :30])
    assert by_key("lpips:alex").score(tiny, tiny).reason is Reason.SIZE_MISMATCH


def test_without_alexnet_there_is_a_reason(weights: Path) -> None:
    sample = Sample(pictures(2, 64, 64, seed=0))
    score = by_key("lpips:alex").score(sample, sample)
    assert score.reason is Reason.MISSING_WEIGHTS and "cmet-eval weights fetch alexnet" in score.detail
    assert str(by_key("lpips:alex").signature()) == (
        "lpips|variant:alex|net:alexnet@absent|heads:lpips-0.1@df73285e|colour:rgb|range:255|frames:exact|resize:none|"
        "agg:video-mean|version:1.0.0"
    )


def test_a_wrong_file_is_named(weights: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"features.0.weight": torch.zeros(2)}, weights / FILE)
    sample = Sample(pictures(2, 64, 64, seed=0))
    with pytest.raises(UserError, match="does not hold the weights of alexnet"):
        by_key("lpips:alex").score(sample, sample)
