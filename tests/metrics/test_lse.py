"""LSE-C, LSE-D and offset against SyncNetInstance.evaluate on the same crops and sound; crops, reasons, properties."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import wavfile

from cmet_metrics import syncnet_crops
from cmet_metrics.base import DEFAULT_FILES, Sample, Score
from cmet_metrics.lse import LipSyncNet, Lse, lip_sync, n_windows, shifted_distances
from cmet_metrics.registry import get_metric
from cmet_metrics.scene_cuts import find_scenes
from cmet_metrics.syncnet_crops import MIN_TRACK, crop_track, join_boxes, whole_frame
from talking_face.media.reading import read_audio, read_frames
from talking_face.pretrained.dlib_models import Box
from talking_face.pretrained.syncnet import SyncNet
from talking_face.reasons import Reason, UserError
from tests.syncnet_stand_in import babble, official_form, reference_net, smooth_frames

TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def net() -> SyncNet:
    pytest.importorskip("syncnet_python")
    return SyncNet(official_form(reference_net()), "stand-in")


def metrics_on(network: LipSyncNet, crop: Any = "crop", audio: Any = "driving") -> list[Lse]:
    """The three metrics with another network in the official one's place."""

    class WithNetwork(Lse):
        def load_network(self) -> LipSyncNet:
            return network

        def network_tag(self) -> str:
            return network.tag

    return [WithNetwork(measure=measure, crop=crop, audio=audio) for measure in ("confidence", "distance", "offset")]


def evaluate(folder: Path, crops: np.ndarray, samples: np.ndarray) -> tuple[int, float, float]:
    """(offset, confidence, distance) by syncnet_python's own code. It reads any picture that is called .jpg: PNG here,
    so that both see the same pixels."""
    from syncnet_python.SyncNetInstance import SyncNetInstance

    for t, crop in enumerate(crops):
        (folder / f"{t:06d}.jpg").write_bytes(cv2.imencode(".png", crop[..., ::-1])[1].tobytes())
    wavfile.write(folder / "audio.wav", 16000, samples)
    options = SimpleNamespace(tmp_dir=str(folder), batch_size=20, vshift=15)
    with torch.no_grad():
        return SyncNetInstance(reference_net(), device="cpu").evaluate(options)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("frames", "samples"), [(25, 25 * 640), (22, 19 * 640 + 300), (20, 30 * 640), (6, 6 * 640)], ids=str
)
def test_equal_to_syncnet_python(frames: int, samples: int, net: SyncNet, tmp_path: Path) -> None:
    """Sound as long as the picture, shorter, longer, and the shortest clip there is a number for."""
    clip = Sample(smooth_frames(frames, 256, frames), audio=babble(samples, 5))
    assert clip.audio is not None
    offset, confidence, distance = evaluate(tmp_path, whole_frame(clip, DEFAULT_FILES).crops, clip.audio)
    c, d, o = (metric.score(clip, clip) for metric in metrics_on(net))
    assert c.value == pytest.approx(confidence, abs=TOLERANCE)
    assert d.value == pytest.approx(distance, abs=TOLERANCE)
    assert (o.value, o.stats["offset"]) == (abs(offset), offset)
    assert c.n == n_windows(frames, samples) == min(frames, samples // 640) - 5


def test_lm_crops_a_real_clip(net: SyncNet, tmp_path: Path, real_clips: list[Path]) -> None:
    frames, samples = read_frames(real_clips[0])[30:42], read_audio(real_clips[0])[30 * 640 : 42 * 640]
    clip = Sample(frames, audio=samples)
    from cmet_metrics.syncnet_crops import from_landmarks

    crops = from_landmarks(clip, DEFAULT_FILES).crops
    assert crops.shape == (12, 224, 224, 3)
    offset, confidence, distance = evaluate(tmp_path, crops, samples)
    c, d, o = (metric.score(clip, clip) for metric in metrics_on(net, "lm"))
    assert (c.value, d.value) == (
        pytest.approx(confidence, abs=TOLERANCE),
        pytest.approx(distance, abs=TOLERANCE),
    )
    assert o.stats["offset"] == offset


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**16), count=st.integers(1, 50), width=st.integers(2, 40), vshift=st.integers(1, 15))
def test_distances_equal_torchs_and_do_not_depend_on_the_axes(seed: int, count: int, width: int, vshift: int) -> None:
    library = pytest.importorskip("syncnet_python.SyncNetInstance")
    rng = np.random.default_rng(seed)
    lip, sound = rng.normal(0, 1, (2, count, width)).astype(np.float32)
    theirs = torch.stack(library.calc_pdist(torch.from_numpy(lip), torch.from_numpy(sound), vshift), 1).mean(1)
    ours = shifted_distances(lip, sound, vshift)
    np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-5)
    turn = np.linalg.qr(rng.normal(size=(width, width)))[0]
    np.testing.assert_allclose(shifted_distances(lip @ turn, sound @ turn, vshift), ours, atol=1e-4)
    result = lip_sync(lip, sound, vshift)
    assert result.confidence >= 0 and abs(result.offset) <= vshift
    assert result.distance == ours.min() and result.windows == count


