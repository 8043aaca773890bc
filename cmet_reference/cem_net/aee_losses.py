"""The losses of AEE, CEM-Net's audio emotion extractor, for pretraining and for cross-reconstruction of clip pairs."""

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
    """The losses of the training after the pretraining: the weighted sum of the losses, and each loss by name.

    Args:
        batch: arrays of B pairs of clips:
            `corners` (B, 2, 2, 2, 28, F): entry (i, j, k) is a window of the clip that has the timbre of clip i, the
            emotion of clip j and the content of clip k of the pair. Windows of the same content are aligned in time.
            `known` (B, 2, 2, 2): 1 if such a clip exists, else 0.
            `windows` (B, 2, K, 28, F): windows of the two clips, from which emotion and timbre are encoded.
            `clip` (B, 2, 22 + 2 F): `clip_features` of the two clips, only if the network uses them.
            `emotion`, `speaker` (B, 2): classes of the two clips.
    """
    corners, windows = net.standard(batch["corners"]), net.standard(batch["windows"]).flatten(0, 1)
    known = batch["known"]
    pair = (len(corners), 2)
    clip = batch["clip"].flatten(0, 1) if net.of_whole else None
    emotion = net.emotion_embedding(windows, clip).unflatten(0, pair)
    timbre = net.encode(net.timbre_encoder, windows).unflatten(0, pair)
    # Content embeddings of the two clips, and of their twins. A twin has the same content, another voice and emotion.
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
    """The triplet loss max(margin + near - far, 0), averaged over the clips that have a twin.

    `near` is the distance between the embeddings of a clip and its twin, `far` the distance to the other clip's twin.
    Embeddings are normalised to length 1; distances are Euclidean.

    Args:
        content: (B, 2, D), content embeddings of the two clips of each pair.
        twin: (B, 2, D), content embeddings of the twins. A twin is a clip with the same content, another voice and
            another emotion.
        known: (B, 2), 1 if the twin exists, else 0.
        margin: see `AeeLossWeights`.
    """
    content, twin = functional.normalize(content, dim=2), functional.normalize(twin, dim=2)
    near = (content - twin).add(1e-6).norm(dim=2)
    far = (content - twin.flip(1)).add(1e-6).norm(dim=2)
    return ((margin + near - far).clamp(min=0) * known).sum() / known.sum().clamp(min=1)


def pretraining(net: AEE, batch: Mapping[str, Tensor], weights: AeeLossWeights) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses of the three pretraining tasks: the weighted sum of the losses, and each loss by name.

    The tasks are to recognise the emotion and the speaker of a clip from K windows, and the text of the clip.

    Args:
        batch: arrays of B clips. A task is left out if its arrays are missing:
            `windows` (B, K, 28, F), for the speaker and the sentence.
            `emotion_windows` (B, K, 28, F), for the emotion.
            `clip` (B, 22 + 2 F): `clip_features`, if the network uses them.
            `emotion`, `speaker` (B,): classes; -100 if unlabelled.
            `sentence` (B,): class of the sentence, if there are no transcripts; -100 if unlabelled.
            `text_windows` (B, S, 28, F): one window per frame, if there are transcripts.
            `lengths` (B,): number of frames. `letters` (B, L), `n_letters` (B,): the transcripts and their lengths.
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
    """Mean cross-entropy over the labelled samples; class -100 means unlabelled. It is 0 if no sample has a label."""
    return functional.cross_entropy(logits, classes, reduction="sum") / (classes >= 0).sum().clamp(min=1)
