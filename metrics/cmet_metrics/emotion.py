"""Emotion accuracy (EA) by named classifiers and rules, and emotion leak: how often the reference's emotion shows.

EA of a clip is the share of its frames that are classified as the target emotion, or 1 or 0 by vote. The stats count
the predictions for each target emotion, so that confusion matrices and tables by class come from sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cmet_metrics.base import Metric, Profile, Sample, Score, Settings, Variant
from cmet_metrics.classifiers import CLASSIFIERS, MIN_VALID, Classifier, ClassifierName
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.trained_evaluators import Kind
from talking_face.reasons import ClipError, Reason, UserError

_BETWEEN = ">"  # "happy>neutral" in the stats: a clip that should be happy, predicted as neutral

Per = Literal["frame", "video"]
Unsupported = Literal["wrong", "left-out"]


def vote(probabilities: np.ndarray) -> int:
    """The class that most frames predict; of classes with equal counts, the one with the largest sum of probabilities.

    Args:
        probabilities: (T, C) with at least one row.

    Example:
        >>> vote(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])), vote(np.array([[0.9, 0.1], [0.4, 0.6]]))
        (1, 0)
    """
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return int(np.where(counts == counts.max(), probabilities.sum(axis=0), -1.0).argmax())


def shares(probabilities: np.ndarray, per: Literal["frame", "video"]) -> np.ndarray:
    """(C,) share of the frames that predict each class; by `video`, 1 for the voted class. Sums to 1."""
    n = probabilities.shape[1]
    if per == "video":
        return np.eye(n)[vote(probabilities)]
    return np.bincount(probabilities.argmax(axis=1), minlength=n) / len(probabilities)


def confusion(sums: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """{target emotion: {predicted emotion: clips}} from the stats of a score or the sums of an aggregate.

    A clip adds 1 in all, divided over the predictions of its frames.
    """
    out: dict[str, dict[str, float]] = {}
    for key, value in sums.items():
        truth, between, prediction = key.partition(_BETWEEN)
        if between:
            out.setdefault(truth, {})[prediction] = value
    return out


def by_class(sums: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """{emotion: (accuracy, clips)}. Weighted by clips the accuracies give EA, the micro average that C-MET prints."""
    table = confusion(sums)
    clips = {truth: sum(row.values()) for truth, row in table.items()}
    return {truth: (row.get(truth, 0.0) / clips[truth], clips[truth]) for truth, row in table.items() if clips[truth]}


@dataclass(frozen=True, kw_only=True)
class EmotionMetric(Metric):
    """The facts of a metric that reads a classifier's predictions of the generated clip and the pair's labels.

    The ground truth is not read. A clip that the trained evaluator knows is found by its ground truth's name too, so
    `classifier="corpus"` needs the target.
    """

    classifier: ClassifierName = "fer"

    needs_labels = True
    worsened_by = frozenset({"emotion-swap"})
    unchanged_by = frozenset({"reencode", "move", "codec", "frames-held"})

    @property
    def network(self) -> Classifier:
        """The classifier itself."""
        return CLASSIFIERS[self.classifier]

    @property
    def labels(self) -> tuple[str, ...]:
        """The classes of the classifier."""
        return self.network.labels(self.files)

    @property
    def profile(self) -> Profile:
        return self.network.profile

    @property
    def weights(self) -> tuple[str, ...]:
        return self.network.weights

    @property
    def evaluator(self) -> Kind | None:
        return self.network.evaluator

    @property
    def needs_target(self) -> bool:
        return self.evaluator is not None

    @property
    def source(self) -> str:
        return self.network.source

    @property
    def bibtex(self) -> str:
        return self.network.bibtex


@dataclass(frozen=True, kw_only=True)
class EmotionAccuracy(EmotionMetric):
    """Share of frames (`per="frame"`) that the classifier predicts right; 1 or 0 by their vote with `per="video"`.

    An emotion that the classifier has no class for is always missed (`unsupported="wrong"`), or the clip has no value
    (`unsupported="left-out"`, reason `unsayable`). A label outside the common vocabulary never has a value.
    Stats: frames, and TRUTH>PREDICTION, which sum to 1 over PREDICTION.
    """

    per: Per = "frame"
    unsupported: Unsupported = "wrong"

    name = "ea"
    title = "EA"
    higher_is_better = True
    order = 90
    counts_predictions = True
    variants = {
        "ea:fer": Variant("emotion accuracy, FER mini-Xception, share of frames; contempt is always missed"),
        "ea:fer-video": Variant(
            "emotion accuracy, FER mini-Xception, vote of the frames; contempt is always missed", {"per": "video"}
        ),
        "ea:deepface-frame": Variant(
            "emotion accuracy, DeepFace, share of frames; contempt is always missed", {"classifier": "deepface"}
        ),
        "ea:deepface-frame-sayable": Variant(
            "emotion accuracy, DeepFace, share of frames; contempt is left out",
            {"classifier": "deepface", "unsupported": "left-out"},
        ),
        "ea:deepface-video": Variant(
            "emotion accuracy, DeepFace, vote of the frames; contempt is always missed",
            {"classifier": "deepface", "per": "video"},
        ),
        "ea:deepface-video-sayable": Variant(
            "emotion accuracy, DeepFace, vote of the frames; contempt is left out",
            {"classifier": "deepface", "per": "video", "unsupported": "left-out"},
        ),
        "ea:deepface-opencv-frame": Variant(
            "emotion accuracy, DeepFace with its own face detector, share of frames; contempt is always missed",
            {"classifier": "deepface-opencv"},
        ),
        "ea:deepface-opencv-video": Variant(
            "emotion accuracy, DeepFace with its own face detector, vote of the frames; contempt is always missed",
            {"classifier": "deepface-opencv", "per": "video"},
        ),
        "ea:emotion-fan-7": Variant(
            "emotion accuracy, C-MET's Emotion-FAN, one prediction per clip; neutral is always missed",
            {"classifier": "emotion-fan-7", "per": "video"},
        ),
        "ea:emotion-fan-8": Variant(
            "emotion accuracy, EAT's Emotion-FAN with attention, one prediction per clip",
            {"classifier": "emotion-fan-8", "per": "video"},
        ),
        "ea:corpus": Variant(
            "emotion accuracy, classifier trained on the corpus, one prediction per clip",
            {"classifier": "corpus", "per": "video"},
        ),
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network.whole_clip and self.per == "frame":
            raise UserError(f"ea: classifier={self.classifier} has per=video only")

    def settings(self) -> Settings:
        return {
            **self.network.settings(self.files),
            "classes": len(self.labels),
            "per": self.per,
            "unsayable": self.unsupported,
            "min-valid": MIN_VALID,
            "agg": "video-mean",
        }

    def compute(self, pred: Sample, target: Sample) -> Score:
        truth = pred.labels.emotion
        if truth is None:
            raise ClipError(Reason.UNLABELLED, f"{pred.name}: the emotion it should show is not known")
        labels = self.labels
        if truth not in labels and (self.unsupported == "left-out" or truth not in EMOTIONS):
            raise ClipError(Reason.UNSUPPORTED_LABEL, f"{self.classifier} has no word for {truth}")
        rows = self.network.predictions(pred, self.files)
        share = dict(zip(labels, shares(rows, self.per), strict=True))
        stats = {f"{truth}{_BETWEEN}{label}": float(value) for label, value in share.items()}
        return Score(float(share.get(truth, 0.0)), len(rows), None, "", {"frames": float(len(rows)), **stats})


@dataclass(frozen=True, kw_only=True)
class EmotionLeak(EmotionMetric):
    """Share of frames in which the classifier predicts the reference's emotion, where another one is the target.

    A pair whose reference shows the target emotion has no value (`not-asked`). The value is not corrected for the rate
    of the same prediction on real clips: read it against the ground truth's own row on the board.
    Stats: frames, leaked (frames), kept (frames that show the target emotion).
    """

    name = "emotion_leak"
    title = "Emotion leak"
    higher_is_better = False
    order = 110
    variants = {
        "emotion_leak:fer": Variant("share of frames that still show the reference's emotion, by FER mini-Xception"),
        "emotion_leak:deepface": Variant(
            "share of frames that still show the reference's emotion, by DeepFace", {"classifier": "deepface"}
        ),
        "emotion_leak:corpus": Variant(
            "share of clips that still show the reference's emotion, by the classifier trained on the corpus",
            {"classifier": "corpus"},
        ),
    }

    def settings(self) -> Settings:
        per = "video" if self.network.whole_clip else "frame"
        return {**self.network.settings(self.files), "per": per, "min-valid": MIN_VALID, "agg": "video-mean"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        reference, truth = pred.labels.reference_emotion, pred.labels.emotion
        if reference is None or truth is None:
            raise ClipError(Reason.UNLABELLED, f"{pred.name}: the reference's or its own emotion is not known")
        if reference == truth:
            raise ClipError(Reason.NOT_ASKED, f"the reference of {pred.name} shows the target emotion, {truth}")
        if reference not in self.labels:
            raise ClipError(Reason.UNSUPPORTED_LABEL, f"{self.classifier} has no word for {reference}")
        rows = self.network.predictions(pred, self.files)
        share = dict(zip(self.labels, shares(rows, "frame"), strict=True))
        n = float(len(rows))
        stats = {"frames": n, "leaked": share[reference] * n, "kept": share.get(truth, 0.0) * n}
        return Score(float(share[reference]), len(rows), None, "", stats)


METRICS = (EmotionAccuracy, EmotionLeak)
