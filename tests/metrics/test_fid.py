"""FID: the distance against SciPy's matrix square root and a closed form, sums that add, and pytorch-fid's features."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from scipy.linalg import sqrtm

from cmet_metrics.base import Sample
from cmet_metrics.fid import DatasetFid, FeatureSums, frechet_distance, frechet_distance_of
from talking_face.pretrained import inception, store
from talking_face.reasons import Reason
from tests.metrics.by_key import by_key
from tests.models import models
from tests.stand_ins import seeded

FILE = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which the store looks for files."""
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    yield tmp_path


def features(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) + rng.normal(size=d)


def test_distance_equals_the_definition_by_scipys_square_root() -> None:
    a, b = features(200, 12, 0), features(150, 12, 1)
    means, covs = [x.mean(axis=0) for x in (a, b)], [np.cov(x, rowvar=False) for x in (a, b)]
    gap = means[0] - means[1]
    expected = gap @ gap + np.trace(covs[0] + covs[1] - 2 * sqrtm(covs[0] @ covs[1]).real)
    assert frechet_distance(means[0], covs[0], means[1], covs[1]) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance_of(a, b) == pytest.approx(expected, rel=1e-9)
    # Diagonal covariances have a closed form: the roots' difference, squared.
    p, q = np.array([1.0, 4, 0]), np.array([9.0, 0, 0])
    assert frechet_distance(np.zeros(3), np.diag(p), np.ones(3), np.diag(q)) == pytest.approx(3 + (2**2 + 2**2))


def test_few_features_in_many_dimensions() -> None:
    """As in C-MET's pairs: both covariances singular, where a matrix square root needs an offset."""
    a, b = features(9, 40, 2), features(7, 40, 3)
    direct = frechet_distance(*(f(x) for x in (a, b) for f in (lambda v: v.mean(axis=0), lambda v: np.cov(v.T))))
    assert frechet_distance_of(a, b) == pytest.approx(direct, rel=1e-6)
    assert frechet_distance_of(a, a) == pytest.approx(0, abs=1e-9 * np.trace(np.cov(a.T)))
    assert frechet_distance_of(a, b) == pytest.approx(frechet_distance_of(b, a))
    assert frechet_distance_of(a + 3, a) == pytest.approx(9 * 40)
    assert frechet_distance_of(a[::-1], b[::-1]) == pytest.approx(frechet_distance_of(a, b))


def test_sums_over_any_split_give_the_whole(tmp_path: Path) -> None:
    a, b = features(60, 8, 4), features(50, 8, 5)
    parts = FeatureSums.of(a[:7]) + FeatureSums.of(a[7:31]) + FeatureSums.of(a[31:])
    parts.save(tmp_path / "a.npz")
    parts = FeatureSums.load(tmp_path / "a.npz")
    np.testing.assert_allclose(parts.covariance, np.cov(a.T), rtol=1e-9, atol=1e-9)
    assert DatasetFid().value(parts, FeatureSums.of(b)) == pytest.approx(frechet_distance_of(a, b), rel=1e-9)


# pytorch-fid 0.3.0's InceptionV3([3]) over torchvision 0.29.2's models/inception.py, torch 2.13.0, with `seeded`
# parameters in the place of its file, on `pictures`; and the names and shapes of its parameters, hashed.
KEYS = "d1c9a52dc8072dcb"
FIRST = [0.0, 1.2085715532302856, 0.019906096160411835, 0.009507705457508564]
SUMS = [398.45227628456905, 376.00296723847896]


def pictures() -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (2, 6, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (120, 97), interpolation=cv2.INTER_CUBIC) for c in coarse])


def test_features_equal_pytorch_fids_and_pairs_are_scored(weights: Path) -> None:
    torch = pytest.importorskip("torch")
    network = inception.build()
    shapes = sorted((key, tuple(value.shape)) for key, value in network.state_dict().items())
    assert hashlib.sha256(repr(shapes).encode()).hexdigest()[:16] == KEYS
    torch.save(seeded(network), weights / FILE)
    frames = pictures()
    found = inception.inception_features(frames, files=models())
    np.testing.assert_allclose(found[0, : len(FIRST)], FIRST, rtol=1e-4)
    np.testing.assert_allclose(found.sum(axis=1, dtype=np.float64), SUMS, rtol=1e-5)
    score = by_key("fid:cmet-pair").score(Sample(frames), Sample(frames[::-1].copy()))
    assert score.value == pytest.approx(0, abs=1e-6 * float((found**2).sum())) and score.n == 2
    other = by_key("fid:cmet-pair").score(Sample(frames[..., ::-1].copy()), Sample(frames))
    assert other.value is not None and other.value > 100 * (score.value or 0) and other.value > 0


def test_without_its_weights_there_is_a_reason(weights: Path) -> None:
    sample = Sample(pictures())
    score = by_key("fid:cmet-pair").score(sample, sample)
    assert score.reason is Reason.MISSING_WEIGHTS and FILE in score.detail
    assert str(by_key("fid:cmet-pair").signature()) == (
        "fid|variant:cmet-pair|net:inception-2015-12-05@absent|colour:rgb|resize:bilinear-299|codec:none|frames:all|"
        "agg:video-mean|version:1.0.0"
    )
    assert "variant:dataset" in str(DatasetFid().signature())


def test_a_wrong_file_is_named(weights: Path) -> None:
    torch = pytest.importorskip("torch")
    torch.save({"fc.weight": torch.zeros(2)}, weights / FILE)
    with pytest.raises(store.UserError, match="does not hold the weights of inception_fid"):
        inception.inception_features(pictures(), files=models())
