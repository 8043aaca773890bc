"""PSNR and SSIM against scikit-image and against what must hold for any frames."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from cmet_metrics.base import DEFAULT_FILES, Sample
from cmet_metrics.eat_align import track
from cmet_metrics.fvd import shown_clip
from cmet_metrics.psnr import Psnr, mouth_boxes, psnr, squared_error
from cmet_metrics.ssim import Ssim, luma, ssim, ssim_box
from cmet_metrics.syncnet_crops import crop_track
from talking_face.media.reading import read_frames
from talking_face.reasons import Reason
from tests.metrics.by_key import by_key


def skimage_ssim(a: np.ndarray, b: np.ndarray) -> float:
    """Wang 2004 by scikit-image, whose full map includes the border of 5 px that is not valid."""
    _, full = structural_similarity(
        a, b, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255, channel_axis=-1, full=True
    )
    return float(full[5:-5, 5:-5].mean())


def picture(seed: int, h: int, w: int) -> np.ndarray:
    """Smooth structure with a little noise, (H, W, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = cv2.resize(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8), (w, h), interpolation=cv2.INTER_CUBIC)
    return np.clip(coarse + rng.normal(0, 4, (h, w, 3)), 0, 255).astype(np.uint8)


def jpeg(image: np.ndarray, quality: int) -> np.ndarray:
    return cv2.imdecode(cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])[1], cv2.IMREAD_COLOR)


def constant(level: int, size: int = 32) -> np.ndarray:
    return np.full((size, size, 3), level, np.uint8)


NATURAL = picture(1, 96, 128)
ODD = picture(2, 37, 53)
PAIRS = {
    "random": (picture(3, 64, 64), picture(4, 64, 64)),
    "white-noise": tuple(np.random.default_rng(s).integers(0, 256, (48, 50, 3), dtype=np.uint8) for s in (5, 6)),
    "constant": (constant(200), constant(201)),
    "constant-far": (constant(10), constant(240)),
    "black-white": (constant(0), constant(255)),
    "shifted": (NATURAL, np.roll(NATURAL, (1, 2), (0, 1))),
    "jpeg-5": (jpeg(NATURAL, 5), NATURAL),
    "jpeg-90": (jpeg(NATURAL, 90), NATURAL),
    "odd-size": (jpeg(ODD, 30), ODD),
    "smallest": (picture(7, 11, 12), picture(8, 11, 12)),
    "float": (NATURAL * 0.5 + 0.25, NATURAL.astype(np.float64)),
}

# (y, torchmetrics) of PAIRS. y: basicsr 1.4.2, calculate_ssim(bgr, bgr, crop_border=0, test_y_channel=True).
# torchmetrics: torchmetrics 1.9.0 on torch 2.13.0, StructuralSimilarityIndexMeasure(data_range=255.0) on float64.
GOLDEN_OF = "7470f290"  # of the pictures' bytes, which OpenCV's JPEG and resize make
GOLDEN = {
    "random": (0.38552216925946886, 0.1779603511095047),
    "white-noise": (0.021136179218475055, 0.007640345487743616),
    "constant": (0.9999895882000791, 0.9999875426292419),
    "constant-far": (0.21881978719641543, 0.08329221606254578),
    "black-white": (0.1356432018182883, 9.999000030802563e-05),
    "shifted": (0.9078649583106189, 0.7887700796127319),
    "jpeg-5": (0.7927899251342759, 0.6462180018424988),
    "jpeg-90": (0.9707665423083758, 0.9237872958183289),
    "odd-size": (0.9317517128711981, 0.9099605679512024),
    "smallest": (-0.22374284565896066, 0.23298798501491547),
    "float": (0.7782955494755579, 0.700382649898529),
}


@pytest.mark.parametrize("name", PAIRS)
def test_ssim_equals_scikit_image(name: str) -> None:
    a, b = PAIRS[name]
    assert ssim(a[None], b[None])[0] == pytest.approx(skimage_ssim(a, b), abs=2e-7)
    assert ssim(a.astype(float)[None], b[None])[0] == pytest.approx(skimage_ssim(a, b), abs=1e-9)
    theirs = structural_similarity(a, b, data_range=255, channel_axis=-1)
    assert ssim_box(a[None], b[None])[0] == pytest.approx(theirs, abs=1e-9)


