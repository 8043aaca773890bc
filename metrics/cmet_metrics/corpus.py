"""LSE, emotion accuracy and emotion leak by the evaluators that were trained on the corpus itself (`:corpus`).

The files are found by `talking_face.pretrained.corpus_nets`, and their hashes are in the signatures. A clip that an
evaluator was trained on gets the reason `trained-on` and no number.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from cmet_metrics.base import Metric, Sample, Score
from cmet_metrics.emotion import EmotionAccuracy, EmotionLeak
from cmet_metrics.landmarks import mediapipe_blendshapes, mediapipe_landmarks, need_faces, points_id
from cmet_metrics.lse import CROPS, LipSyncNet, LseC, LseD, LseOffset
from cmet_metrics.syncnet_crops import MIN_VALID, LipCrops
from talking_face.emotions import EMOTIONS
from talking_face.pretrained import corpus_nets
from talking_face.reasons import ClipError, Reason


def check_held_out(kind: corpus_nets.Kind, pred: Sample, target: Sample) -> None:
    """Raises ClipError trained-on where either clip, by name or by sound, was in the evaluator's training data.

    A generated video is as good as known where its ground truth was seen, whatever the video is called.
    """
    trained_on = corpus_nets.find(kind).trained_on
    for sample in (pred, target):
        if trained_on.holds(sample.name, sample.audio):
            raise ClipError(Reason.TRAINED_ON, f"the corpus's {kind} evaluator was trained on {sample.name}")


def _mouths(sample: Sample) -> LipCrops:
    points = mediapipe_landmarks(sample)
    need_faces(sample.name, np.isfinite(points).all(axis=(1, 2)), MIN_VALID)
    return LipCrops(corpus_nets.mouths(sample.frames, points))


CROPS["corpus"] = (f"mouth-{corpus_nets.SIZE}-grey", _mouths)


class _OnCorpus(LseC):
    """What the three lip-sync metrics have in common."""

    def __init__(self) -> None:
        super().__init__("lm")
        self.variant = self.crop = "corpus"  # type: ignore[assignment]
        self.needs_target = True  # for `check_held_out`; the value does not depend on it

    def network(self) -> LipSyncNet:
        return corpus_nets.corpus_syncnet()

    def network_tag(self) -> str:
        return corpus_nets.tag("syncnet")

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "points": points_id()}

    def compute(self, pred: Sample, target: Sample) -> Score:
        check_held_out("syncnet", pred, target)
        return super().compute(pred, target)


class CorpusLseC(_OnCorpus, LseC):
    """LSE-C, its embeddings of length 1: 0 to about 1."""


class CorpusLseD(_OnCorpus, LseD):
    """LSE-D, its embeddings of length 1: 0 to 2; with silence 1."""


class CorpusLseOffset(_OnCorpus, LseOffset):
    """How many frames the sound is early or late."""


class CorpusClassifier:
    """The trained classifier as `emotion.Classifier` is one; its labels are those of the file that is found.

    Without a file the labels are all eight, so that listings work; scoring then gives the reason `missing-weights`.
    """

    name = "corpus"

    @property
    def labels(self) -> tuple[str, ...]:
        try:
            return corpus_nets.find("emotion").trained_on.labels
        except corpus_nets.MissingWeights:
            return EMOTIONS

    def settings(self) -> Mapping[str, Any]:
        return {
            "net": corpus_nets.tag("emotion"),
            "face": points_id().replace("mediapipe478-68", "mp478-blendshapes-gradients"),
            "sampled": f"blendshapes-all-gradients-{corpus_nets.EMOTION_FRAMES}",
        }

    def said(self, sample: Sample) -> np.ndarray:
        """(1, C): one judgement a clip. Raises ClipError no-face or few-faces, or MissingWeights."""
        net = corpus_nets.corpus_emotion()
        return sample.cached(("emotion", self.name, net.tag), lambda s: _judged(s, net))


def _judged(sample: Sample, net: corpus_nets.CorpusEmotion) -> np.ndarray:
    blendshapes, points = mediapipe_blendshapes(sample), mediapipe_landmarks(sample)
    need_faces(sample.name, np.isfinite(blendshapes).all(axis=1), MIN_VALID)
    seen = corpus_nets.faces(sample.frames, points)
    return net.probabilities(corpus_nets.emotion_input(seen, blendshapes))[None]


class CorpusAccuracy(EmotionAccuracy):
    """1 where the classifier trained on the corpus names the emotion that the clip should show."""

    variant = "corpus"
    summary = "emotion accuracy, classifier trained on the corpus, one judgement a clip"
    classifier: ClassVar[Any] = CorpusClassifier()
    per = "video"
    needs_target = True

    def compute(self, pred: Sample, target: Sample) -> Score:
        check_held_out("emotion", pred, target)
        return super().compute(pred, target)


class CorpusLeak(EmotionLeak):
    """1 where the classifier trained on the corpus takes the clip for the reference's emotion."""

    variant = "corpus"
    summary = "share of clips that still show the reference's emotion, by the classifier trained on the corpus"
    classifier: ClassVar[Any] = CorpusClassifier()
    needs_target = True

    def settings(self) -> Mapping[str, Any]:
        return {**super().settings(), "per": "video"}

    def compute(self, pred: Sample, target: Sample) -> Score:
        check_held_out("emotion", pred, target)
        return super().compute(pred, target)


CORPUS_METRICS: tuple[Metric, ...] = (
    CorpusLseC(),
    CorpusLseD(),
    CorpusLseOffset(),
    CorpusAccuracy(),
    CorpusLeak(),
)
