"""Fits and tests the emotion evaluator: a discriminant of blendshapes and a discriminant of image gradients."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from cmet_reference.evaluators.data import Example
from cmet_reference.evaluators.settings import EvaluatorSettings
from cmet_reference.training.rounding import rounded
from talking_face.emotions import EMOTIONS
from talking_face.pretrained import evaluator_networks
from talking_face.pretrained.evaluator_networks import EmotionEvaluator


def fit_emotion(train: Sequence[Example], labels: Sequence[str], settings: EvaluatorSettings) -> Any:
    """Fits the emotion classifier: two linear discriminants, computed in closed form on the CPU.

    Clips without one of the labels are ignored. The covariance within emotions also contains the differences between
    speakers. With four speakers, the differences between speakers are as large as the differences between emotions.
    Therefore the discriminant gives little weight to features in which speakers differ.

    Args:
        labels: the classes, in the order of the outputs.
    """
    train = [e for e in train if e.emotion in labels]
    classes = torch.tensor([labels.index(str(e.emotion)) for e in train])
    draw = np.random.default_rng(settings.seed)
    inputs = [[evaluator_networks.emotion_features(e.faces, e.blendshapes) for e in train]]
    for _ in range(settings.emotion_copies):
        inputs.append([evaluator_networks.emotion_features(_augmented(e.faces, draw), e.blendshapes) for e in train])
    x = torch.from_numpy(rounded(np.array(inputs))).flatten(0, 1).double()
    net = evaluator_networks.build_emotion(len(labels))
    split = evaluator_networks.BLENDSHAPES
    fill_discriminant(net.moved, x[: len(train), :split], classes, settings.emotion_shrink_blendshapes)
    fill_discriminant(net.seen, x[:, split:], classes.repeat(len(inputs)), settings.emotion_shrink_gradients)
    return net.eval()


def fill_discriminant(layer: nn.Linear, x: Tensor, classes: Tensor, shrink: float) -> None:
    """Fill a linear layer with Fisher's discriminant for equally likely classes.

    The features are first divided by their standard deviations. The share `shrink` of the covariance within classes is
    replaced by the mean variance times the identity. With this replacement, the fit also works with fewer clips than
    features.

    Args:
        layer: D inputs, one output per class.
        x: (N, D) float64 features.
        classes: (N,), indices of the layer's outputs.
        shrink: 0 to 1.
    """
    mean, std = x.mean(dim=0), x.std(dim=0) + 1e-6
    x = (x - mean) / std
    centres = torch.stack([x[classes == k].mean(dim=0) for k in range(layer.out_features)])
    within = (x - centres[classes]).T @ (x - centres[classes]) / len(x)
    level = within.diagonal().mean().clamp(min=1e-9)
    within = (1 - shrink) * within + shrink * level * torch.eye(len(within), dtype=x.dtype)
    weight = torch.linalg.solve(within, centres.T).T
    bias = -(weight * centres).sum(dim=1) / 2
    with torch.no_grad():
        layer.weight.copy_(weight / std)
        layer.bias.copy_(bias - (weight / std) @ mean)


def _augmented(pictures: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Augments the faces of a clip, (8, 128, 128) uint8. All faces of the clip get the same random change.

    The change imitates errors of the landmarks and another light: rotation up to 4 degrees, scale 0.94 to 1.06, shift
    up to 3 px, gamma 0.6 to 1.6.
    """
    size = pictures.shape[1]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), draw.uniform(-4, 4), draw.uniform(0.94, 1.06))
    matrix = np.asarray(turn, np.float64)
    matrix[:, 2] += draw.uniform(-3, 3, 2)
    curve = (255 * np.linspace(0, 1, 256) ** (2.0 ** draw.uniform(-0.7, 0.7))).astype(np.uint8)
    moved = [cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE) for picture in pictures]
    return curve[np.stack(moved)]


def accuracy_figures(net: EmotionEvaluator, test: Sequence[Example]) -> dict[str, object]:
    """Accuracy of the emotion classifier on held-out clips.

    A clip counts as wrong if the classifier was not trained on its emotion.

    Returns:
        `clips`: number of clips with a label. `accuracy`: share of correct predictions; missing if there are no clips.
        `by_intensity` and `by_emotion`: `clips` and `accuracy` for each intensity (without neutral clips) and for each
        emotion.
        `said`: for each true emotion, how often each label was predicted.
    """
    predictions = [
        (e, net.labels[int(net.probabilities(evaluator_networks.emotion_features(e.faces, e.blendshapes)).argmax())])
        for e in test
        if e.emotion is not None
    ]
    emotions = [name for name in EMOTIONS if any(e.emotion == name for e, _ in predictions)]
    graded = [(e, label) for e, label in predictions if e.emotion != "neutral" and e.intensity is not None]
    intensities = sorted({e.intensity for e, _ in graded if e.intensity is not None})
    of = {name: [pair for pair in predictions if pair[0].emotion == name] for name in emotions}
    return {
        "clips": len(predictions),
        **({"accuracy": _share_correct(predictions)} if predictions else {}),
        "by_intensity": {str(k): _share_correct([pair for pair in graded if pair[0].intensity == k])
                         for k in intensities},
        "by_emotion": {name: _share_correct(of[name]) for name in emotions},
        "said": {name: dict(Counter(label for _, label in of[name])) for name in emotions},
    }  # fmt: skip


def _share_correct(predictions: Sequence[tuple[Example, str]]) -> float:
    return float(np.mean([e.emotion == label for e, label in predictions]))
