"""Speed of the metrics on one core: SSIM against scikit-image as a ratio, and each metric's time a pair of frames.

Run with `make bench`; in a plain test run everything is called once, on two frames.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from skimage.metrics import structural_similarity

from cmet_metrics.base import Sample
from cmet_metrics.registry import METRICS
from cmet_metrics.ssim import ssim
from talking_face.media.reading import read_audio, read_frames
from talking_face.reasons import Reason
from talking_face.threads import limit_threads


def medians_s(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """Median seconds of each function, called in turn so that the machine's other load falls on all alike."""
    seconds: list[list[float]] = [[] for _ in functions]
    for _ in range(rounds):
        for function, taken in zip(functions, seconds, strict=True):
            start = time.perf_counter()
            function()
            taken.append(time.perf_counter() - start)
    return [statistics.median(taken) for taken in seconds]


@pytest.fixture(scope="module")
def pair() -> tuple[np.ndarray, np.ndarray]:
    """Ten 256x256 frames and a blurred copy; the machine's image noise is of no matter to the time."""
    limit_threads(1)
    rng = np.random.default_rng(0)
    target = np.stack([cv2.resize(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8), (256, 256)) for _ in range(10)])
    return np.stack([cv2.GaussianBlur(f, (0, 0), 1) for f in target]), target


def test_ssim_against_scikit_image(benchmark, pair, capsys: pytest.CaptureFixture[str]) -> None:
    pred, target = pair
    if not benchmark.enabled:
        pred, target = pred[:2], target[:2]
    rounds = 9 if benchmark.enabled else 1

    def theirs() -> list[float]:
        return [
            structural_similarity(
                a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1
            )
            for a, b in zip(pred, target, strict=True)
        ]

    np.testing.assert_allclose(ssim(pred, target), theirs(), atol=1e-6)
    reference, ours = medians_s([theirs, lambda: ssim(pred, target)], rounds)
    benchmark(ssim, pred, target)
    benchmark.extra_info["ratio"] = reference / ours
    with capsys.disabled():
        print(
            f"\nssim:wang2004 {1e3 * ours / len(pred):.2f} ms a frame of 256x256, scikit-image's Gaussian SSIM "
            f"{1e3 * reference / len(pred):.2f} ms: {reference / ours:.1f} times as fast at the same value"
        )
    if benchmark.enabled:
        assert reference / ours >= 6


OURS = [metric for metric in METRICS if metric.name in ("psnr", "ssim", "m_lmd", "f_lmd", "registration", "jitter")]
OURS += [metric for metric in METRICS if metric.name == "lip_energy"]


@pytest.mark.parametrize("metric", OURS, ids=lambda m: m.key)
def test_each_metric(benchmark, metric, real_clips: list[Path]) -> None:
    """One pair without anything shared; `lip_energy` needs 35 frames, the others get ten."""
    few = 35 if metric.name == "lip_energy" else 10 if benchmark.enabled else 3
    frames, audio = read_frames(real_clips[0])[:few], read_audio(real_clips[0])
    pred = np.stack([cv2.GaussianBlur(f, (0, 0), 1) for f in frames])
    first = metric.score(Sample(pred, audio=audio), Sample(frames))  # models load once a process
    if first.reason is Reason.MISSING_WEIGHTS:
        pytest.skip(first.detail)
    score = benchmark(lambda: metric.score(Sample(pred, audio=audio), Sample(frames)))
    assert score.value is not None
    benchmark.extra_info["frames"] = len(frames)
