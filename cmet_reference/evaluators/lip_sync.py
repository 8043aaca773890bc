"""Trains and tests the lip-sync evaluator, a small SyncNet that reads mouth crops and cepstra of the audio."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmet_metrics.lse import SAMPLES_A_FRAME, LipSyncNet, lip_sync, n_windows
from cmet_reference.evaluators.data import Example
from cmet_reference.evaluators.settings import EvaluatorSettings
from talking_face.pretrained import evaluator_networks
from talking_face.pretrained.evaluator_networks import ROWS, ROWS_A_FRAME
from talking_face.progress import Progress

SHIFTS = range(-10, 11)  # shifts of the audio in the held-out test, in frames


def fit_syncnet(train: Sequence[Example], settings: EvaluatorSettings, device: str = "cpu", quiet: bool = True) -> Any:
    """Trains the lip-sync network to find the audio window that belongs to a window of five frames.

    The loss is the mean of four cross-entropies over the similarities of lips and audio. In two of these losses, a
    window of lips selects its audio. In the other two losses, a window of audio selects its lips. In both cases,
    one loss selects among the windows of the same clip, as the metric LSE does, and the other loss selects among the
    windows of all clips of the batch.

    Args:
        device: a torch device.

    Returns:
        the network in evaluation mode. Its attribute `losses` is the list of the losses of all steps.
    """
    net = _seeded(evaluator_networks.build_syncnet, settings.seed).to(device)
    rows = np.concatenate([e.cepstra for e in train])
    net.mean.copy_(torch.from_numpy(rows.mean(axis=0)))
    net.std.copy_(torch.from_numpy(rows.std(axis=0) + 1e-3))
    scale = torch.nn.Parameter(torch.tensor(2.5, device=device))  # log of the inverse temperature
    draw = np.random.default_rng(settings.seed)
    frames = min(settings.syncnet_frames, *(len(e.mouths) for e in train))
    losses = []
    with Progress(settings.syncnet_steps, unit="steps", label="lip-sync", quiet=quiet) as progress:
        for _ in _adamw_steps([*net.parameters(), scale], settings.syncnet_rate, settings.syncnet_steps):
            picked = draw.choice(len(train), min(settings.syncnet_clips, len(train)), replace=False)
            lips, sounds = zip(*(_training_part(train[i], frames, draw) for i in picked), strict=True)
            lip = net.lips(torch.from_numpy(np.stack(lips)).to(device))
            sound = net.sound(torch.from_numpy(np.stack(sounds)).to(device))[:, : lip.shape[1]]
            loss = _contrast(lip, sound, scale.exp().clamp(max=50.0))
            loss.backward()
            losses.append(float(loss.detach()))
            progress.advance()
    net.losses = losses
    return net.eval()


def _training_part(e: Example, frames: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Draws successive frames of a clip and augments them: mouths (frames, 96, 96) uint8, cepstra (R, 13) float32."""
    start = int(draw.integers(0, len(e.mouths) - frames + 1))
    mouths = _augmented(e.mouths[start : start + frames], draw)
    # The cepstra of the last window end after the last frame. If the clip has too few cepstra, the last row is
    # repeated.
    need = ROWS_A_FRAME * (frames - evaluator_networks.WINDOW) + ROWS
    sound = e.cepstra[ROWS_A_FRAME * start :][:need].copy()
    if len(sound) < need:
        sound = np.concatenate([sound, np.repeat(sound[-1:], need - len(sound), axis=0)])
    sound[:, 0] += draw.uniform(-2.0, 2.0)  # cepstrum 0 is the natural log of the energy: a change of -9 to 9 dB
    return mouths, sound


