"""EAT's landmark distances against numbers of EAT's own code, its alignment against scikit-image, and the reasons."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.transform import SimilarityTransform, warp

from cmet_metrics.base import DEFAULT_FILES, Sample, Score
from cmet_metrics.eat_align import ALIGN_POINTS, AlignedTrack, align, similarity, template, track, warp_crop
from cmet_metrics.lmd import (
    landmark_distance,
    mediapipe_track,
)
from talking_face.media.reading import read_frames
from talking_face.pretrained.store import MissingWeights, weight_path
from talking_face.reasons import Reason
from tests.metrics.by_key import by_key
from tests.models import models

TOLERANCE = 1e-9  # px; measured difference 4e-16, as both sum the same whole-pixel distances in another order

# (sha256 of both clips' bytes, M-LMD, F-LMD) by github.com/yuangan/evaluation_eat at
# e39b004aa67b13eda773cb5b5cebdb119feaa84b: code/utils_crop.py crop_and_align on every frame, the crops written as PNG,
# code/test_lmd.py get_lmd(pred, target, False) on the two folders. Run with dlib 20.0.1, scikit-image 0.26.0,
# OpenCV 5.0.0, and dlib's 68-point file fbdc2cb8.
GOLDEN = {
    "other-moment": ("aba7a13626e2be7d", 1.7147393695814137, 2.23340502028968),
    "held": ("086e375f83053a56", 1.2739914503605163, 1.153529179485874),
    "blurred": ("36db3850dcbc2830", 1.6796239682285974, 2.0326261093129614),
    "other-person": ("c63ae9e555ddf2bb", 2.5259892185241006, 3.6738032601504176),
    "faceless-and-shorter": ("949b0b77c083385b", 0.5978625739437217, 0.893724496702828),
    "cut-at-edge": ("87de8aae8bf0d9f1", 0.5745052101404985, 0.7376351262045074),
}


@cache
def frames(path: Path, start: int, stop: int) -> np.ndarray:
    return read_frames(path)[start:stop]


def golden_case(name: str, clip: Callable[..., np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """(pred, target) frames of one golden case; `clip(name, start, stop)` decodes."""
    if name == "other-moment":
        return clip("bbaf2n", 20, 32), clip("bbaf2n", 40, 52)
    if name == "held":
        target = clip("lrwp9a", 20, 32)
        return np.repeat(target[:1], len(target), axis=0), target
    if name == "blurred":
        target = clip("sbia1a", 20, 32)
        return np.stack([cv2.GaussianBlur(f, (0, 0), 3) for f in target]), target
    if name == "other-person":
        return clip("swwp2s", 20, 32), clip("lbbc2a", 20, 32)
    if name == "faceless-and-shorter":
        pred = clip("lwbsza", 20, 30).copy()
        pred[[2, 3]] = 0
        return pred, clip("lwbsza", 20, 34)
    return clip("brbk7n", 20, 32)[:, :, 90:], clip("brbk7n", 20, 32)  # the face touches the picture's edge


@pytest.mark.parametrize("name", GOLDEN)
def test_eat_equals_the_reference_code_on_real_clips(name: str, real_clips: list[Path]) -> None:
    folder = real_clips[0].parent
    pred, target = golden_case(name, lambda clip, start, stop: frames(folder / f"{clip}.mpg", start, stop))
    digest, mouth, face = GOLDEN[name]
    if hashlib.sha256(pred.tobytes() + target.tobytes()).hexdigest()[:16] != digest:
        pytest.skip("this decoder gives other pixels than the one the golden numbers were made with")
    samples = Sample(pred, name="pred"), Sample(target, name="target")
    for metric, expected in ((by_key("m_lmd:eat"), mouth), (by_key("f_lmd:eat"), face)):
        score = metric.score(*samples)
        assert score.value == pytest.approx(expected, abs=TOLERANCE)
        assert score.stats["pred_frames"] == len(pred) and score.stats["target_frames"] == len(target)
    if name == "faceless-and-shorter":
        assert score.stats["pred_dropped"] == 2 and score.n == 8 and score.stats["pairs"] == 10
        assert "8 of 10 pairs scored; no face in 2 of 10 frames of pred and 0 of 14 of target" in score.detail


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), far=st.floats(-60, 60), turn=st.floats(-0.5, 0.5), size=st.floats(0.4, 2.5))
def test_alignment_equals_scikit_image_to_the_last_bit(seed: int, far: float, turn: float, size: float) -> None:
    """Also where the warp leaves the picture, and where the picture has no black."""
    rng = np.random.default_rng(seed)
    image = rng.integers(rng.integers(0, 50), 255, (140, 150, 3), dtype=np.uint8)
    spin = size * np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    points = np.rint(template()[ALIGN_POINTS] @ spin.T + far + rng.normal(0, 1, (18, 2))).astype(np.float32)
    theirs = SimilarityTransform()
    with pytest.warns(FutureWarning):  # `estimate` is going; it is what the reference calls
        theirs.estimate(template()[ALIGN_POINTS], points)
    matrix = similarity(template()[ALIGN_POINTS], points)
    np.testing.assert_array_equal(matrix, theirs.params)
    expected = np.array(warp(image, theirs, output_shape=(163, 163)) * 255, dtype=np.uint8)[1:129, 1:129]
    np.testing.assert_array_equal(warp_crop(image, matrix), expected)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 5))
def test_distance_properties(seed: int, count: int) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.normal(60, 20, (2, count, 68, 2))
    forward = landmark_distance(a, b)
    np.testing.assert_allclose(landmark_distance(b, a), forward)
    np.testing.assert_allclose(
        landmark_distance(a + np.array([5, -9]), b), forward
    )  # where the face is does not matter
    np.testing.assert_allclose(landmark_distance(3 * a, 3 * b), 3 * forward)  # its size in pixels does
    order = rng.permutation(count)
    np.testing.assert_array_equal(landmark_distance(a[order], b[order]), forward[order])
    assert (landmark_distance(a, a) == 0).all() and (forward >= 0).all()


def test_a_clip_without_enough_faces_gives_a_reason(real_clips: list[Path]) -> None:
    target = frames(real_clips[0].parent / "bbaf2n.mpg", 20, 24)
    few = target.copy()
    few[1:] = 0
    for metric in (by_key("m_lmd:eat"), by_key("m_lmd:eat-mp")):
        none = metric.score(Sample(np.zeros_like(target), name="black"), Sample(target))
        assert (none.value, none.reason) == (None, Reason.NO_FACE)
        assert "black: no face in any of 4 frames" in none.detail
        one = metric.score(Sample(few), Sample(target))
        assert (one.value, one.reason) == (None, Reason.FEW_FACES)
        assert one.stats["pred_dropped"] == 3


def test_mouth_and_face_share_one_pass(real_clips: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    clip = frames(real_clips[0].parent / "bbaf2n.mpg", 20, 23)
    samples = Sample(clip), Sample(clip.copy())
    first = [m.score(*samples) for m in (by_key("m_lmd:eat"), by_key("m_lmd:eat-mp"))]
    monkeypatch.setattr("cmet_metrics.eat_align.align", None)
    monkeypatch.setattr("talking_face.pretrained.face_landmarker.FaceLandmarker", None)
    again: list[Score] = [m.score(*samples) for m in (by_key("f_lmd:eat"), by_key("f_lmd:eat-mp"))]
    assert [s.value for s in first + again] == [0.0] * 4


def test_a_held_frame_has_the_points_of_the_one_before(real_clips: list[Path]) -> None:
    clip = frames(real_clips[0].parent / "bbaf2n.mpg", 20, 22)
    held = track(clip[[0, 0, 1, 1]], DEFAULT_FILES)
    single = track(clip, DEFAULT_FILES)
    np.testing.assert_array_equal(held.landmarks, single.landmarks[[0, 0, 1, 1]])
    assert (held.n_frames, held.dropped) == (4, 0)


def test_both_point_sets_land_on_the_template(real_clips: list[Path]) -> None:
    """The face in the crop is where the template says, in both variants, and the mouth opening agrees in sign."""
    sample = Sample(frames(real_clips[0].parent / "bbaf2n.mpg", 20, 26))
    found: list[AlignedTrack] = [track(sample.frames, DEFAULT_FILES), mediapipe_track(sample, DEFAULT_FILES)]
    for one in found:
        offset = one.landmarks[:, ALIGN_POINTS] - (template()[ALIGN_POINTS] - 1)
        assert np.linalg.norm(offset, axis=-1).mean() < 4  # px of 128
    apart = np.linalg.norm(found[0].landmarks - found[1].landmarks, axis=-1).mean()
    assert apart < 4
    crop = align(sample.frames[0], DEFAULT_FILES)
    assert crop is not None and crop.shape == (128, 128, 3)


def test_atvgnet_is_what_its_script_computes(real_clips: list[Path]) -> None:
    """Its lines for one pair of frames, with dlib called as it calls it."""
    dlib = pytest.importorskip("dlib")
    detector = dlib.get_frontal_face_detector()
    predictor = dlib.shape_predictor(str(weight_path("dlib_68", files=models())))

    def mouth(frame: np.ndarray) -> np.ndarray:
        gray = cv2.cvtColor(frame[..., ::-1].copy(), cv2.COLOR_BGR2GRAY)
        for rect in detector(gray, 1):
            shape = np.array([(p.x, p.y) for p in predictor(gray, rect).parts()])
            mouth_land = shape[48:68].copy()
            mouth_land = mouth_land - np.sum(mouth_land, axis=0) / 20.0
        return mouth_land

    folder = real_clips[0].parent
    target, pred = frames(folder / "bbaf2n.mpg", 20, 23), frames(folder / "bbaf2n.mpg", 40, 44)
    distances = []
    for real, fake in zip(target, pred, strict=False):
        dis = np.sqrt(np.sum((mouth(real) - mouth(fake)) ** 2, axis=1))
        distances.append(np.sum(dis, axis=0))
    score = by_key("m_lmd:atvgnet").score(Sample(pred), Sample(target))
    assert score.value == pytest.approx(sum(distances) / len(distances), abs=1e-9)
    assert score.n == 3
    # Over clips it is the mean over frames, long clips weighing more.
    other = by_key("m_lmd:atvgnet").score(Sample(target), Sample(target))
    both = by_key("m_lmd:atvgnet").aggregate([score, other])
    assert both.mean == pytest.approx(sum(distances) / 6, abs=1e-9)
    blind = target.copy()
    blind[1:] = 0
    assert by_key("m_lmd:atvgnet").score(Sample(blind), Sample(target)).reason is Reason.FEW_FACES


def test_native_points_are_measured_in_distances_between_the_eyes(real_clips: list[Path]) -> None:
    clip = frames(real_clips[0].parent / "bbaf2n.mpg", 20, 44)
    pred, target = clip[:6], clip[18:24]
    small = [
        np.stack([cv2.resize(f, None, fx=0.75, fy=0.75, interpolation=cv2.INTER_AREA) for f in c])
        for c in (pred, target)
    ]
    for metric in (by_key("m_lmd:native-mp"), by_key("f_lmd:native-mp")):
        value = metric.score(Sample(pred), Sample(target)).value
        assert value is not None and 0.5 < value < 20
        assert metric.score(*map(Sample, small)).value == pytest.approx(value, rel=0.25)
        assert metric.score(Sample(pred), Sample(target[:5])).reason is Reason.LENGTH_MISMATCH


def test_vico_without_its_weights_says_what_to_fetch() -> None:
    try:
        weight_path("fan_2d_4", files=models())
    except MissingWeights:
        clip = np.zeros((2, 64, 64, 3), np.uint8)
        score = by_key("m_lmd:vico").score(Sample(clip), Sample(clip))
        assert score.reason is Reason.MISSING_WEIGHTS
        assert "cmet-eval weights fetch fan_2d_4" in score.detail
        assert "fan4-68@absent" in str(by_key("m_lmd:vico").signature())
