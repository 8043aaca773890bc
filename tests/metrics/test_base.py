"""The base of all metrics: reasons in place of numbers, coverage beside every mean, sums that add over any split."""

from __future__ import annotations

import math
import subprocess
import sys
import tomllib
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmet_metrics.base import MIN_FRAMES, Sample, Score
from cmet_metrics.frames import pair_frames
from cmet_metrics.psnr import Psnr
from cmet_metrics.registry import DEFAULT_METRICS, METRICS, get_metric
from cmet_metrics.ssim import Ssim
from talking_face.reasons import ClipError, Reason, UserError
from talking_face.signature import Signature
from tests.metrics.by_key import by_key

REPOSITORY = Path(__file__).resolve().parents[2]
IMAGE_METRICS = [Psnr(), by_key("psnr:pooled"), Ssim()]


def noise(t: int = 3, h: int = 16, w: int = 18, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (t, h, w, 3), dtype=np.uint8)


_LMD = "align:{}|codec:none|frames:linspace|min-valid:0.5|agg:video-mean|version:1.0.0"
_EAT = "variant:eat|points:dlib68@fbdc2cb8|" + _LMD.format("eat-128")
_EAT_MP = "variant:eat-mp|points:mediapipe478-68@64184e22|" + _LMD.format("eat-128-points")
_PSNR = "colour:rgb|range:255|frames:exact|identical:{}|agg:{}|version:1.0.0"
_MOUTH = "|region:mouth-1.2-eyes|points:mediapipe478-68@64184e22|min-valid:0.5"
_SSIM = "colour:{}|range:255|frames:exact|window:{}|k:0.01,0.03|border:{}|covariance:{}|agg:video-mean|version:{}"
_MP = "points:mediapipe478-68@64184e22|"
_NATIVE = (
    f"variant:native-mp|{_MP}align:none|codec:none|frames:exact|min-valid:0.5|agg:video-mean|"
    "scale:100-per-eye-distance|version:1.0.0"
)
_REGISTRATION = f"{_MP}part:eye-corners-nose|fit:similarity|frames:exact|min-valid:0.5|agg:video-mean|version:1.0.0"
_JITTER = (
    f"{_MP}part:eye-corners-nose|difference:second|scale:100-per-eye-distance|min-valid:0.5|agg:video-mean|version:"
)
SIGNATURES = {
    "psnr:frame-mean": "psnr|variant:frame-mean|" + _PSNR.format("left-out", "video-mean"),
    "psnr:pooled": "psnr|variant:pooled|" + _PSNR.format("pooled", "pooled-mse"),
    "psnr:lower-half": "psnr|variant:lower-half|" + _PSNR.format("left-out|region:rows-from-half", "video-mean"),
    "psnr:mouth": "psnr|variant:mouth|" + _PSNR.format("left-out" + _MOUTH, "video-mean"),
    "psnr:pooled-lower-half": "psnr|variant:pooled-lower-half|"
    + _PSNR.format("pooled|region:rows-from-half", "pooled-mse"),
    "psnr:pooled-mouth": "psnr|variant:pooled-mouth|" + _PSNR.format("pooled" + _MOUTH, "pooled-mse"),
    "ssim:wang2004": "ssim|variant:wang2004|"
    + _SSIM.format("rgb", "gaussian-11|sigma:1.5", "valid", "population", "1.1.0"),
    "ssim:skimage": "ssim|variant:skimage|" + _SSIM.format("rgb", "uniform-7", "valid", "sample", "1.0.0"),
    "ssim:y": "ssim|variant:y|"
    + _SSIM.format("y-bt601-studio-float", "gaussian-11|sigma:1.5", "valid", "population", "1.0.0"),
    "ssim:torchmetrics": "ssim|variant:torchmetrics|"
    + _SSIM.format("rgb", "gaussian-11|sigma:1.5", "reflect", "population", "1.0.0"),
    "m_lmd:eat": "m_lmd|" + _EAT,
    "m_lmd:eat-mp": "m_lmd|" + _EAT_MP,
    "f_lmd:eat": "f_lmd|" + _EAT,
    "f_lmd:eat-mp": "f_lmd|" + _EAT_MP,
    "m_lmd:atvgnet": "m_lmd|variant:atvgnet|points:dlib68@fbdc2cb8|align:none|codec:none|frames:min|min-valid:0.5|"
    "agg:frame-mean|face:last|distance:sum-20|version:1.0.0",
    "m_lmd:native-mp": "m_lmd|" + _NATIVE,
    "f_lmd:native-mp": "f_lmd|" + _NATIVE,
    "registration:shift": "registration|variant:shift|" + _REGISTRATION,
    "registration:scale": "registration|variant:scale|" + _REGISTRATION,
    "registration:rotation": "registration|variant:rotation|" + _REGISTRATION,
    "jitter:output": "jitter|variant:output|" + _JITTER + "1.1.0",
    "jitter:ratio": "jitter|variant:ratio|" + _JITTER + "1.0.0",
}


