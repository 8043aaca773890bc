"""Measures how well C-MET predicts expression directions on held-out speakers.

A direction is the difference between the expression codes of two emotions.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cmet_reference.cmet.connector import Connector
from cmet_reference.cmet.data import CodedClips
from cmet_reference.cmet.speech import PoolEncoder
from talking_face.emotions import EMOTIONS

POOL = 10  # number of utterances per emotion, as in C-MET's inference
MOST_FRAMES = 50  # only the first frames of a neutral clip are used: ten blocks
FIGURES = (
    "cosine",
    "cosine_own",
    "cosine_lookup",
    "emotion_accuracy",
    "emotion_accuracy_own",
    "emotion_accuracy_truth",
    "length_ratio",
)


def predict(connector: Connector, speech: np.ndarray, codes: np.ndarray, reference: str = "previous") -> np.ndarray:
    """Predicts the direction of every frame, block by block.

    The reference tokens of a block are the prediction for the block before. The reference tokens of the first block are
    zeros. An incomplete last block is filled with copies of its last frame. The released inference discards an
    incomplete block; see `generate`.

    Args:
        speech: (N, D) directions of speech for N cases, the differences of two results of `PoolEncoder`.
        codes: (N, T, C) expression codes to change, T >= 1.
        reference: "previous": the prediction for the block before. "zero": the reference tokens of all blocks are
            zeros.

    Returns:
        (N, T, C) float32.
    """
    window = connector.settings.window
    device = next(connector.parameters()).device
    length = codes.shape[1]
    blocks = -(-length // window)
    filled = codes[:, np.minimum(np.arange(blocks * window), length - 1)]
    inputs = torch.from_numpy(np.ascontiguousarray(filled, np.float32)).to(device)
    spoken = torch.from_numpy(np.asarray(speech, np.float32)).to(device)[:, None]
    before = torch.zeros_like(inputs[:, :window])
    out = []
    training = connector.training
    connector.eval()
    with torch.inference_mode():
        for block in inputs.split(window, dim=1):
            direction, _ = connector(before, spoken, block)
            out.append(direction)
            before = direction if reference == "previous" else before
    connector.train(training)
    return torch.cat(out, dim=1)[:, :length].cpu().numpy()


def directions(
    connector: Connector, clips: CodedClips, lookup: np.ndarray, pools: PoolEncoder, reference: str = "previous"
) -> dict[str, float]:
    """The quality of predicted directions, and of a lookup table of mean directions by emotion label.

    One direction is predicted for every speaker and target emotion, from the speaker's first neutral clip. As at
    inference, a speech pool has up to ten clips of all speakers, and clips of the highest intensity are chosen first.
    The true direction is the speaker's mean code in the target emotion minus the speaker's mean neutral code.

    Directions are centred before the comparison: for each speaker, the mean over target emotions is subtracted. A
    prediction that is the same for all emotions therefore scores 0. The figures are means over speakers and emotions:

    - `cosine`: the cosine between the predicted and the true direction.
    - `cosine_own`: the same cosine, with speech pools of the speaker alone.
    - `cosine_lookup`: the same cosine, with the direction of the lookup table in place of the prediction.
    - `emotion_accuracy`: the share of predicted directions whose nearest direction in the lookup table (by cosine) has
      the correct emotion. `emotion_accuracy_own` uses pools of the speaker alone; `emotion_accuracy_truth` is for true
      directions.
    - `length_ratio`: the length of the predicted direction divided by the length of the true direction, before
      centring.

    Args:
        lookup: (8, C) mean direction of each emotion in the training split; see `label_codes`.

    Returns:
        the figures; {} if no training speaker shows neutral and another emotion, or if no held-out speaker shows
        neutral and all emotions of the lookup table.
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
        raw = np.stack([codes[e] - codes["neutral"] for e in targets])
        rows += _speaker_rows(*_predicted(connector, clips, speaker, targets, pools, reference), raw, labels)
    if not rows:
        return {}
    return {name: float(value) for name, value in zip(FIGURES, np.mean(rows, axis=0), strict=True)}


def _predicted(
    connector: Connector,
    clips: CodedClips,
    speaker: str,
    targets: Sequence[str],
    pools: PoolEncoder,
    reference: str,
) -> tuple[np.ndarray, np.ndarray]:
    """Predicted directions from a speaker's first neutral clip to the N target emotions, (N, T, C) each.

    The first array is predicted with speech pools of all speakers, the second with pools of this speaker alone.
    """
    first = next(i for i in range(len(clips)) if (clips.speakers[i], clips.emotions[i]) == (speaker, "neutral"))
    speech = np.stack(
        [
            pools.direction(rest, pool(clips, e, who), rest)
            for who in (None, speaker)
            for rest in [pool(clips, "neutral", who)]
            for e in targets
        ]
    )
    codes = np.repeat(clips.codes[first][None, :MOST_FRAMES], len(speech), axis=0)
    every = predict(connector, speech, codes, reference)
    return every[: len(targets)], every[len(targets) :]


