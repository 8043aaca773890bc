"""The emotion labels of the suite, and tables that convert the labels of datasets and of classifiers.

A label outside `EMOTIONS` (for example `sarcastic`) is an extended label. The datasets in this module have no ground
truth for extended labels. If a classifier does not support a label, the metric's rule for unsupported labels determines
the score.
"""

from __future__ import annotations

from collections.abc import Mapping

# Boards, confusion matrices, one-hot vectors and clip numbers use this order.
EMOTIONS: tuple[str, ...] = ("neutral", "angry", "contempt", "disgusted", "fear", "happy", "sad", "surprised")


def emotion_order(name: str) -> tuple[int, str]:
    """Sort key: first the emotions in the order of `EMOTIONS`, then other labels in alphabetical order."""
    return (EMOTIONS.index(name) if name in EMOTIONS else len(EMOTIONS), name)


# Label of the dataset -> label of the suite. MEAD's folder names are equal to the labels of the suite.
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

# Label of the suite -> label of the classifier. DeepFace and FER mini-Xception have the same seven labels, without
# contempt.
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
    # Emotion-FAN was fine-tuned for C-MET with 7 classes (without neutral), and for EAT's evaluation with 8 classes.
    "emotion-fan-7": {name: name for name in EMOTIONS if name != "neutral"},
    "emotion-fan-8": {name: name for name in EMOTIONS},
}

# Labels that users write in a CSV file of their own clips -> label of the suite.
_LOOSE = {
    **{name: name for name in EMOTIONS},
    **DATASET_LABELS["meld"],
    **{code.lower(): name for code, name in DATASET_LABELS["crema-d"].items()},
    **dict.fromkeys(("neutrality", "calm"), "neutral"),
    **dict.fromkeys(("angered", "mad"), "angry"),
    **dict.fromkeys(("con", "contemptuous"), "contempt"),
    **dict.fromkeys(("disgusting",), "disgusted"),
    **dict.fromkeys(("fearful", "afraid", "scared", "frightened"), "fear"),
    **dict.fromkeys(("happiness", "joyful"), "happy"),
    **dict.fromkeys(("sur", "surprised", "surprising"), "surprised"),
}


def canonical(label: str) -> str:
    """The suite's label for a free-text emotion label.

    An unknown label is returned in lower case, with "-" in place of spaces, as an extended label. Stops, commas and
    quotes at its ends are left out.
    """
    text = "-".join(label.lower().split()).strip(".,;:!?'\"")
    return _LOOSE.get(text, text)


def from_classifier(classifier: str, label: str) -> str:
    """The suite's label for a classifier's label. Raises KeyError for an unknown classifier or label."""
    theirs = {their: ours for ours, their in CLASSIFIER_LABELS[classifier].items()}
    return theirs[label]