def test_signatures_are_stable_and_no_two_metrics_share_one() -> None:
    found = {metric.key: str(metric.signature()) for metric in METRICS}
    assert SIGNATURES.items() <= found.items(), "the other families' are pinned in their own tests"
    assert len(found) == len(METRICS) == len(set(found.values()))
    assert all(Signature.parse(text) == get_metric(key).signature() for key, text in found.items())


def test_a_setting_that_changes_the_value_changes_the_signature() -> None:
    assert Psnr().signature() != Psnr(frames="min").signature()
    assert Ssim().signature() != Ssim(frames="linspace").signature()


def test_a_bare_name_is_the_first_variant_and_a_wrong_one_names_its_neighbours() -> None:
    assert get_metric("psnr").key == "psnr:frame-mean"
    assert get_metric("m_lmd").key == "m_lmd:eat"
    assert set(DEFAULT_METRICS) <= {metric.key for metric in METRICS}
    with pytest.raises(UserError, match="did you mean ssim:wang2004"):
        get_metric("ssim:wang2005")
    with pytest.raises(UserError, match="m_lmd"):
        get_metric("M-LMD")
    with pytest.raises(UserError, match=r"there are psnr:frame-mean, .*module:Class"):
        get_metric("zzz")


@pytest.mark.parametrize("metric", METRICS, ids=lambda m: m.key)
def test_one_frame_and_unequal_rates_give_a_reason(metric) -> None:
    clip = noise(4)
    assert metric.score(Sample(clip[:1]), Sample(clip)).reason is Reason.TOO_SHORT
    if metric.needs_target:
        assert metric.score(Sample(clip), Sample(clip[:0])).reason is Reason.TOO_SHORT
        assert metric.score(Sample(clip, fps=30.0), Sample(clip)).reason is Reason.RATE_MISMATCH
        assert metric.score(Sample(clip), None).reason is Reason.NO_GROUND_TRUTH
    else:
        assert metric.score(Sample(clip[:1]), None).reason is Reason.TOO_SHORT
    assert MIN_FRAMES == 2


@pytest.mark.parametrize("metric", IMAGE_METRICS, ids=lambda m: m.key)
def test_image_metrics_give_a_reason_for_other_lengths_sizes_and_nan(metric) -> None:
    clip = noise(4)
    assert metric.score(Sample(clip[:3]), Sample(clip)).reason is Reason.LENGTH_MISMATCH
    assert metric.score(Sample(clip[:, :-1]), Sample(clip)).reason is Reason.SIZE_MISMATCH
    broken = clip.astype(np.float32)
    broken[1, 2, 3, 0] = np.nan
    assert metric.score(Sample(broken), Sample(clip)).reason is Reason.NOT_FINITE
    assert metric.score(Sample(clip), Sample(broken)).reason is Reason.NOT_FINITE


def test_a_score_is_a_finite_value_or_a_reason() -> None:
    for wrong in ((1.0, Reason.NO_FACE), (None, None), (math.inf, None), (math.nan, None)):
        with pytest.raises(ValueError, match="a score"):
            Score(wrong[0], 1, wrong[1])


