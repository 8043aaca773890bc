"""The losses of AEE: cross-reconstruction of clip pairs, and the pretraining tasks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional

from cmet_reference.cem_net.aee import AEE
from cmet_reference.cem_net.aee_settings import AeeLossWeights


def cross_reconstruction(
    net: AEE, batch: Mapping[str, Tensor], weights: AeeLossWeights
) -> tuple[Tensor, dict[str, Tensor]]:
    """All losses of the main training.

    Args:
        batch: `corners` (B, 2, 2, 2, 28, F): windows of the clips with timbre i, emotion j and content k, those of one
            content aligned; `known` (B, 2, 2, 2): 1 where such a clip exists; `windows` (B, 2, K, 28, F) of the two
            clips that are encoded, for emotion and timbre; `clip` (B, 2, 22 + 2 F), their `clip_features`, where used;
            `emotion`, `speaker` (B, 2): their classes.
    """
    corners, windows = net.standard(batch["corners"]), net.standard(batch["windows"]).flatten(0, 1)
    known = batch["known"]
    pair = (len(corners), 2)
    clip = batch["clip"].flatten(0, 1) if net.of_whole else None
    emotion = net.emotion_embedding(windows, clip).unflatten(0, pair)
    timbre = net.encode(net.timbre_encoder, windows).unflatten(0, pair)
    # Content of the two clips, and of the clips that share it and nothing else.
    own = torch.stack([corners[:, 0, 0, 0], corners[:, 1, 1, 1]], dim=1)
    twin = torch.stack([corners[:, 1, 1, 0], corners[:, 0, 0, 1]], dim=1)
    content, content_twin = (
        net.content_encoder(torch.cat([own, twin], dim=1).flatten(0, 1)).unflatten(0, (-1, 4)).chunk(2, 1)
    )
    every = [
        torch.cat([emotion[:, j], timbre[:, i], content[:, k]], dim=1) for i in (0, 1) for j in (0, 1) for k in (0, 1)
    ]
    decoded = net.decoder(torch.cat(every)).unflatten(0, (2, 2, 2, -1)).permute(3, 0, 1, 2, 4, 5)
    error = (decoded - corners).square().mean(dim=(4, 5))
    has_twin = torch.stack([known[:, 1, 1, 0], known[:, 0, 0, 1]], dim=1)
    parts = {
        "reconstruction": (error * known).sum() / known.sum(),
        "emotion": classification(net.to_emotion(net.dropout(emotion)).flatten(0, 1), batch["emotion"].flatten()),
        "identity": classification(net.to_speaker(timbre).flatten(0, 1), batch["speaker"].flatten()),
        "content": content_triplet(content, content_twin, has_twin, weights.margin),
    }
    return sum((getattr(weights, k) * v for k, v in parts.items()), torch.zeros((), device=error.device)), parts


def content_triplet(content: Tensor, twin: Tensor, known: Tensor, margin: float) -> Tensor:
    """max(margin + |own - same content| - |own - other content|, 0), mean over the known; Euclidean, on unit vectors.

    Args:
        content: (B, 2, D), of the two clips.
        twin: (B, 2, D), of clips with the same content and another voice and emotion.
        known: (B, 2), 1 where such a clip exists.
    """
    content, twin = functional.normalize(content, dim=2), functional.normalize(twin, dim=2)
    near = (content - twin).add(1e-6).norm(dim=2)
    far = (content - twin.flip(1)).add(1e-6).norm(dim=2)
    return ((margin + near - far).clamp(min=0) * known).sum() / known.sum().clamp(min=1)


def pretraining(net: AEE, batch: Mapping[str, Tensor], weights: AeeLossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """The three pretraining tasks: emotion and identity from K windows of a clip, and its text.

    Args:
        batch: `windows` (B, K, 28, F); `emotion_windows`, the same shape, for the emotion, with `clip` (B, 22 + 2 F)
            where used; `emotion` and `speaker` (B,), -100 where unlabelled; for the text either
            `sentence` (B,), or `text_windows` (B, S, 28, F), one window per frame, with their `lengths` (B,), and
            `letters` (B, L) with `n_letters` (B,).
    """
    parts: dict[str, Tensor] = {}
    windows = net.standard(batch["windows"])
    if "emotion" in batch:
        logits = net.to_emotion(
            net.dropout(net.emotion_embedding(net.standard(batch["emotion_windows"]), batch.get("clip")))
        )
        parts["emotion"] = classification(logits, batch["emotion"])
    if "speaker" in batch:
        logits = net.to_speaker(net.encode(net.timbre_encoder, windows))
        parts["identity"] = classification(logits, batch["speaker"])
    if net.to_text is not None and "text_windows" in batch:
        text = net.standard(batch["text_windows"])
        letters = net.to_text(net.content_encoder(text.flatten(0, 1))).unflatten(0, text.shape[:2])
        parts["text"] = functional.ctc_loss(
            letters.log_softmax(dim=2).transpose(0, 1),
            batch["letters"],
            batch["lengths"],
            batch["n_letters"],
            zero_infinity=True,
        )
    elif net.to_text is not None and "sentence" in batch:
        logits = net.to_text(net.encode(net.content_encoder, windows))
        parts["text"] = classification(logits, batch["sentence"])
    return sum((getattr(weights, k) * v for k, v in parts.items()), torch.zeros((), device=windows.device)), parts


def classification(logits: Tensor, classes: Tensor) -> Tensor:
    """Mean cross-entropy over the labelled samples; a class of -100 is unlabelled. 0 where all samples are."""
    return functional.cross_entropy(logits, classes, reduction="sum") / (classes >= 0).sum().clamp(min=1)
