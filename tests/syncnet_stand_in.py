"""A seeded SyncNet v2, to compare with the code of syncnet_python where the official weights are absent."""

from __future__ import annotations

from functools import cache
from typing import Any

import cv2
import numpy as np
import torch

from talking_face.pretrained.mfcc import mfcc


@cache
def reference_net(seed: int = 0) -> Any:
    """syncnet_python's network in eval mode. Its batch norms have the statistics of noise, so that activations are as
    large as in a trained network, and embeddings differ between windows. Both branches have the same large mean, so
    that lips are nearer to sound than to the zeros around it, as in a trained network.
    """
    from syncnet_python.SyncNetModel import S

    torch.manual_seed(seed)
    net = S()
    for module in net.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 1.0
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, 0, 0.3)
    frames = torch.from_numpy(smooth_frames(12, 224, 7)[..., ::-1].copy()).permute(3, 0, 1, 2)[None].float()
    lips = torch.cat([frames[:, :, k : k + 5] for k in range(8)])
    rows = torch.from_numpy(mfcc(babble(16000, 7))).float().T[None, None]
    sounds = torch.cat([rows[..., 4 * k : 4 * k + 20] for k in range(8)])
    with torch.no_grad():
        for _ in range(2):
            net.train()
            embedded = net.forward_lip(lips), net.forward_aud(sounds)
            for head, out in zip((net.netfclip, net.netfcaud), embedded, strict=True):
                head[3].bias += torch.linspace(-1, 1, 1024).roll(300) - out.mean(dim=0)
    return net.eval()


def official_form(net: Any) -> dict[str, torch.Tensor]:
    """Its state dict in the form of the official file, which is older than the batch counter of batch norm."""
    return {name: value for name, value in net.state_dict().items() if not name.endswith("num_batches_tracked")}


class Projections:
    """A seeded network with SyncNet's inputs and outputs that takes 0.1 ms for a window: fixed projections of a small
    picture and of cepstra. The peers' codes ran with the same network to compute golden values."""

    tag = "projections"

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self._lip = torch.randn(1024, 3 * 5 * 14 * 14, generator=generator) / 54
        self._sound = torch.randn(1024, 13 * 20, generator=generator) / 16

    def lip(self, crops: np.ndarray) -> np.ndarray:
        bgr = torch.from_numpy(crops[..., ::-1].copy()).permute(3, 0, 1, 2).float()
        windows = torch.stack([bgr[:, k : k + 5] for k in range(len(crops) - 4)])
        x = torch.nn.functional.avg_pool3d(windows, (1, 16, 16)).flatten(1) / 64
        return torch.tanh((x - x.mean(1, keepdim=True)) @ self._lip.T).numpy()

    def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
        rows = torch.from_numpy(mfcc(samples).astype(np.float32)).T
        x = torch.stack([rows[:, 4 * k : 4 * k + 20].flatten() for k in range(windows)])
        return torch.tanh(x @ self._sound.T / 8).numpy()


def smooth_frames(n: int, size: int, seed: int) -> np.ndarray:
    """(n, size, size, 3) uint8 RGB: blobs that change from frame to frame."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (n, 12, 12, 3), dtype=np.uint8)
    return np.stack([cv2.resize(frame, (size, size), interpolation=cv2.INTER_CUBIC) for frame in small])


def babble(n_samples: int, seed: int) -> np.ndarray:
    """(n,) int16 at 16 kHz: noise whose loudness and spectrum change as fast as syllables."""
    rng = np.random.default_rng(seed)
    syllable = np.arange(0, n_samples + 1600, 1600)
    loud = np.interp(np.arange(n_samples), syllable, rng.uniform(50, 6000, len(syllable)))
    noise = rng.normal(0, 1, n_samples)
    return (loud * (noise + 0.9 * np.roll(noise, 1))).clip(-32768, 32767).astype(np.int16)