def test_frame_rules() -> None:
    a, b = pair_frames(4, 6, "linspace")
    assert a.tolist() == [0, 1, 2, 3]
    assert b.tolist() == [0, 1, 3, 4]
    assert [x.tolist() for x in pair_frames(2, 3, "min")] == [[0, 1], [0, 1]]
    with pytest.raises(ClipError, match="4 frames against 6"):
        pair_frames(4, 6, "exact")


def test_coverage_counts_every_clip_once() -> None:
    scores = [
        Score(2.0, 3, stats={"frames": 3.0}),
        Score(4.0, 1, stats={"frames": 1.0}),
        Score.missing(Reason.NO_FACE),
        Score.missing(Reason.INFINITE, stats={"frames": 0.0}),
    ]
    total = Psnr().aggregate(scores, expected=6)
    assert (total.mean, total.n, total.N, total.infinite) == (3.0, 2, 6, 1)
    assert total.by_reason == {"infinite": 1, "missing-output": 2, "no-face": 1}
    assert total.n + sum(total.by_reason.values()) == total.N
    assert total.std == pytest.approx(math.sqrt(2.0))
    assert str(total) == "3 (2 of 6; 1 infinite, 2 missing-output, 1 no-face)"
    nothing = Psnr().aggregate([], expected=2)
    assert (nothing.mean, nothing.n, nothing.N) == (None, 0, 2)
    with pytest.raises(ValueError, match="4 scores where 3"):
        Psnr().aggregate(scores, expected=3)


@settings(max_examples=30, deadline=None)
@given(
    levels=st.lists(st.integers(0, 3), min_size=1, max_size=12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    order=st.randoms(use_true_random=False),
)
@pytest.mark.parametrize("metric", IMAGE_METRICS, ids=lambda m: m.key)
def test_aggregates_add_over_any_split_in_any_order(metric, levels, cuts, order) -> None:
    target = noise(2) // 2
    # Level 0 is identical to its target; level 3 has another length.
    clips = [target + np.uint8(level) if level < 3 else target[:, :, :12] for level in levels]
    scores = [metric.score(Sample(clip), Sample(target)) for clip in clips]
    whole = metric.aggregate(scores)
    order.shuffle(scores)
    edges = [0, *sorted(min(cut, len(scores)) for cut in cuts), len(scores)]
    parts = [metric.aggregate(scores[a:b]) for a, b in pairwise(edges)]
    merged = metric.merge(parts)
    assert (merged.n, merged.N, merged.infinite, merged.by_reason) == (
        whole.n,
        whole.N,
        whole.infinite,
        whole.by_reason,
    )
    assert merged.mean == (None if whole.mean is None else pytest.approx(whole.mean, rel=1e-12))
    assert dict(merged.sums) == pytest.approx(dict(whole.sums), rel=1e-12)


def test_what_is_shared_between_metrics_is_computed_once_and_so_is_its_failure() -> None:
    calls = []

    def expensive(sample: Sample) -> int:
        calls.append(sample.name)
        return len(sample.frames)

    def failing(sample: Sample) -> int:
        calls.append("failing")
        raise ClipError(Reason.NO_FACE, "none")

    sample = Sample(noise(3))
    assert [sample.cached("length", expensive) for _ in range(3)] == [3, 3, 3]
    for _ in range(2):
        with pytest.raises(ClipError, match="no-face: none"):
            sample.cached("face", failing)
    assert calls == ["clip", "failing"]


def test_metrics_import_neither_pipelines_nor_heavy_packages() -> None:
    heavy = ("dask", "distributed", "pandas", "pyarrow", "torch", "cmet_pipelines", "cmet_leaderboards", "cmet_eval")
    code = f"import sys, cmet_metrics.registry; print([m for m in {heavy} if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert out.stdout.strip() == "[]"


def test_data_files_are_packaged() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
    assert "*.csv" in project["tool"]["setuptools"]["package-data"]["*"]