def _speaker_rows(of_all: np.ndarray, of_own: np.ndarray, raw: np.ndarray, labels: np.ndarray) -> list[list[float]]:
    """The values of FIGURES for each target emotion of one speaker.

    Args:
        of_all, of_own: (N, T, C) predicted directions, the results of `_predicted`.
        raw: (N, C) true directions, not centred.
        labels: (N, C) centred directions of the lookup table.
    """
    truth = centred(raw)
    with_all, with_own = (centred(x.mean(axis=1)) for x in (of_all, of_own))
    return [
        [
            cosine(with_all[k], truth[k]),
            cosine(with_own[k], truth[k]),
            cosine(labels[k], truth[k]),
            _nearest(with_all[k], labels) == k,
            _nearest(with_own[k], labels) == k,
            _nearest(truth[k], labels) == k,
            float(np.linalg.norm(of_all[k].mean(axis=0)) / np.linalg.norm(raw[k])),
        ]
        for k in range(len(raw))
    ]


def pool(clips: CodedClips, emotion: str, speaker: str | None = None) -> np.ndarray:
    """(N, R) utterance vectors of up to ten clips of an emotion, from one speaker or from all speakers.

    Clips of the highest intensity come first. Among clips of the same intensity, the speakers alternate.
    """
    rows = [i for i in range(len(clips)) if clips.emotions[i] == emotion and speaker in (None, clips.speakers[i])]
    seen: dict[tuple[str, int], int] = {}
    keys = {}
    for i in sorted(rows, key=lambda i: clips.clip_ids[i]):
        cell = clips.speakers[i], clips.levels[i]
        keys[i] = (-clips.levels[i], seen.setdefault(cell, 0), clips.speakers[i])
        seen[cell] += 1
    return clips.speech[sorted(rows, key=keys.__getitem__)[:POOL]]


def means(clips: CodedClips, speaker: str) -> dict[str, np.ndarray]:
    """The speaker's mean code for each emotion that the speaker shows."""
    out: dict[str, list[np.ndarray]] = {}
    for i in range(len(clips)):
        if clips.speakers[i] == speaker:
            out.setdefault(clips.emotions[i], []).append(clips.codes[i].mean(axis=0))
    return {emotion: np.mean(codes, axis=0) for emotion, codes in out.items()}


def label_codes(clips: CodedClips) -> np.ndarray:
    """(8, C) direction of codes from neutral to each emotion, the mean over the speakers who show both.

    If no speaker shows neutral and the emotion, the direction of the emotion is zero.
    """
    every = [means(clips, s) for s in sorted(set(clips.speakers))]
    out = np.zeros((len(EMOTIONS), clips.codes[0].shape[1]), np.float32)
    for k, emotion in enumerate(EMOTIONS):
        gaps = [m[emotion] - m["neutral"] for m in every if emotion in m and "neutral" in m]
        if gaps:
            out[k] = np.mean(gaps, axis=0)
    return out


def neutral_speech(clips: CodedClips) -> np.ndarray:
    """(M, R) utterance vectors of the neutral clips, or of all clips if there is no neutral clip."""
    neutral = [i for i in range(len(clips)) if clips.emotions[i] == "neutral"]
    return np.asarray(clips.speech[neutral or slice(None)])


def label_speech(clips: CodedClips, pools: PoolEncoder) -> np.ndarray:
    """(8, D) direction of speech from neutral to each emotion; zeros for an emotion that no clip shows."""
    if pools.rule == "emotions":
        rows = np.eye(len(EMOTIONS)) - np.eye(len(EMOTIONS))[EMOTIONS.index("neutral")]
    else:
        rest, emotions = neutral_speech(clips).mean(axis=0), np.array(clips.emotions)
        shown = [clips.speech[emotions == e] if e in clips.emotions else rest[None] for e in EMOTIONS]
        rows = np.stack([speech.mean(axis=0) - rest for speech in shown])
    return np.where([[e in clips.emotions] for e in EMOTIONS], rows, 0).astype(np.float32)


def centred(rows: np.ndarray) -> np.ndarray:
    """Subtracts the mean of the N rows from (N, C)."""
    return rows - rows.mean(axis=0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two vectors; 0 if one of them is zero."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 1e-12 else 0.0


def _nearest(vector: np.ndarray, labels: np.ndarray) -> int:
    return int(np.argmax([cosine(vector, label) for label in labels]))
