"""Measures predicted expression directions on held-out speakers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from cmet_reference.cmet.connector import Connector
from cmet_reference.cmet.data import CodedClips
from cmet_reference.cmet.speech import PoolEncoder
from talking_face.emotions import EMOTIONS

POOL = 10  # utterances of an emotion, as in C-MET's inference
MOST_FRAMES = 50  # of a neutral clip: ten blocks
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

    A block's reference tokens are the prediction for the block before, zeros for the first. An incomplete last block is
    filled with its last frame (the released inference drops it; see `generate`).

    Args:
        speech: (N, D) utterance directions in the network's units, of N cases.
        codes: (N, T, C), T >= 1.
        reference: "previous", or "zero": every block is predicted like the first one.

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
    """The quality of predicted directions, compared with a lookup by label that was fitted on the training split.

    For every speaker and target emotion: from the speaker's first neutral clip to the emotion, with speech pools of ten
    clips of all speakers given, highest level first, as at inference. The truth is the speaker's mean code in the
    emotion minus the neutral mean.

    Directions are centred: each speaker's truth and prediction minus its mean over target emotions, so that a direction
    that is the same for all emotions scores 0. `cosine` is the mean over speakers and emotions. `emotion_accuracy` is
    the share of directions whose nearest one in the lookup (cosine, both centred) has the right label. `_own` uses
    pools of the speaker alone, `_lookup` and `_truth` replace the prediction.

    Returns:
        the figures; {} where no training speaker shows neutral and an emotion, or no held-out speaker shows neutral and
        all of these.
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
    """Directions from a speaker's first neutral clip to the targets, (N, T, C) twice: with pools of all, and of one."""
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
        of_all, of_own: (N, T, C) predicted directions.
        raw: (N, C) true directions.
        labels: (N, C) centred directions of the lookup.
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
    """(M, R) utterance vectors of the neutral clips; of all clips where there is no neutral one."""
    neutral = [i for i in range(len(clips)) if clips.emotions[i] == "neutral"]
    return np.asarray(clips.speech[neutral or slice(None)])


def label_speech(clips: CodedClips, pools: PoolEncoder) -> np.ndarray:
    """(8, D) direction of speech from neutral to each emotion; zeros where nobody shows it."""
    if pools.rule == "emotions":
        rows = np.eye(len(EMOTIONS)) - np.eye(len(EMOTIONS))[EMOTIONS.index("neutral")]
    else:
        rest, emotions = neutral_speech(clips).mean(axis=0), np.array(clips.emotions)
        shown = [clips.speech[emotions == e] if e in clips.emotions else rest[None] for e in EMOTIONS]
        rows = np.stack([speech.mean(axis=0) - rest for speech in shown])
    return np.where([[e in clips.emotions] for e in EMOTIONS], rows, 0).astype(np.float32)


def centred(rows: np.ndarray) -> np.ndarray:
    """(N, C) minus their mean."""
    return rows - rows.mean(axis=0)


def cosine(a: np.ndarray, b: np.ndarray) -> float:
    """The cosine of two vectors; 0 where one is zero."""
    length = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / length if length > 1e-12 else 0.0


def _nearest(vector: np.ndarray, labels: np.ndarray) -> int:
    return int(np.argmax([cosine(vector, label) for label in labels]))