def two_tone(left: int, right: int, noise: float = 0.0, seed: int = 0) -> np.ndarray:
    """Two flat halves, (96, 96, 3) uint8."""
    flat = np.repeat(np.array([[[left]], [[right]]]), 48, axis=0).repeat(96, axis=1).repeat(3, axis=2)
    return np.clip(flat + np.random.default_rng(seed).normal(0, noise or 1e-9, flat.shape), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("noise", [0.0, 1.0, 5.0])
def test_flat_areas_of_other_colours_do_not_lose_digits(noise: float) -> None:
    """Where float32 moments alone would be off by up to 4e-5."""
    for a, b in [((100, 200), (200, 100)), ((0, 255), (100, 200)), ((0, 255), (0, 255)), ((10, 90), (90, 30))]:
        pred, target = two_tone(*a, noise), two_tone(*b, noise, 1)
        assert ssim(pred[None], target[None])[0] == pytest.approx(skimage_ssim(pred, target), abs=1e-6)


def test_luma_and_reflected_ssim_equal_the_libraries_they_are_named_after() -> None:
    made = hashlib.sha256(b"".join(x.tobytes() for pair in PAIRS.values() for x in pair)).hexdigest()
    if not made.startswith(GOLDEN_OF):
        pytest.skip("this OpenCV makes other pictures than those the golden numbers were made of")
    for name, (y, reflected) in GOLDEN.items():
        a, b = (x[None] for x in PAIRS[name])
        assert ssim(luma(a), luma(b))[0] == pytest.approx(y, abs=1e-6), name  # their luma is float32: 4e-8
        assert ssim(a, b, border="reflect")[0] == pytest.approx(reflected, abs=1e-6), name  # so is their kernel
    assert luma(np.array([0, 255], np.uint8).repeat(3).reshape(1, 1, 2, 3)).ravel() == pytest.approx([16, 235])


def test_regions_are_what_they_say(real_clips: list[Path]) -> None:
    target = read_frames(real_clips[0])[20:23]
    pred = target.copy()
    pred[:, : target.shape[1] // 2] ^= 8
    assert by_key("psnr:lower-half").score(Sample(pred), Sample(target)).reason is Reason.INFINITE
    assert Psnr().score(Sample(pred), Sample(target)).value == pytest.approx(20 * math.log10(255 / 8) + 3.0103, abs=1)

    sample = Sample(target)
    corners, side = mouth_boxes(sample, DEFAULT_FILES)
    assert 40 < side < 90  # px; the faces of GRID have 50 px between the eyes
    (x, y), inside = corners[1].astype(int), np.zeros(target.shape[:3], bool)
    for t, (left, top) in enumerate(corners.astype(int)):
        inside[t, top : top + side, left : left + side] = True
    outside = np.where(inside[..., None], target, target ^ 1)
    within = np.where(inside[..., None], target ^ 16, target)
    assert by_key("psnr:mouth").score(Sample(outside), sample).reason is Reason.INFINITE
    for metric in (by_key("psnr:mouth"), by_key("psnr:pooled-mouth")):
        assert metric.score(Sample(within), sample).value == pytest.approx(20 * math.log10(255 / 16), abs=1e-9)
    expected = peak_signal_noise_ratio(
        target[1, y : y + side, x : x + side], np.zeros((side, side, 3), np.uint8), data_range=255
    )
    assert psnr(np.zeros((1, side, side, 3), np.uint8), target[1:2, y : y + side, x : x + side])[0] == (
        pytest.approx(expected, abs=1e-9)
    )
    dark = Sample(np.zeros_like(target))
    assert by_key("psnr:mouth").score(sample, dark).reason is Reason.NO_FACE


@pytest.mark.parametrize("name", PAIRS)
def test_psnr_equals_scikit_image(name: str) -> None:
    a, b = PAIRS[name]
    assert psnr(a[None], b[None])[0] == pytest.approx(peak_signal_noise_ratio(b, a, data_range=255), abs=1e-9)


def test_arrays_of_a_clip_are_scored_frame_by_frame() -> None:
    a = np.stack([jpeg(NATURAL, q) for q in (10, 40, 80)])
    b = np.stack([NATURAL] * 3)
    assert psnr(a, b).tolist() == [psnr(x[None], NATURAL[None])[0] for x in a]
    assert ssim(a, b).tolist() == [ssim(x[None], NATURAL[None])[0] for x in a]
    # A strided view, such as a crop, gives what its copy gives.
    assert ssim(a[:, 10:60, 20:81], b[:, 10:60, 20:81]).tolist() == (
        ssim(a[:, 10:60, 20:81].copy(), b[:, 10:60, 20:81].copy()).tolist()
    )


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**16), h=st.integers(11, 40), w=st.integers(11, 40), strength=st.integers(1, 60))
def test_symmetry_identity_bounds_and_joint_permutation(seed: int, h: int, w: int, strength: int) -> None:
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 256, (3, h, w, 3), dtype=np.uint8)
    b = np.clip(a + rng.integers(-strength, strength + 1, a.shape), 0, 255).astype(np.uint8)
    order = rng.permutation(3)
    for function in (psnr, ssim, ssim_box):
        forward = function(a, b)
        np.testing.assert_allclose(function(b, a), forward, rtol=1e-12)
        np.testing.assert_array_equal(function(a[order], b[order]), forward[order])
        np.testing.assert_allclose(function(a[..., ::-1], b[..., ::-1]), forward, rtol=1e-12)  # colour order is free
    assert (ssim(a, b) <= 1 + 1e-12).all() and (ssim(a, b) >= -1 - 1e-12).all()
    np.testing.assert_allclose(ssim(a, a), 1.0, rtol=1e-12)
    assert np.isinf(psnr(a, a)).all()


