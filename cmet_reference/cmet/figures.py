"""What is measured of predicted expression directions on speakers that were not trained on."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from cmet_reference.cmet.connector import Connector
from cmet_reference.cmet.data import CodedClips
from cmet_reference.cmet.speech import Hearing
from talking_face.emotions import EMOTIONS

POOL = 10  # utterances of an emotion, as in C-MET's inference
MOST_FRAMES = 50  # of a neutral clip: ten blocks


def predict(connector: Connector, speech: np.ndarray, codes: np.ndarray, reference: str = "previous") -> np.ndarray:
    """The direction of every frame, block by block.

    A block's reference tokens are what was predicted for the block before, zeros for the first. A last block that is
    not full is filled with its last frame (the released inference drops it; see `generate`).

    Args:
        speech: (N, D) utterance directions in the network's units, of N cases.
        codes: (N, T, C), T >= 1.
        reference: "previous", or "zero": every block is predicted as the first one is.

    Returns:
        (N, T, C) float32.
    """
    window = connector.settings.window
    device = next(connector.parameters()).device
    length = codes.shape[1]
    blocks = -(-length // window)
    filled = codes[:, np.minimum(np.arange(blocks * window), length - 1)]
    shown = torch.from_numpy(np.ascontiguousarray(filled, np.float32)).to(device)
    spoken = torch.from_numpy(np.asarray(speech, np.float32)).to(device)[:, None]
    before = torch.zeros_like(shown[:, :window])
    out = []
    training = connector.training
    connector.eval()
    with torch.inference_mode():
        for block in shown.split(window, dim=1):
            said, _ = connector(before, spoken, block)
            out.append(said)
            before = said if reference == "previous" else before
    connector.train(training)
    return torch.cat(out, dim=1)[:, :length].cpu().numpy()


def directions(
    connector: Connector, clips: CodedClips, lookup: np.ndarray, hearing: Hearing, reference: str = "previous"
) -> dict[str, float]:
    """How good predicted directions are, beside those of a lookup by label that was fitted on the training split.

    For every speaker and target emotion: neutral clip (the speaker's first) to emotion, speech pools of ten clips of
    all speakers given, highest level first, as in inference. The truth is the speaker's mean code in the emotion less
    the neutral mean.

    Centred: less the mean over target emotions, each speaker's truth and prediction by their own, so that a direction
    that is the same for all emotions scores nothing. `cosine` is the mean over speakers and emotions;
    `emotion_accuracy` says how often the lookup's nearest direction (cosine, both centred) has the right label,
    `_own` with pools of the speaker alone. Nothing where no training speaker shows neutral and an emotion, or no
    held-out one neutral and all of these.
    """
    targets = [e for e in EMOTIONS if e != "neutral" and np.abs(lookup[EMOTIONS.index(e)]).sum() > 0]
    if not targets:
        return {}
    labels = centred(np.stack([lookup[EMOTIONS.index(e)] for e in targets]))
    rows: list[list[float]] = []
    for speaker in sorted(set(clips.speakers)):
        codes = means(clips, speaker)
        if "neutral" not in codes or not all(e in codes for e in targets):
            continue
        first = next(i for i in range(len(clips)) if (clips.speakers[i], clips.emotions[i]) == (speaker, "neutral"))
        truth = centred(np.stack([codes[e] - codes["neutral"] for e in targets]))
        heard = np.stack(
            [
                hearing.between(rest, pool(clips, e, who), rest)
                for who in (None, speaker)
                for rest in [pool(clips, "neutral", who)]
                for e in targets
            ]
        )
        shown = np.repeat(clips.codes[first][None, :MOST_FRAMES], len(heard), axis=0)
        every = predict(connector, heard, shown, reference)
        said = {"all": every[: len(targets)], "own": every[len(targets) :]}
        mean = {name: centred(x.mean(axis=1)) for name, x in said.items()}
        best = np.arange(len(targets))
        for k in best:
            rows.append(
                [
                    cosine(mean["all"][k], truth[k]),
                    cosine(mean["own"][k], truth[k]),
                    cosine(labels[k], truth[k]),
                    _nearest(mean["all"][k], labels) == k,
                    _nearest(mean["own"][k], labels) == k,
                    _nearest(truth[k], labels) == k,
                    float(
                        np.linalg.norm(said["all"][k].mean(axis=0))
                        / np.linalg.norm(codes[targets[k]] - codes["neutral"])
                    ),
                ]
            )
    if not rows:
        return {}
    names = (
        "cosine",
        "cosine_own",
        "cosine_lookup",
        "emotion_accuracy",
        "emotion_accuracy_own",
        "emotion_accuracy_truth",
        "length_ratio",
    )
    return {name: float(value) for name, value in zip(names, np.mean(rows, axis=0), strict=True)}


def pool(clips: CodedClips, emotion: str, speaker: str | None = None) -> np.ndarray:
    """(N, R) utterance vectors of up to ten clips of an emotion, highest level first; speakers take turns."""
    rows = [i for i in range(len(clips)) if clips.emotions[i] == emotion and speaker in (None, clips.speakers[i])]
    seen: dict[tuple[str, int], int] = {}
    keys = {}
    for i in sorted(rows, key=lambda i: clips.clip_ids[i]):
        cell = clips.speakers[i], clips.levels[i]
        keys[i] = (-clips.levels[i], seen.setdefault(cell, 0), clips.speakers[i])
        seen[cell] += 1
    return clips.speech[sorted(rows, key=keys.__getitem__)[:POOL]]


def means(clips: CodedClips, speaker: str) -> dict[str, np.ndarray]:
    """The speaker's mean code in each emotion."""
    out: dict[str, list[np.ndarray]] = {}
    for i in range(len(clips)):
        if clips.speakers[i] == speaker:
            out.setdefault(clips.emotions[i], []).append(clips.codes[i].mean(axis=0))
    return {emotion: np.mean(codes, axis=0) for emotion, codes in out.items()}


def label_codes(clips: CodedClips) -> np.ndarray:
    """(8, C) mean direction from neutral to each emotion, over the speakers who show both; zeros where nobody does."""
    every = [means(clips, s) for s in sorted(set(clips.speakers))]
    out = np.zeros((len(EMOTIONS), clips.codes[0].shape[1]), np.float32)
    for k, emotion in enumerate(EMOTIONS):
        gaps = [m[emotion] - m["neutral"] for m in every if emotion in m and "neutral" in m]
        if gaps:
            out[k] = np.mean(gaps, axis=0)
    return out


def neutral_speech(clips: CodedClips) -> np.ndarray:
    """(M, R) utterance vectors of neutral clips; of all, where none is."""
    neutral = [i for i in range(len(clips)) if clips.emotions[i] == "neutral"]
    return np.asarray(clips.speech[neutral or slice(None)])


def label_speech(clips: CodedClips, hearing: Hearing) -> np.ndarray:
    """(8, D) direction from neutral to each emotion as it is heard; zeros where nobody shows it."""
    if hearing.rule == "emotions":
        rows = np.eye(len(EMOTIONS)) - np.eye(len(EMOTIONS))[EMOTIONS.index("neutral")]
    else:
        rest, emotions = neutral_speech(clips).mean(axis=0), np.array(clips.emotions)
        shown = [clips.speech[emotions == e] if e in clips.emotions else rest[None] for e in EMOTIONS]
        rows = np.stack([speech.mean(axis=0) - rest for speech in shown])
    return np.where([[e in clips.emotions] for e in EMOTIONS], rows, 0).astype(np.float32)


def centred(rows: np.ndarray) -> np.ndarray:
    """(N, C) less their mean."""
    return rows - rows.mean(axis=0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """Of two vectors; 0 where one is nothing."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 1e-12 else 0.0


def _nearest(vector: np.ndarray, labels: Sequence[Any] | np.ndarray) -> int:
    return int(np.argmax([cosine(vector, label) for label in labels]))
