"""The emotion vocabulary, with a map from the labels of each dataset and to the labels of each classifier.

A label outside `EMOTIONS` is an extended label (`sarcastic`, ...): these datasets have no ground truth for it. Where a
classifier does not support a label, the metric's rule for unsupported labels decides the score.
"""

from __future__ import annotations

from collections.abc import Mapping

# The one order of emotions: of boards, confusion matrices, one-hot vectors and clip numbers.
EMOTIONS: tuple[str, ...] = ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")


def emotion_order(name: str) -> tuple[int, str]:
    """Sort key: the emotions in the order of `EMOTIONS`, then other labels by name."""
    return (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name)


# Dataset spelling -> ours. MEAD's own folder names are ours already.
DATASET_LABELS: Mapping[str, Mapping[str, str]] = {
    "mead": {name: name for name in EMOTIONS},
    "crema-d": {"ANG": "angry", "DIS": "disgusted", "FEA": "fear", "HAP": "happy", "NEU": "neutral", "SAD": "sad"},
    "meld": {
        "anger": "angry",
        "disgust": "disgusted",
        "fear": "fear",
        "joy": "happy",
        "neutral": "neutral",
        "sadness": "sad",
        "surprise": "surprised",
    },
}

# Ours -> classifier's spelling. DeepFace and FER mini-Xception share one seven-label set without contempt.
_FER2013 = {
    "angry": "angry",
    "disgusted": "disgust",
    "fear": "fear",
    "happy": "happy",
    "sad": "sad",
    "surprised": "surprise",
    "neutral": "neutral",
}
CLASSIFIER_LABELS: Mapping[str, Mapping[str, str]] = {
    "deepface": _FER2013,
    "fer": _FER2013,
    # Emotion-FAN as fine-tuned for C-MET (no neutral) and for EAT's evaluation.
    "emotion-fan-7": {name: name for name in EMOTIONS if name != "neutral"},
    "emotion-fan-8": {name: name for name in EMOTIONS},
}

# What people write in a CSV of their own clips -> ours.
_LOOSE = {
    **{name: name for name in EMOTIONS},
    **DATASET_LABELS["meld"],
    "anger": "angry",
    "disgust": "disgusted",
    "fearful": "fear",
    "afraid": "fear",
    "happiness": "happy",
    "surprise": "surprised",
    "calm": "neutral",
}


def canonical(label: str) -> str:
    """Our spelling of a free-text emotion label; an unknown one is kept, lower-cased, as an extended label."""
    text = label.strip().lower().replace(" ", "-")
    return _LOOSE.get(text, text)


def from_classifier(classifier: str, label: str) -> str:
    """Our spelling of a classifier's label. Raises KeyError for an unknown classifier or label."""
    theirs = {their: ours for ours, their in CLASSIFIER_LABELS[classifier].items()}
    return theirs[label]