def test_identical_frames_are_counted_and_left_out() -> None:
    target = np.stack([NATURAL] * 4)
    pred = target.copy()
    pred[1:3] ^= 1  # every pixel one level off: 48.13 dB
    score = Psnr().score(Sample(pred), Sample(target))
    assert score.value == pytest.approx(20 * math.log10(255), abs=1e-9)
    assert (score.n, score.stats["identical"]) == (2, 2)
    assert "2 identical frames" in score.detail
    pooled = by_key("psnr:pooled").score(Sample(pred), Sample(target))
    assert pooled.value == pytest.approx(20 * math.log10(255) + 10 * math.log10(2), abs=1e-9)
    same = Psnr().score(Sample(target), Sample(target))
    assert (same.value, same.reason) == (None, Reason.INFINITE)
    # Pooled over clips, an identical clip halves the error; in the mean of dB it is only counted.
    both = [by_key("psnr:pooled").score(Sample(p), Sample(target)) for p in (pred, target)]
    total = by_key("psnr:pooled").aggregate(both)
    assert total.mean == pytest.approx(20 * math.log10(255) + 10 * math.log10(4), abs=1e-9)
    assert (total.n, total.N, total.infinite) == (2, 2, 1)


def test_pooled_psnr_of_clips_is_the_psnr_of_all_their_frames() -> None:
    target = np.stack([NATURAL] * 3)
    clips = [np.stack([jpeg(NATURAL, q)] * 3) for q in (10, 50)]
    metric = by_key("psnr:pooled")
    total = metric.aggregate(metric.score(Sample(clip), Sample(target)) for clip in clips)
    expected = peak_signal_noise_ratio(np.concatenate([target] * 2), np.concatenate(clips), data_range=255)
    assert total.mean == pytest.approx(expected, abs=1e-9)


def test_frames_smaller_than_the_window_give_a_reason() -> None:
    small = np.zeros((2, 10, 40, 3), np.uint8)
    score = Ssim().score(Sample(small), Sample(small))
    assert score.reason is Reason.SIZE_MISMATCH
    assert "at least 11x11" in score.detail
    tiny = Sample(small[:, :, :6])
    assert by_key("ssim:skimage").score(Sample(small), Sample(small)).value == 1.0
    assert by_key("ssim:skimage").score(tiny, tiny).reason is Reason.SIZE_MISMATCH


