"""Measures emotion accuracy (EA) and emotion leak with an emotion classifier.

EA is high if the classifier predicts the target emotion. Per frame, EA is the share of the clip's frames that are
classified as the target emotion. Per video, EA is 1 if the majority vote of the frames is the target emotion, else 0.
Emotion leak is the share of frames that are classified as the emotion of the reference frames.

The stats of EA contain the predictions for each target emotion. The sums of the stats over clips give confusion
matrices and the accuracy of each class.
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

_BETWEEN = ">"  # the key "happy>neutral" in the stats: the target emotion is happy, the prediction is neutral

Per = Literal["frame", "video"]
Unsupported = Literal["wrong", "left-out"]


def vote(probabilities: np.ndarray) -> int:
    """The index of the class that is predicted for the largest number of frames.

    If several classes have this number of frames, the class with the largest sum of probabilities is returned.

    Args:
        probabilities: (T, C), one row per frame, at least one row. Other shapes raise ValueError.

    Example:
        >>> vote(np.array([[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]])), vote(np.array([[0.9, 0.1], [0.4, 0.6]]))
        (1, 0)
    """
    _check(probabilities)
    counts = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1])
    return int(np.where(counts == counts.max(), probabilities.sum(axis=0), -1.0).argmax())


def shares(probabilities: np.ndarray, per: Literal["frame", "video"]) -> np.ndarray:
    """(C,) share of the frames for which each class is predicted. With `per="video"`: 1 for the voted class, else 0."""
    _check(probabilities)
    n = probabilities.shape[1]
    if per == "video":
        return np.eye(n)[vote(probabilities)]
    return np.bincount(probabilities.argmax(axis=1), minlength=n) / len(probabilities)


def _check(probabilities: np.ndarray) -> None:
    if probabilities.ndim != 2 or not probabilities.size:
        raise ValueError(f"probabilities must be (T >= 1, C), got {probabilities.shape}")


def confusion(sums: Mapping[str, float]) -> dict[str, dict[str, float]]:
    """{target emotion: {predicted emotion: number of clips}}, from the stats of a score or the sums of an aggregate.

    The entries of one clip sum to 1. If EA is computed per frame, the 1 is divided among the emotions that are
    predicted for the clip, in proportion to their numbers of frames.
    """
    out: dict[str, dict[str, float]] = {}
    for key, value in sums.items():
        truth, between, prediction = key.partition(_BETWEEN)
        if between:
            out.setdefault(truth, {})[prediction] = value
    return out


def by_class(sums: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """{emotion: (accuracy, number of clips)}.

    The mean of the accuracies, weighted by the number of clips, is EA: the micro average that C-MET prints.
    """
    table = confusion(sums)
    clips = {truth: sum(row.values()) for truth, row in table.items()}
    return {truth: (row.get(truth, 0.0) / clips[truth], clips[truth]) for truth, row in table.items() if clips[truth]}


@dataclass(frozen=True, kw_only=True)
class EmotionMetric(Metric):
    """The base class of metrics that compare a classifier's predictions for the generated clip with the pair's labels.

    The frames of the ground truth are not read. Only `classifier="corpus"` needs the ground truth: the name and the
    sound of this clip show whether this classifier was trained on it.
    """

    classifier: ClassifierName = "fer"

    needs_labels = True
    worsened_by = frozenset({"emotion-swap"})
    unchanged_by = frozenset({"reencode", "move", "codec", "frames-held"})

    @property
    def network(self) -> Classifier:
        """The classifier object whose name is `classifier`."""
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
    def ms_per_frame(self) -> float | None:
        return self.network.ms_per_frame

    @property
    def source(self) -> str:
        return self.network.source

    @property
    def bibtex(self) -> str:
        return self.network.bibtex


@dataclass(frozen=True, kw_only=True)
class EmotionAccuracy(EmotionMetric):
    """Emotion accuracy: how often the classifier predicts the target emotion.

    With `per="frame"`, the value is the share of the frames that are classified correctly. With `per="video"`, it is 1
    if the majority vote of the frames is correct, else 0.

    The target emotion can be an unsupported label: the classifier has no class for it. With `unsupported="wrong"`, such
    a clip counts as wrong. With `unsupported="left-out"`, the clip has no value (reason `unsayable`). A label that is
    not in `talking_face.emotions.EMOTIONS` and not a class of the classifier never has a value.

    Stats: frames, and one entry TRUTH>PREDICTION per class of the classifier. These entries are shares and sum to 1.
    """

    per: Per = "frame"
    unsupported: Unsupported = "wrong"

    name = "ea"
    title = "EA"
    pitfalls = (
        "A classifier that is wrong on real clips cannot judge a method, so read the value of the real clips "
        "first. A method that exaggerates the emotion can exceed them. An unsupported label counts as wrong, "
        "unless it is left out."
    )
    higher_is_better = True
    order = 90
    limits = (0.0, 1.0)
    judges_emotion = True
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
    """Share of frames that are classified as the emotion of the reference frames instead of the target emotion.

    A pair whose reference frames show the target emotion has no value (reason `not-asked`). The classifier sometimes
    predicts the reference's emotion for real clips too, and emotion leak is not corrected for this. Therefore compare
    the value of a method with the value of the ground truth, which has its own row on the board.

    Stats: frames, leaked (number of frames classified as the reference's emotion), kept (number of frames classified as
    the target emotion).
    """

    name = "emotion_leak"
    title = "Emotion leak"
    pitfalls = (
        "The classifier sometimes predicts the emotion of the reference for real clips too. Compare a method with "
        "the value of the real clips."
    )
    higher_is_better = False
    order = 110
    limits = (0.0, 1.0)
    judges_emotion = True
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
