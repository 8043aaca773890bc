"""The losses of C-MET: reconstruction of the direction, a contrastive loss, and a loss for opposite directions.

The connector predicts a forward direction (source to target emotion) and a backward direction (target to source). The
reconstruction loss compares both predictions with the true directions. The contrastive loss compares speech tokens with
visual tokens. The last loss is small if the two predicted directions are opposite. Source: loss.py and train.py of
ChanHyeok-Choi/C-MET. If the formula in the paper differs from the formula in the code, a setting chooses one of the two
formulas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional

from cmet_reference.cmet.connector import Tokens

# Weights of the loss `wmse`, by target emotion (class_weights in loss.py).
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
NOISE_SIGMA = 8.0  # initial value of the standard deviation that the loss `bmse` learns


@dataclass(frozen=True)
class LossSettings:
    """Kinds and weights of the losses. The defaults are those of the released code."""

    reconstruction: Literal["focal_mse", "mse", "wmse", "bmse"] = "focal_mse"
    both_ways: bool = True  # False: reconstruct only the forward direction (`--train unidir` in the released code)
    contrast: float = 0.1  # weight of the contrastive loss
    direction: float = 0.05  # weight of the loss for opposite directions
    direction_form: Literal["code", "paper"] = "code"  # see `opposite`
    temperature: float = 0.1  # temperature of the contrastive loss
    focal_beta: float = 0.2
    focal_gamma: float = 1.0


def focal_mse(predicted: Tensor, target: Tensor, beta: float = 0.2, gamma: float = 1.0) -> Tensor:
    """The default reconstruction loss: mean(e^2 (2 sigmoid(beta |e|) - 1)^gamma) of the errors e.

    With the default values it is near 0.1 |e|^3 for small e. Source: weighted_focal_mse_loss(activate="sigmoid") in
    loss.py.
    """
    error = predicted - target
    return (error**2 * (2 * torch.sigmoid(beta * error.abs()) - 1) ** gamma).mean()


def weighted_mse(predicted: Tensor, target: Tensor, weights: Tensor) -> Tensor:
    """The mean over rows of the row's weight times the row's mean squared error. Source: WeightedMSELoss in loss.py.

    Args:
        predicted, target: (N, C).
        weights: (N,).
    """
    return (((predicted - target) ** 2).mean(dim=-1) * weights).mean()


def balanced_mse(predicted: Tensor, target: Tensor, sigma: Tensor) -> Tensor:
    """Balanced MSE: the cross-entropy with which each prediction selects its own target among all targets of the batch.

    The likelihood of a target is an isotropic Gaussian around the prediction, with standard deviation `sigma`. Source:
    bmc_loss_md in loss.py (Ren et al. 2022, Balanced MSE, eq. 10). The factor 2 sigma^2 of the paper is left out,
    because this factor is commented out in bmc_loss_md. The Gaussian's normalisation is the same for all targets and
    cancels in the softmax.

    Args:
        predicted, target: (N, C).
        sigma: scalar.
    """
    logits = -0.5 * (predicted[:, None] - target[None]).square().sum(dim=-1) / sigma**2
    return functional.cross_entropy(logits, torch.arange(len(predicted), device=predicted.device))


def contrastive(visual: Tensor, speech: Tensor, labels: Tensor, temperature: float = 0.1) -> Tensor:
    """Supervised contrastive loss over both modalities (Khosla et al. 2020, eq. 2). Source: CntLoss in loss.py.

    The 2B features are normalised to length 1, and each feature is compared with all other features. The positives of a
    feature are all other features with the same label.

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
    """A loss that is 0 if the two predictions are opposite in every frame. Source: DirectionalLoss in loss.py.

    `cos` is the cosine between the two predictions of a frame. The form "code" is mean((1 + cos)^2); the form "paper"
    is mean(1 + cos).

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
    """The reconstruction loss that the settings choose, for (N, C) directions.

    Args:
        weights: (N,), only for `wmse`.
        sigma: scalar, only for `bmse`.
    """
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
    """The mean of two contrastive losses, (L_va + L_av) / 2 in train.py.

    The visual feature is the difference of the input tokens, target minus source emotion. As in train.py, the forward
    speech tokens are compared with the negative visual feature, and the backward speech tokens with the positive visual
    feature.

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
    """The total loss of C-MET, and each part of the loss by name.

    Args:
        directions: (B, T, C) each, the connector's outputs for the forward and for the backward input.
        tokens: the connector's tokens for these inputs.
        target: (B, T, C) true direction from the source to the target emotion.
        labels: (B,) int64 target emotions.
        settings: kinds and weights of the losses.
        weights: (B,), only for `wmse`.
        sigma: scalar, only for `bmse`.
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