def _contrast(lip: Tensor, sound: Tensor, scale: Tensor) -> Tensor:
    """The loss of `fit_syncnet`.

    Args:
        lip, sound: (B, W, D) embeddings of B clips with W windows each.
        scale: the inverse temperature.
    """
    clips, windows, size = lip.shape
    own = torch.arange(windows, device=lip.device).repeat(clips)
    within = scale * lip @ sound.transpose(1, 2)
    index = torch.arange(clips * windows, device=lip.device)
    across = scale * lip.reshape(-1, size) @ sound.reshape(-1, size).T
    return (
        functional.cross_entropy(within.flatten(0, 1), own)
        + functional.cross_entropy(within.transpose(1, 2).flatten(0, 1), own)
        + functional.cross_entropy(across, index)
        + functional.cross_entropy(across.T, index)
    ) / 4


def shift_figures(net: LipSyncNet, test: Sequence[Example]) -> dict[str, float]:
    """Tests whether the network finds the offset of held-out clips whose audio was shifted by -10 to 10 frames.

    If the audio is `k` frames late, the correct offset is -k, with the sign that SyncNet uses. The gap in the shifted
    audio is filled with silence.

    Returns:
        `clips` and `shifts`: the numbers of clips and of shifted clips. `offset_exact`: the share of shifted clips
        whose offset is correct. `offset_within_1`: the share of shifted clips whose offset is wrong by at most one
        frame.
    """
    right = near = tried = 0
    for e in test:
        windows = n_windows(len(e.mouths), len(e.samples))
        if windows < 1:
            continue
        lip = net.lip(e.mouths)[:windows]
        for k in SHIFTS:
            offset = lip_sync(lip, net.sound(delayed(e.samples, k), windows)).offset
            right += offset == -k
            near += abs(offset + k) <= 1
            tried += 1
    share = {"offset_exact": right / tried, "offset_within_1": near / tried} if tried else {}
    return {"clips": len(test), "shifts": tried, **share}


def delayed(samples: np.ndarray, k: int) -> np.ndarray:
    """Shifts audio, (N,) int16 at 16 kHz, to `k` frames later. The length stays the same; silence fills the gap."""
    by = k * SAMPLES_A_FRAME
    out = np.zeros_like(samples)
    if by >= 0:
        out[by:] = samples[: len(samples) - by]
    else:
        out[:by] = samples[-by:]
    return out


def _augmented(pictures: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Augments the mouths of a clip, (T, 96, 96) uint8, because there are few training speakers.

    All frames get the same random change: rotation up to 6 degrees, scale 0.85 to 1.15, shift up to 6 px, mirroring
    with probability 0.5, gamma 0.5 to 2. A smooth pattern of up to 40 grey levels is added, which imitates another
    skin, beard or light.
    """
    size = pictures.shape[1]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), draw.uniform(-6, 6), draw.uniform(0.85, 1.15))
    matrix = np.asarray(turn, np.float64)
    matrix[:, 2] += draw.uniform(-6, 6, 2)
    if draw.random() < 0.5:
        matrix[0] = -matrix[0]
        matrix[0, 2] += size - 1
    curve = (255 * np.linspace(0, 1, 256) ** (2.0 ** draw.uniform(-1, 1))).astype(np.float32)
    coarse = draw.normal(0, draw.uniform(0, 20), (6, 6)).clip(-40, 40).astype(np.float32)
    pattern = cv2.resize(coarse, (size, size), interpolation=cv2.INTER_CUBIC)
    moved = [cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE) for picture in pictures]
    return (curve[np.stack(moved)] + pattern).clip(0, 255).astype(np.uint8)


def _adamw_steps(parameters: Sequence[nn.Parameter], learning_rate: float, steps: int) -> Iterator[int]:
    """Yields the number of each step, then updates the parameters with AdamW.

    The learning rate rises during the first 5 % of the steps, then falls.
    """
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, learning_rate, max(2, steps), pct_start=0.05)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        yield step
        optimizer.step()
        if step + 1 < steps:
            schedule.step()


def _seeded(build: Callable[[], Any], seed: int) -> Any:
    """Builds a network whose initial weights depend only on the seed, in training mode."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().train()
