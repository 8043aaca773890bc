"""The losses of C-MET: reconstruction both ways, supervised contrast of speech and vision, opposite directions.

Source: loss.py and train.py of ChanHyeok-Choi/C-MET; where the paper's formula differs, it is a setting.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cmet_reference.cmet.connector import Tokens

# Of `wmse`, by the target emotion (class_weights in loss.py).
EMOTION_WEIGHTS: Mapping[str, float] = {
    "angry": 0.5,
    "contempt": 1.0,
    "disgusted": 0.5,
    "fear": 1.0,
    "happy": 2.0,
    "neutral": 0.1,
    "sad": 1.0,
    "surprised": 2.0,
}
NOISE_SIGMA = 8.0  # initial value of bmse's learnt deviation


@dataclass(frozen=True)
class LossSettings:
    """The defaults are the released training's."""

    reconstruction: Literal["focal_mse", "mse", "wmse", "bmse"] = "focal_mse"
    both_ways: bool = True  # False: the forward direction alone is reconstructed (`--train unidir`)
    contrast: float = 0.1
    direction: float = 0.05
    direction_form: Literal["code", "paper"] = "code"
    temperature: float = 0.1
    focal_beta: float = 0.2
    focal_gamma: float = 1.0


def focal_mse(predicted: Tensor, target: Tensor, beta: float = 0.2, gamma: float = 1.0) -> Tensor:
    """mean((x - y)^2 (2 sigmoid(beta |x - y|) - 1)^gamma), the default reconstruction: near 0.1 |e|^3 for small e.

    Source: weighted_focal_mse_loss(activate="sigmoid") in loss.py.
    """
    error = predicted - target
    return (error**2 * (2 * torch.sigmoid(beta * error.abs()) - 1) ** gamma).mean()


def weighted_mse(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """mean over rows of weight times the row's mean squared error: (N, C), (N, C), (N,). Source: WeightedMSELoss."""
    return (((predicted - target) ** 2).mean(dim=-1) * weights).mean()


def balanced_mse(predicted: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    """Cross-entropy of each prediction's target among the batch's, under an isotropic Gaussian of deviation `sigma`.

    Source: bmc_loss_md in loss.py (Ren et al. 2022, Balanced MSE, eq. 10), without the factor 2 sigma^2 that is
    commented out there. The Gaussian's factor is the same for all targets and cancels in the softmax.

    Args:
        predicted, target: (N, C).
        sigma: scalar.
    """
    logits = -0.5 * (predicted[:, None] - target[None]).square().sum(dim=-1) / sigma**2
    return functional.cross_entropy(logits, torch.arange(len(predicted), device=predicted.device))


def contrastive(visual: Tensor, speech: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss over both modalities (Khosla et al. 2020, eq. 2). Source: CntLoss in loss.py.

    All 2B features have length 1 and are compared with each other; the positives of one are all others with its label.

    Args:
        visual, speech: (B, D).
        labels: (B,) target emotions.
    """
    features = torch.cat([functional.normalize(visual, dim=1), functional.normalize(speech, dim=1)])
    labels = labels.repeat(2)
    diagonal = torch.eye(len(features), dtype=torch.bool, device=features.device)
    logits = (features @ features.T / temperature).masked_fill(diagonal, -torch.inf)
    log_share = logits - logits.logsumexp(dim=1, keepdim=True)
    positive = (labels[:, None] == labels[None]) & ~diagonal
    return -(log_share.masked_fill(~positive, 0.0).sum(dim=1) / positive.sum(dim=1)).mean()


def opposite(forward: Tensor, backward: Tensor, form: Literal["code", "paper"] = "code") -> Tensor:
    """The deviation of the two predictions from opposite directions, per frame: mean((1 + cos)^2), in the paper
    mean(1 + cos). Source: DirectionalLoss in loss.py.

    Args:
        forward, backward: (N, C).
    """
    gap = 1 + functional.cosine_similarity(forward, backward, dim=-1)
    return (gap**2 if form == "code" else gap).mean()


def reconstruction(
    predicted: Tensor,
    target: Tensor,
    settings: LossSettings,
    weights: Tensor | None = None,
    sigma: Tensor | None = None,
) -> Tensor:
    """The chosen reconstruction of (N, C) directions; `weights` (N,) for wmse, `sigma` () for bmse."""
    if settings.reconstruction == "focal_mse":
        return focal_mse(predicted, target, settings.focal_beta, settings.focal_gamma)
    if settings.reconstruction == "mse":
        return functional.mse_loss(predicted, target)
    if settings.reconstruction == "wmse":
        if weights is None:
            raise ValueError("wmse needs a weight for each row")
        return weighted_mse(predicted, target, weights)
    if sigma is None:
        raise ValueError("bmse needs its deviation")
    return balanced_mse(predicted, target, sigma)


def both_contrasts(forward: Tokens, backward: Tokens, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """(L_va + L_av) / 2 of train.py: +speech is matched with -vision and the other way round.

    Args:
        forward: tokens of connector(reference, speech, codes of the source emotion).
        backward: tokens of connector(-reference, -speech, codes of the target emotion).
        labels: (B,) target emotions.
    """
    visual = (backward.input - forward.input).mean(dim=1)
    towards = contrastive(-visual, forward.speech.squeeze(1), labels, temperature)
    away = contrastive(visual, backward.speech.squeeze(1), labels, temperature)
    return (towards + away) / 2


def total(
    directions: tuple[Tensor, Tensor],
    tokens: tuple[Tokens, Tokens],
    target: Tensor,
    labels: Tensor,
    settings: LossSettings,
    weights: Tensor | None = None,
    sigma: Tensor | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The total loss of C-MET, and its parts.

    Args:
        directions, tokens: the connector's outputs for the forward and for the reversed input, (B, T, C) each.
        target: (B, T, C) direction from the source to the target emotion.
        labels: (B,) int64 target emotions.
        weights: (B,) of wmse.
        sigma: () of bmse.
    """
    forward, backward = (d.flatten(0, 1) for d in directions)
    rows = target.flatten(0, 1)
    per_row = None if weights is None else weights.repeat_interleave(target.shape[1])
    parts = {"reconstruction": reconstruction(forward, rows, settings, per_row, sigma)}
    if settings.both_ways:
        parts["reconstruction"] = parts["reconstruction"] + reconstruction(backward, -rows, settings, per_row, sigma)
    loss = parts["reconstruction"]
    if settings.contrast:
        parts["contrast"] = both_contrasts(*tokens, labels, settings.temperature)
        loss = loss + settings.contrast * parts["contrast"]
    if settings.direction:
        parts["direction"] = opposite(forward, backward, settings.direction_form)
        loss = loss + settings.direction * parts["direction"]
    return loss, parts
