"""Registration, jitter and lip energy on points and sounds whose answer is known, and on real clips moved in known
steps."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cmet_metrics.base import DEFAULT_FILES, Sample
from cmet_metrics.jitter import Jitter, jitter
from cmet_metrics.landmarks import mediapipe_landmarks
from cmet_metrics.lip_energy import LipEnergy, match
from cmet_metrics.registration import Registration, residual
from embedded_corpus.plan import CorpusPlan
from embedded_corpus.writing import write_corpus
from talking_face.media.reading import read_audio, read_frames
from talking_face.reasons import Reason
from tests.metrics.by_key import by_key


def head(seed: int = 0, count: int = 4) -> np.ndarray:
    """(count, 68, 2) points that lie like a face's: eyes 50 px apart."""
    rng = np.random.default_rng(seed)
    points = rng.normal(100, 20, (68, 2))
    points[36:42], points[42:48] = rng.normal((75, 80), 3, (6, 2)), rng.normal((125, 80), 3, (6, 2))
    return np.repeat(points[None], count, axis=0)


@settings(max_examples=25, deadline=None)
@given(
    dx=st.floats(-20, 20),
    dy=st.floats(-20, 20),
    size=st.floats(0.5, 2),
    turn=st.floats(-90, 90),
    seed=st.integers(0, 99),
)
def test_residual_gives_back_the_similarity(dx: float, dy: float, size: float, turn: float, seed: int) -> None:
    target = head(seed)
    rigid = target[:, [*range(27, 36), 36, 39, 42, 45]]
    angle = np.radians(turn)
    spin = size * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    middle = rigid.mean(axis=1, keepdims=True)
    pred = (target - middle) @ spin.T + middle + [dx, dy]
    found = residual(pred, target)
    np.testing.assert_allclose(found.shift, [[dx, dy]] * 4, atol=1e-9)
    np.testing.assert_allclose(found.scale, size, rtol=1e-9)
    np.testing.assert_allclose(found.rotation, turn, atol=1e-7)
    back = residual(target, pred)
    np.testing.assert_allclose(back.scale, 1 / size, rtol=1e-9)
    np.testing.assert_allclose(back.rotation, -turn, atol=1e-7)


def test_residual_leaves_out_what_speech_moves_and_keeps_frames_without_a_face_apart() -> None:
    target, pred = head(), head()
    pred[:, 48:] += 9
    pred[:, :27] -= 9
    pred[2] = np.nan
    found = residual(pred, target)
    assert np.isnan(found.scale[2]) and np.isnan(found.shift[2]).all()
    keep = [0, 1, 3]
    np.testing.assert_allclose([found.scale[keep] - 1, found.rotation[keep]], 0, atol=1e-9)


def test_jitter_is_blind_to_steady_motion_and_measures_noise() -> None:
    still = head(count=400)
    moving = still + np.arange(400)[:, None, None] * np.array([0.7, -0.2])
    np.testing.assert_allclose(jitter(moving), 0, atol=1e-9)
    noise = np.random.default_rng(1).normal(0, 0.5, still.shape)
    eyes = np.linalg.norm(still[0, 42:48].mean(axis=0) - still[0, 36:42].mean(axis=0))
    expected = 100 * 0.5 * np.sqrt(6) * np.sqrt(np.pi / 2) / eyes
    assert jitter(moving + noise).mean() == pytest.approx(expected, rel=0.03)
    assert jitter(3 * (moving + noise)).mean() == pytest.approx(jitter(moving + noise).mean(), rel=1e-12)


def test_match_finds_the_lag_with_syncnets_sign() -> None:
    track = np.random.default_rng(3).normal(size=120)
    for k in range(-15, 16):
        found = match(track[20:80], track[20 + k : 80 + k])  # the sound is k frames early
        assert found.offset == k and found.correlation == pytest.approx(1)
    flat = match(np.zeros(60), track[:60])
    assert flat.correlation == 0


def shifted(frames: np.ndarray, dx: float, turn: float = 0.0, size: float = 1.0) -> np.ndarray:
    height, width = frames.shape[1:3]
    matrix = cv2.getRotationMatrix2D((width / 2, height / 2), -turn, size)
    matrix[0, 2] += dx
    return np.stack([cv2.warpAffine(f, matrix, (width, height), borderMode=cv2.BORDER_REPLICATE) for f in frames])