@pytest.mark.parametrize("delay", range(-10, 11))
def test_sound_delayed_by_k_frames_gives_minus_k(delay: int) -> None:
    """Embeddings of any width will do, so that a network of our own fits in."""
    rng = np.random.default_rng(delay + 100)
    scene = rng.normal(0, 1, (60, 64))
    lip, sound = scene[15:45], scene[15 - delay : 45 - delay] + rng.normal(0, 0.2, (30, 64))
    assert lip_sync(lip, sound).offset == -delay
    assert lip_sync(lip, sound).confidence > lip_sync(lip, rng.permutation(sound)).confidence


def test_one_pass_serves_all_three_and_the_source_sound_is_another_score(net: SyncNet) -> None:
    calls = []

    class Counted:
        tag = "counted"

        def lip(self, crops: np.ndarray) -> np.ndarray:
            calls.append("lip")
            return net.lip(crops)

        def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
            calls.append("sound")
            return net.sound(samples, windows)

    clip = Sample(smooth_frames(8, 64, 0), audio=babble(8 * 640, 0))
    source = Sample(smooth_frames(8, 64, 1), audio=babble(8 * 640, 1))
    driving = [metric.score(clip, source) for metric in metrics_on(Counted())]
    assert calls == ["lip", "sound"]
    other = [metric.score(clip, source) for metric in metrics_on(Counted(), audio="source")]
    assert calls == ["lip", "sound", "sound"]
    assert driving[1].value != other[1].value
    assert "|audio:driving|" in str(Lse(crop="crop").signature())
    assert "|audio:source|" in str(Lse(crop="crop", audio="source").signature())


