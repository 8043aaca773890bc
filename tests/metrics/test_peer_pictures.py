"""PSNR and SSIM of other repositories: EAT's crop against scikit-image and dlib, piq's definitions, golden values."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity
from skimage.transform import SimilarityTransform, warp

from cmet_metrics.base import Sample
from cmet_metrics.eat_align import ALIGN_POINTS, resized_crop, template
from cmet_metrics.peer_pictures import pooled_side
from cmet_metrics.record import DEFAULT_FILES
from cmet_metrics.registry import get_metric
from talking_face.media import read_frames
from talking_face.pretrained.store import weight_path
from talking_face.reasons import Reason

# A GRID clip against itself after a blur (OpenCV, sigma 1.5), frames 0 to 9.
GOLDEN = {
    "psnr:eat": 31.52700868,
    "ssim:eat": 0.93383378,
    "psnr:vico": 30.96748357,
    "ssim:vico": 0.94750169,
    "psnr:atvgnet": 38.18876991,
    "ssim:atvgnet": 0.96675835,
}


@pytest.fixture(scope="module")
def pair(real_clips: list[Path]) -> tuple[Sample, Sample]:
    frames = read_frames(real_clips[0], None)[:10]
    blurred = np.stack([cv2.GaussianBlur(frame, (0, 0), 1.5) for frame in frames])
    return Sample(blurred, name="blurred"), Sample(frames, name="real")


@pytest.mark.parametrize("key", GOLDEN)
def test_golden_values(key: str, pair: tuple[Sample, Sample]) -> None:
    assert get_metric(key).score(*pair).value == pytest.approx(GOLDEN[key], rel=1e-6)


def eat_crop(rgb: np.ndarray) -> np.ndarray:
    """EAT's crop by scikit-image, for a face whose square is inside the picture."""
    import dlib

    predictor = dlib.shape_predictor(str(weight_path("dlib_68", DEFAULT_FILES)))
    grey = cv2.cvtColor(rgb, cv2.COLOR_BGR2GRAY)
    box = dlib.get_frontal_face_detector()(grey, 1)[0]
    points = np.array([(p.x, p.y) for p in predictor(grey, box).parts()])
    wide, high = box.right() - box.left(), box.bottom() - box.top()
    half = int(0.64 * high)
    corner = np.array([box.left() + wide // 2 - half, box.top() + high // 2 - half])
    x, y = corner
    square = cv2.resize(rgb[y : y + 2 * half, x : x + 2 * half], (163, 163), interpolation=cv2.INTER_AREA)
    moved = ((points - corner) * (163 / (2 * half))).astype(np.float32)
    fit = SimilarityTransform.from_estimate(template()[ALIGN_POINTS], moved[ALIGN_POINTS])
    return (warp(square, fit, output_shape=(163, 163)) * 255).astype(np.uint8)[1:129, 1:129]


def test_eats_crop_is_that_of_scikit_image_and_dlib(pair: tuple[Sample, Sample]) -> None:
    for frame in pair[1].frames[:3]:
        assert np.array_equal(resized_crop(frame, DEFAULT_FILES), eat_crop(frame))


def test_eats_values_are_the_mean_over_all_frames_of_all_clips(pair: tuple[Sample, Sample]) -> None:
    metric = get_metric("ssim:eat")
    short = tuple(Sample(sample.frames[:4], name=sample.name) for sample in pair)
    scores = [metric.score(*pair), metric.score(*short)]
    a, b = (score.value for score in scores)
    assert a is not None and b is not None
    assert metric.aggregate(scores).mean == pytest.approx((10 * a + 4 * b) / 14)
    crops = [[resized_crop(frame, DEFAULT_FILES) for frame in sample.frames[:4]] for sample in pair]
    each = [structural_similarity(x, y, channel_axis=-1) for x, y in zip(*crops, strict=True)]
    assert b == pytest.approx(np.mean(each), abs=1e-12)


def test_eat_pairs_by_linspace_and_takes_frames_of_any_size(pair: tuple[Sample, Sample]) -> None:
    pred, target = pair
    larger = np.stack([cv2.resize(frame, None, fx=1.5, fy=1.5) for frame in pred.frames[:5]])
    score = get_metric("psnr:eat").score(Sample(larger), target)
    assert score.n == 5 and score.value is not None and 15 < score.value < 50


def test_a_face_at_the_left_edge_has_no_crop(pair: tuple[Sample, Sample]) -> None:
    frame = pair[1].frames[0]
    left = next(x for x in range(40, 200) if resized_crop(np.ascontiguousarray(frame[:, x:]), DEFAULT_FILES) is None)
    cut = Sample(np.ascontiguousarray(pair[1].frames[:, :, left:]))
    assert get_metric("psnr:eat").score(cut, cut).reason in (Reason.NO_FACE, Reason.FEW_FACES)


def test_frames_without_a_crop_are_counted(pair: tuple[Sample, Sample]) -> None:
    """Half of the frames show no face: EAT scores the others, and the score says how many."""
    half = pair[0].frames.copy()
    half[5:] = 90
    score = get_metric("psnr:eat-stored").score(Sample(half, name="half"), pair[1])
    assert (score.n, score.stats["pairs"]) == (5, 10.0)
    assert score.detail == "5 of 10 pairs scored, the others have no crop"


def test_identical_clips(pair: tuple[Sample, Sample]) -> None:
    real = pair[1]
    assert get_metric("psnr:eat").score(real, real).reason is Reason.INFINITE
    assert get_metric("ssim:eat").score(real, real).value == pytest.approx(1.0)
    assert get_metric("psnr:vico").score(real, real).value == pytest.approx(80.0)
    assert get_metric("psnr:atvgnet").score(real, real).value == 100.0


def test_piqs_definitions() -> None:
    rng = np.random.default_rng(0)
    a, b = (Sample(rng.integers(0, 256, (2, 400, 420, 3), np.uint8)) for _ in range(2))
    error = ((a.frames / 255.0 - b.frames / 255.0) ** 2).mean(axis=(1, 2, 3))
    assert get_metric("psnr:vico").score(a, b).value == pytest.approx((-10 * np.log10(error + 1e-8)).mean())
    means = [np.stack([f.reshape(200, 2, 210, 2, 3).mean(axis=(1, 3)) for f in s.frames]) for s in (a, b)]
    assert np.array_equal(pooled_side(a.frames[0]), means[0][0])
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 255}
    each = [structural_similarity(x, y, channel_axis=-1, **options) for x, y in zip(*means, strict=True)]
    assert get_metric("ssim:vico").score(a, b).value == pytest.approx(np.mean(each), abs=1e-9)
    assert get_metric("ssim:vico").score(a, Sample(b.frames[:, :200])).reason is Reason.SIZE_MISMATCH