def test_a_real_clip_moved_in_known_steps(real_clips: list[Path]) -> None:
    target = Sample(read_frames(real_clips[0])[20:26], name="real")
    same = Sample(target.frames.copy())
    for metric in (Registration(), by_key("registration:scale"), by_key("registration:rotation")):
        assert metric.score(same, target).value == pytest.approx(0, abs=1e-6)
    moved = Sample(shifted(target.frames, 4))
    score = Registration().score(moved, target)
    assert score.value == pytest.approx(4, abs=0.5)
    assert score.stats["dx"] / score.stats["frames"] == pytest.approx(4, abs=0.5)
    turned = by_key("registration:rotation").score(Sample(shifted(target.frames, 0, 5)), target)
    assert turned.value == pytest.approx(5, abs=1)
    assert by_key("registration:scale").score(Sample(shifted(target.frames, 0, 0, 1.1)), target).value == pytest.approx(
        10, abs=2
    )
    assert by_key("jitter:ratio").score(same, target).value == pytest.approx(1)
    shaken = np.concatenate([shifted(target.frames[t : t + 1], 2 * (-1) ** t) for t in range(6)])
    assert by_key("jitter:ratio").score(Sample(shaken), target).value > 1.5
    frozen = Sample(np.repeat(target.frames[:1], 6, axis=0))
    assert Jitter().score(frozen, target).value == pytest.approx(0, abs=0.3)  # tracking settles over a few frames
    dark = Sample(np.zeros_like(target.frames), name="dark")
    for metric in (Registration(), Jitter()):
        assert metric.score(dark, target).reason is Reason.NO_FACE
    assert Jitter().score(Sample(target.frames[:2]), target).reason is Reason.TOO_SHORT
    assert Registration().score(Sample(target.frames[:4]), target).reason is Reason.LENGTH_MISMATCH


def test_lip_energy_has_a_reason_for_what_it_cannot_hear_or_see(real_clips: list[Path]) -> None:
    frames, audio = read_frames(real_clips[0])[:40], read_audio(real_clips[0])
    target = Sample(frames)
    assert LipEnergy().score(target, target).reason is Reason.NO_AUDIO
    quiet = Sample(frames, audio=np.zeros(40 * 640, np.int16))
    assert LipEnergy().score(quiet, target).reason is Reason.SILENT
    assert LipEnergy().score(Sample(frames, audio=audio[:12000]), target).reason is Reason.LENGTH_MISMATCH
    assert LipEnergy().score(Sample(frames[:30], audio=audio), target).reason is Reason.TOO_SHORT
    heard = Sample(frames, audio=audio)
    first, second = LipEnergy().score(heard, target), by_key("lip_energy:offset").score(heard, target)
    assert first.stats == second.stats and second.value == abs(first.stats["offset"])
    assert heard.frames is frames and str(LipEnergy().signature()).startswith(
        "lip_energy|variant:correlation|points:mediapipe478-68@64184e22|mouth:inner-lips|sound:mel-10-linear@"
    )


def test_sound_moved_by_k_frames_comes_back_as_k(tmp_path: Path) -> None:
    """On an embedded clip; docs/experiments/metrics.md has thirty of them, and real ones."""
    write_corpus(
        CorpusPlan("clips", speakers=4, size="240x240", seconds=2.0, only=("W902/front/happy/level_3/013",)),
        tmp_path,
        workers=0,
        quiet=True,
    )
    clip = next(tmp_path.glob("*.mp4"))
    frames, audio = read_frames(clip), read_audio(clip)
    first = Sample(frames, audio=audio)
    mesh = mediapipe_landmarks(first, DEFAULT_FILES)
    for k in (-10, -3, 0, 1, 7):
        gap = np.zeros(640 * abs(k), np.int16)
        moved = np.concatenate([audio[640 * k :], gap]) if k >= 0 else np.concatenate([gap, audio])
        sample = Sample(frames, audio=moved)
        sample.cached("mediapipe-478", lambda _: mesh)
        score = by_key("lip_energy:offset").score(sample, first)
        assert score.stats["offset"] == k and score.value == abs(k)
        assert score.stats["correlation"] > 0.5


def test_values_that_depend_on_the_rate_or_the_size_have_a_reason() -> None:
    grey = np.full((4, 64, 64, 3), 90, np.uint8)
    fast = Sample(grey, fps=30.0)
    assert Jitter().score(fast, None).reason is Reason.RATE_MISMATCH
    assert by_key("m_lmd:native-mp").score(fast, Sample(grey[:, :32], fps=30.0)).reason is Reason.SIZE_MISMATCH
