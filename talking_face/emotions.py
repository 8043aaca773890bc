"""One emotion vocabulary, with explicit maps from every dataset's labels and to every classifier's.

A label outside `EMOTIONS` is allowed as an open, extended label (`sarcastic`, ...): it has no ground truth in these
datasets. A classifier that cannot say a label gives None, and the metric's named rule decides what that means.
"""

from __future__ import annotations

from collections.abc import Mapping

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
    """Our spelling of what a classifier says. Raises KeyError for a classifier or label that is not in its map."""
    theirs = {their: ours for ours, their in CLASSIFIER_LABELS[classifier].items()}
    return theirs[label]