def test_wrong_shapes_are_named_with_both_values() -> None:
    with pytest.raises(ValueError, match=r"\(1, 16, 16, 3\) and \(1, 16, 15, 3\)"):
        psnr(np.zeros((1, 16, 16, 3)), np.zeros((1, 16, 15, 3)))
    with pytest.raises(ValueError, match=r"must be \(T, H, W, 3\)"):
        Sample(np.zeros((16, 16, 3), np.uint8))


def test_floats_of_another_range_are_refused_in_place_of_a_wrong_value() -> None:
    """Floats in 0..1 had a PSNR of 74.4 in place of 26.3, and an SSIM of 0.99995 in place of 0.88."""
    a, b = np.stack([jpeg(NATURAL, 5)] * 2), np.stack([NATURAL] * 2)
    right = {function: function(a, b).tolist() for function in (psnr, ssim, ssim_box)}
    for low, high in ((0, 1), (-1, 1), (0, 65535)):
        x, y = (low + frames / 255 * (high - low) for frames in (a, b))
        for make in (Sample, luma):
            with pytest.raises(ValueError, match="value_range="):
                make(x)
        for function, expected in right.items():
            from_zero = low == 0 or function is psnr  # SSIM is not defined for values below 0
            for pair in ((x, y), (a, y)):
                with pytest.raises(ValueError, match="write data_range=" if from_zero else "needs values from 0"):
                    function(*pair)
            if from_zero:
                with pytest.raises(ValueError, match="but data_range=0"):
                    function(x, y, 0.5)
                tolerance = 1e-6 if function is ssim else 1e-9
                assert function(x, y, high - low) == pytest.approx(expected, abs=tolerance)
    with pytest.raises(ValueError, match="data_range=1"):
        psnr(a, b, 1.0)
    assert psnr(a, b.astype(np.float64)).tolist() == right[psnr]


@pytest.mark.parametrize("function", [psnr, ssim, ssim_box, squared_error, Sample, luma, shown_clip, track, crop_track])
def test_arrays_of_another_layout_or_dtype_are_refused_in_place_of_a_wrong_value(function) -> None:
    frames = np.zeros((4, 16, 18, 3), np.uint8)
    wrong = {
        r"x.transpose\(0, 2, 3, 1\)": frames.transpose(0, 3, 1, 2),
        r"x.transpose\(1, 2, 3, 0\)": frames.transpose(3, 0, 1, 2),
        r"x\[..., :3\]": np.zeros((4, 16, 18, 4), np.uint8),
        r"x\[None\]": frames[0],
        r"one by one, x\[k\]": frames[None],
        "x.astype": frames.astype(np.int64),
        "value_range=": frames.astype(np.uint16),
        "mask": frames > 0,
        "got .* object": frames.astype(object),
        "at least one row": frames[:, :0],
        "masked": np.ma.array(frames),
        "np.asarray": frames.tolist(),
    }
    if function not in (psnr, ssim, ssim_box, squared_error):
        wrong[r"x.repeat\(3, axis=-1\)"] = frames[..., :1]
    for message, x in wrong.items():
        arguments = {shown_clip: (x,), luma: (x,), Sample: (x,), track: (x, DEFAULT_FILES), crop_track: (x, {0: None})}
        with pytest.raises((TypeError, ValueError), match=message):
            function(*arguments.get(function, (x, x)))


def test_every_dtype_of_floats_and_every_stride_has_the_value_of_its_copy() -> None:
    a, b = np.stack([jpeg(NATURAL, 20)] * 2), np.stack([NATURAL] * 2)
    for metric in (Psnr(), Ssim(), by_key("ssim:skimage"), by_key("ssim:y")):
        expected = metric.score(Sample(a), Sample(b)).value
        for dtype in (np.float16, ">f4", np.longdouble):
            assert metric.score(Sample(a.astype(dtype)), Sample(b)).value == pytest.approx(expected, abs=1e-6), dtype
        backwards = np.ascontiguousarray(a[:, ::-1, ::-1])[:, ::-1, ::-1]
        backwards.flags.writeable = False
        assert metric.score(Sample(backwards), Sample(b)).value == expected