def test_reasons(net: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    frames, samples = smooth_frames(8, 64, 0), babble(8 * 640, 0)

    def reason(sample: Sample, crop: str = "crop") -> Reason | None:
        score = metrics_on(net, crop)[0].score(sample, sample)
        assert (score.value is None) == (score.reason is not None)
        return score.reason

    assert reason(Sample(frames, audio=samples)) is None
    assert reason(Sample(frames)) is Reason.NO_AUDIO
    assert reason(Sample(frames, audio=samples[:0])) is Reason.NO_AUDIO
    assert reason(Sample(frames, audio=(samples // 500).clip(-20, 20))) is Reason.SILENT
    assert reason(Sample(frames[:1], audio=samples)) is Reason.TOO_SHORT
    assert reason(Sample(frames[:5], audio=samples)) is Reason.TOO_SHORT
    assert reason(Sample(frames, audio=samples[: 5 * 640 + 639])) is Reason.TOO_SHORT
    assert reason(Sample(np.repeat(frames, 2, axis=0), audio=samples[: 7 * 640])) is Reason.LENGTH_MISMATCH
    assert reason(Sample(frames, fps=30.0, audio=samples)) is Reason.RATE_MISMATCH
    assert reason(Sample(np.zeros_like(frames), audio=samples), "lm") is Reason.NO_FACE


def test_without_weights_there_is_a_reason_that_says_what_to_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path))
    monkeypatch.delenv("CMET_EVAL_WEIGHTS", raising=False)
    clip = Sample(smooth_frames(8, 64, 0), audio=babble(8 * 640, 0))
    for key in ("lse_c:crop", "lse_d:lm", "lse_offset"):
        score = get_metric(key).score(clip, clip)
        assert score.reason is Reason.MISSING_WEIGHTS
        assert "syncnet_v2.model" in score.detail and "cmet-eval weights fetch syncnet_v2" in score.detail
        assert "network:syncnet-v2@961e8696" in str(get_metric(key).signature())


def test_signatures() -> None:
    tail = "|codec:none|audio:driving|windows:length-5|vshift:15|min-heard:0.5|agg:video-mean|version:1.0.0"
    crops = {
        "track": "s3fd-track-224,min-track-5|detector:s3fd@d54a87c2",
        "crop": "whole-frame-224",
        "lm": "mediapipe478-224|detector:mediapipe478@64184e22",
    }
    for variant, crop in crops.items():
        body = f"network:syncnet-v2@961e8696|crop:{crop}{tail}"
        assert str(get_metric(f"lse_c:{variant}").signature()) == f"lse_c|variant:{variant}|{body}"
        assert str(get_metric(f"lse_d:{variant}").signature()) == f"lse_d|variant:{variant}|{body}"
        absolute = f"lse_offset|variant:{variant}|value:absolute|{body}"
        assert str(get_metric(f"lse_offset:{variant}").signature()) == absolute
    assert [get_metric(name).variant for name in ("lse_c", "lse_d", "lse_offset")] == ["track"] * 3


# -- the original pipeline's tracks and crops --------------------------------------------------------------------------


def pipeline(min_track: int) -> Any:
    """syncnet_python's pipeline without its networks."""
    library = pytest.importorskip("syncnet_python.syncnet_pipeline")
    out = library.SyncNetPipeline.__new__(library.SyncNetPipeline)
    out.cfg = library.PipelineConfig(min_track=min_track)
    return out


def wandering(seed: int, frames: int, picture: tuple[int, int]) -> list[list[Box]]:
    """One face of about 130 px that moves, is missed now and then, and reaches over the picture's edge."""
    rng = np.random.default_rng(seed)
    height, width = picture
    x, y = (np.cumsum(rng.normal(0, 4, frames)) + middle for middle in (width * 0.45, height * 0.55))
    half = 65 + np.cumsum(rng.normal(0, 0.7, frames))
    boxes = [[Box(a - 0.8 * h, b - h, a + 0.8 * h, b + h, 0.99)] for a, b, h in zip(x, y, half, strict=True)]
    for t in rng.choice(np.arange(1, frames - 1), frames // 5, replace=False):
        boxes[t] = []
    return boxes


@pytest.mark.parametrize("seed", range(3))
def test_track_and_crop_equal_the_original_pipeline(seed: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The crops as they are before XVID encodes them: the video writer is replaced by one that keeps its frames."""
    picture = (220, 250)
    boxes = [[], *wandering(seed, 20, picture), []]
    theirs = pipeline(MIN_TRACK)
    detections = [[{"frame": t, "bbox": list(box[:4])} for box in faces] for t, faces in enumerate(boxes)]
    expected = theirs._track(detections)
    tracks = join_boxes(boxes)
    assert len(expected) == len(tracks) == 1
    assert (min(tracks[0]), max(tracks[0])) == (expected[0]["frame"][0], expected[0]["frame"][-1]) == (1, 20)

    frames = np.random.default_rng(seed).integers(0, 256, (len(boxes), *picture, 3), dtype=np.uint8)
    names = [str(tmp_path / f"{t}.png") for t in range(len(boxes))]
    for name, frame in zip(names, frames, strict=True):
        cv2.imwrite(name, frame[..., ::-1])
    written: list[np.ndarray] = []
    writer = SimpleNamespace(write=written.append, release=lambda: None)
    with monkeypatch.context() as patch:
        patch.setattr(cv2, "VideoWriter", lambda *_: writer)
        with pytest.raises(RuntimeError):  # there is no sound to cut
            theirs._crop(expected[0], names, tmp_path / "absent.wav", tmp_path / "crop")
    ours = crop_track(frames, tracks[0])
    assert ours.start == 1
    np.testing.assert_array_equal(ours.crops, np.stack(written)[..., ::-1])


def test_tracks_of_two_faces_of_a_short_one_and_of_a_small_one() -> None:
    """The original goes on past a face that does not fit; the packaged pipeline, whose loop stops there, is not it."""
    left, right = Box(0, 0, 120, 120), Box(150, 0, 280, 130)
    assert [len(t) for t in join_boxes([[left, right]] * 8)] == [8, 8]
    assert [len(t) for t in join_boxes([[right, left] if t % 2 else [left, right] for t in range(8)])] == [8, 8]
    assert join_boxes([[left]] * MIN_TRACK) == []
    assert join_boxes([[Box(0, 0, 99, 99)]] * 8) == []
    assert [len(t) for t in join_boxes([[left]] * 8 + [[]] * 30 + [[left]] * 7)] == [8, 7]


# -- scenes and tracks, as the evaluations with these names treat them -------------------------------------------------


@pytest.mark.parametrize(
    ("cuts", "old", "new"),
    [
        ([], [(0, 60)], [(0, 60)]),
        ([30], [(0, 30), (30, 60)], [(0, 30), (30, 59)]),
        ([5], [(0, 5), (5, 60)], [(0, 60)]),
        ([14], [(0, 14), (14, 60)], [(0, 60)]),
        ([15], [(0, 15), (15, 60)], [(0, 15), (15, 59)]),
        ([20, 30], [(0, 20), (20, 60)], [(0, 20), (20, 59)]),
        ([20, 35], [(0, 20), (20, 35), (35, 60)], [(0, 20), (20, 35), (35, 59)]),
    ],
    ids=str,
)
@pytest.mark.parametrize("width", [320, 640])
def test_scenes_are_those_of_pyscenedetect(cuts: list[int], old: list, new: list, width: int) -> None:
    """The expected scenes were printed by PySceneDetect 0.5.1 and 0.6.1, called as syncnet_python and LatentSync do."""
    rng = np.random.default_rng(0)
    height = width * 3 // 4
    pictures = rng.integers(0, 256, (3, height // 8, width // 8, 3), dtype=np.uint8).repeat(8, 1).repeat(8, 2)
    frames = pictures[np.searchsorted(cuts, np.arange(60), side="right")]
    assert find_scenes(frames, "one") == [(0, 60)]
    assert find_scenes(frames, "pyscenedetect-0.5.1") == old
    assert find_scenes(frames, "pyscenedetect-0.6.1") == new


def test_a_fade_is_a_cut_from_27_or_from_30() -> None:
    """Grey frames that become brighter by 85 of 255 differ by 85 / 3 in the mean over hue, saturation and value."""
    frames = np.zeros((40, 48, 64, 3), np.uint8)
    frames[20:] = 85
    assert find_scenes(frames, "pyscenedetect-0.5.1") == [(0, 40)]
    assert find_scenes(frames, "pyscenedetect-0.6.1") == [(0, 20), (20, 39)]


def test_the_mean_over_tracks_and_the_least_length_of_a_track(net: SyncNet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two faces that are seen at different times: two tracks, of which each gives the score of its own part."""
    frames, samples = smooth_frames(20, 240, 1), babble(20 * 640, 1)
    left, right = Box(0, 0, 120, 120), Box(100, 100, 230, 230)
    boxes = iter([[left]] * 8 + [[right]] * 12)
    monkeypatch.setattr(syncnet_crops, "detect_faces_s3fd", lambda *_: next(boxes))
    both = Sample(frames, audio=samples)

    class Seeded(Lse):
        def load_network(self) -> LipSyncNet:
            return net

    def score(**arguments: Any) -> Score:
        return Seeded(crop="track", **arguments).score(both, both)

    mean, longest = score(tracks="mean", min_track=7), score()
    assert (mean.stats["tracks"], mean.stats["heard"], mean.n) == (2, 20, 3 + 7)
    assert (longest.stats["heard"], longest.n) == (12, 7) and longest.value != mean.value
    short = score(tracks="mean", min_track=8)
    assert short.stats["tracks"] == 1 and short.value == pytest.approx(longest.value, abs=1e-6)
    first = 2 * mean.stats["confidence"] - longest.stats["confidence"]
    part = Sample(frames[:8], audio=samples[: 8 * 640])
    crops = crop_track(frames[:8], dict.fromkeys(range(8), left)).crops
    alone = lip_sync(net.lip(crops)[:3], net.sound(part.audio, 3))  # type: ignore[arg-type]
    assert first == pytest.approx(alone.confidence, abs=1e-5)
    assert score(tracks="mean", min_track=12).reason is Reason.NO_FACE


def test_any_rate_is_a_variant_of_its_own(net: SyncNet) -> None:
    frames, samples = smooth_frames(8, 64, 0), babble(8 * 640, 0)
    fast = Sample(frames, fps=30.0, audio=samples)

    class Seeded(Lse):
        def load_network(self) -> LipSyncNet:
            return net

    assert Seeded(crop="crop").score(fast, fast).reason is Reason.RATE_MISMATCH
    value = Seeded(crop="crop", rate="any").score(fast, fast).value
    usual = Sample(frames, audio=samples)
    assert value == Seeded(crop="crop").score(usual, usual).value
    with pytest.raises(UserError, match="only with crop=track"):
        Lse(crop="lm", min_track=50)
