"""CSIM: insightface's own classes on the same points and network, arcface_torch's numbers, dlib's chips, reasons."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from cmet_metrics.base import DEFAULT_FILES, Sample
from cmet_metrics.csim import (
    ArcFaceAligned,
    cosine,
    spread,
)
from cmet_metrics.landmarks import mediapipe_landmarks
from talking_face.faces.align import five_points
from talking_face.faces.points68 import to_68
from talking_face.media.reading import read_frames
from talking_face.pretrained import arcface, store
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import Reason
from tests.metrics.by_key import by_key
from tests.models import models
from tests.stand_ins import seeded

REAL_EMBEDDING = Path(__file__).resolve().parents[3] / "shared" / "weights" / "mobilefacenet.onnx"
R50_FILE, R100_FILE = "w600k_r50.onnx", "arcface_r100_backbone.pth"


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder in which the store looks for files, and nowhere else but in installed packages."""
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    yield tmp_path


@pytest.fixture
def stand_in_r50(weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """mobilefacenet, a real embedding of 128 numbers, in the place of the 512-d network."""
    if not REAL_EMBEDDING.is_file():
        pytest.skip("../shared/weights/mobilefacenet.onnx is absent: no stand-in for ArcFace")
    shutil.copy(REAL_EMBEDDING, weights / R50_FILE)
    entry = store.registry()[arcface.R50]
    known = {**store.registry(), arcface.R50: entry.model_copy(update={"sha256": None})}
    monkeypatch.setattr(store, "registry", lambda: known)
    return weights / R50_FILE


@pytest.fixture(scope="module")
def people(real_clips: list[Path]) -> list[np.ndarray]:
    """Four frames each of two people."""
    return [read_frames(clip)[30:34] for clip in real_clips[:2]]


def test_aligned_equals_insightfaces_arcface_on_the_same_points(stand_in_r50: Path, people: list[np.ndarray]) -> None:
    arcface_onnx = pytest.importorskip("insightface.model_zoo.arcface_onnx")
    theirs = arcface_onnx.ArcFaceONNX(str(stand_in_r50))
    assert (theirs.input_mean, theirs.input_std) == (127.5, 127.5)

    class Face:
        kps: np.ndarray

    samples = [Sample(frames) for frames in people]
    features = []
    for sample in samples:
        # insightface's pixels have their centres at whole numbers, MediaPipe's at one half.
        points = five_points(to_68(mediapipe_landmarks(sample, DEFAULT_FILES)).astype(np.float64)) - 0.5
        rows = []
        for frame, five in zip(sample.frames, points, strict=True):
            face = Face()
            face.kps = five.astype(np.float32)
            rows.append(theirs.get(np.ascontiguousarray(frame[..., ::-1]), face))
        ours = ArcFaceAligned().embed(sample, np.arange(len(sample.frames)), ModelFiles.from_environment())
        # One level in a few of the crop's 37,632 values, where single precision rounds the other way.
        assert cosine(ours, np.stack(rows)).min() > 1 - 1e-5
        features.append(rows)
    expected = np.mean([theirs.compute_sim(a, b) for a, b in zip(*features, strict=True)])
    score = by_key("csim:aligned").score(*samples)
    assert score.value == pytest.approx(expected, abs=1e-4) and score.n == 4
    assert f"net:arcface-w600k-r50@{hashlib.sha256(stand_in_r50.read_bytes()).hexdigest()[:8]}|" in str(
        by_key("csim:aligned").signature()
    )
    # Against the reference frames: one person with himself.
    pred = Sample(people[0], reference=Sample(people[0][:1], name="reference"))
    value = by_key("csim:aligned-ref").score(pred, samples[1]).value
    assert value is not None and value > 0.98 > expected


# arcface_torch at 7fadd42, backbones/iresnet.py: IResNet(IBasicBlock, [1, 2, 1, 1]) with `seeded` parameters, fed as
# compute_csim.py feeds it; and the names and shapes of iresnet100's parameters, hashed.
R100_KEYS = "56eda461718b204f"
SMALL_FIRST = [91.7768783569336, -8.774370193481445, 18.435646057128906, -30.414188385009766, -14.303620338439941]
SMALL_COSINE = 0.1890


def test_iresnet_equals_arcface_torch() -> None:
    torch = pytest.importorskip("torch")
    shapes = [(key, tuple(value.shape)) for key, value in arcface.iresnet().state_dict().items()]
    assert hashlib.sha256(repr(shapes).encode()).hexdigest()[:16] == R100_KEYS
    small = arcface.iresnet((1, 2, 1, 1))
    small.load_state_dict(seeded(small))
    crops = np.random.default_rng(1).integers(0, 256, (2, 112, 112, 3), dtype=np.uint8)
    with torch.inference_mode():
        found = small(torch.from_numpy(arcface.network_input(crops))).numpy()
    np.testing.assert_allclose(found[0, :5], SMALL_FIRST, rtol=1e-4)
    assert cosine(found[0], found[1]) == pytest.approx(SMALL_COSINE, abs=1e-4)


def test_vico_follows_compute_csim(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its lines on a short network of the same kind: whole frames, (x/255 - .5)/.5, the mean over all frames pooled."""
    torch = pytest.importorskip("torch")
    cv2 = pytest.importorskip("cv2")
    small, build = arcface.iresnet((1, 1, 1, 1)), arcface.iresnet
    small.load_state_dict(seeded(small))
    torch.save({f"module.{key}": value for key, value in small.state_dict().items()}, weights / R100_FILE)
    monkeypatch.setattr(arcface, "iresnet", lambda: build((1, 1, 1, 1)))
    rng = np.random.default_rng(5)
    clips = [rng.integers(0, 256, (2, n, 90, 110, 3), dtype=np.uint8) for n in (2, 3)]
    features: tuple[list, list] = ([], [])
    for pair in clips:
        for side, frames in zip(features, pair, strict=True):
            resized = np.stack([cv2.resize(frame, (112, 112)) for frame in frames]).transpose(0, 3, 1, 2)
            with torch.no_grad():
                side.append(small(torch.from_numpy(resized).float().div_(255).sub_(0.5).div_(0.5)))
    expected = torch.nn.functional.cosine_similarity(*(torch.cat(side) for side in features)).mean().item()
    metric = by_key("csim:vico")
    scores = [metric.score(Sample(pred), Sample(truth)) for pred, truth in clips]
    whole = metric.aggregate(scores)
    assert whole.mean == pytest.approx(expected, abs=1e-5) and whole.n == 2
    assert whole.mean != pytest.approx(np.mean([score.value for score in scores]), abs=1e-5), "frames weigh, not clips"
    assert metric.merge([metric.aggregate(scores[:1]), metric.aggregate(scores[1:])]).mean == pytest.approx(whole.mean)


def test_missing_weights_are_a_reason_and_the_signature_still_stands(weights: Path) -> None:
    sample = Sample(np.zeros((2, 112, 112, 3), np.uint8))
    score = by_key("csim:vico").score(sample, sample)
    assert score.reason is Reason.MISSING_WEIGHTS and R100_FILE in score.detail
    assert "net:arcface-r100@absent|align:none-resize-112" in str(by_key("csim:vico").signature())


def test_dlib_equals_its_own_chips_and_tells_people_apart(people: list[np.ndarray]) -> None:
    dlib = pytest.importorskip("dlib")
    samples = [Sample(frames) for frames in people]
    score = by_key("csim:dlib").score(*samples)
    net = dlib.face_recognition_model_v1(str(store.weight_path("dlib_face_resnet", files=models())))
    predictor, detector = (
        dlib.shape_predictor(str(store.weight_path("dlib_68", files=models()))),
        dlib.get_frontal_face_detector(),
    )
    found = [
        [np.array(net.compute_face_descriptor(dlib.get_face_chip(f, predictor(f, detector(f)[0])))) for f in frames]
        for frames in people
    ]
    assert score.value == pytest.approx(np.mean(cosine(np.array(found[0]), np.array(found[1]))), abs=1e-6)
    assert score.n == 4 and score.value < 0.9
    pred = Sample(people[0], reference=Sample(people[0][:2], name="reference"))
    kept = by_key("csim:dlib-ref").score(pred, samples[0])
    swapped = by_key("csim:dlib-ref").score(Sample(people[1], reference=pred.reference), samples[0])
    assert kept.value is not None and swapped.value is not None and kept.value > 0.98 > 0.9 > swapped.value
    assert by_key("csim:dlib").score(samples[0], samples[0]).value == pytest.approx(1)
    assert by_key("csim:dlib").score(*samples[::-1]).value == pytest.approx(score.value)


def test_reasons(people: list[np.ndarray]) -> None:
    clip, black = people[0], np.zeros_like(people[0])
    part = clip.copy()
    part[:3] = 0
    assert by_key("csim:dlib").score(Sample(black), Sample(clip)).reason is Reason.NO_FACE
    assert by_key("csim:dlib").score(Sample(part), Sample(clip)).reason is Reason.FEW_FACES
    assert by_key("csim:dlib").score(Sample(clip[:3]), Sample(clip)).reason is Reason.LENGTH_MISMATCH
    assert by_key("csim:dlib-ref").score(Sample(clip), Sample(clip)).reason is Reason.MISSING_FILE
    faceless = Sample(clip, reference=Sample(black[:1], name="reference"))
    assert by_key("csim:dlib-ref").score(faceless, Sample(clip)).reason is Reason.NO_FACE


def test_frames_looked_at_and_cosine() -> None:
    assert spread(75, 8).tolist() == [4, 14, 23, 32, 42, 51, 60, 70] and spread(3, 8).tolist() == [0, 1, 2]
    a = np.array([[3.0, 4.0], [1.0, 0.0], [np.nan, 1.0], [0.0, 0.0]])
    np.testing.assert_allclose(cosine(a, np.array([6.0, 8.0])), [1, 0.6, np.nan, np.nan])
    assert str(by_key("csim:dlib").signature()) == (
        "csim|variant:dlib|net:dlib-resnet@55533b28|align:dlib-chip-150|points:dlib68@fbdc2cb8|colour:rgb|"
        "against:ground-truth|frames:exact|looked-at:8|min-valid:0.5|agg:video-mean|version:1.0.0"
    )
