"""CEM-Net's audio emotion extractor (AEE): separates emotion, speaker and content.

AEE is the second module of the CEM-Net paper. It has a decoder and three encoders, which encode emotion, timbre and
content. Each encoder has 8 convolutions and 3 linear layers. AEE is trained by cross-reconstruction of clip pairs: The
timbres, emotions and contents of two clips have eight combinations. The decoder decodes the embeddings of each
combination, and its output is compared with a real clip that has this combination. The real clip is first aligned in
time with the clip that gave the content.

The training scheme is that of EVP (Ji et al. 2021; jixinya/EVP, train/disentanglement). EVP has no timbre, and
therefore only four combinations. EVP's released code pairs inputs and targets in a way that contradicts EVP's paper;
AEE does not use these pairs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cmet_reference.cem_net import audio as sound
from cmet_reference.cem_net.aee_features import N_PROSODY, clip_features, feature_windows, features_of, window_shape
from cmet_reference.cem_net.aee_settings import AeeNetSettings, Labels
from cmet_reference.training import checkpoints

KIND = "aee"
LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # letters of transcripts; their classes start at 1, class 0 is CTC's blank
# For the network with `manner_hidden` units, only in training: the dropout of its units, and the standard deviation of
# the noise that is added to its standardised input. docs/experiments/cem_net.md reports their effect.
_HIDDEN_DROPOUT, _HIDDEN_NOISE = 0.4, 0.3


class AEE(nn.Module):
    """The three encoders, the decoder and the classifiers. Names of layers and buffers are stored in checkpoints.

    Buffers `mean` and `std`, (F,), are the mean and standard deviation of the input features in the training split.
    `whole_mean` and `whole_std`, (22 + 2 F,), are the mean and standard deviation of `clip_features`. Layer `of_whole`
    is the linear map from `clip_features` to the emotion embedding, and `bent` is a network whose output is added to
    the result of `of_whole`.
    """

    mean: Tensor
    std: Tensor
    whole_mean: Tensor
    whole_std: Tensor

    def __init__(
        self,
        settings: AeeNetSettings,
        labels: Labels,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.labels = settings, labels
        s = settings
        shape = window_shape(s)
        self.emotion_encoder = Encoder(shape, s.width, s.hidden, s.emotion, s.timeless)
        self.timbre_encoder = Encoder(shape, s.width, s.hidden, s.timbre, s.timeless)
        self.content_encoder = Encoder(shape, s.width, s.hidden, s.content)
        self.decoder = Decoder(shape, s.emotion + s.timbre + s.content, s.width)
        self.dropout = nn.Dropout(s.dropout)
        n_clip = N_PROSODY + 2 * shape[1] if s.manner else 0
        self.of_whole = nn.Linear(n_clip, s.emotion) if s.manner else None
        self.bent: nn.Sequential | None = None
        if s.manner and s.manner_hidden:
            last = nn.Linear(s.manner_hidden, s.emotion)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.bent = nn.Sequential(nn.Linear(n_clip, s.manner_hidden), nn.SiLU(), nn.Dropout(_HIDDEN_DROPOUT), last)
        self.register_buffer("whole_mean", torch.zeros(n_clip))
        self.register_buffer("whole_std", torch.ones(n_clip))
        self.to_emotion = nn.Linear(s.emotion, len(labels.emotions))
        self.to_speaker = nn.Linear(s.timbre, len(labels.speakers))
        n_text = 1 + len(LETTERS) if labels.transcripts else len(labels.sentences)
        self.to_text = nn.Linear(s.content, n_text) if n_text else None
        self.register_buffer("mean", torch.from_numpy(np.zeros(shape[1], np.float32) if mean is None else mean))
        self.register_buffer("std", torch.from_numpy(np.ones(shape[1], np.float32) if std is None else std))

    @property
    def size(self) -> int:
        """The length of the emotion embedding."""
        return self.settings.emotion

    def standard(self, windows: Tensor) -> Tensor:
        """Standardises input features, (..., 28, F): subtracts the mean, divides by the standard deviation."""
        return (windows - self.mean) / self.std

    def encode(self, encoder: nn.Module, windows: Tensor) -> Tensor:
        """The mean embedding of the K windows of each clip: standardised windows, (B, K, 28, F), to (B, D)."""
        return encoder(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).mean(dim=1)

    def standard_clip(self, clip: Tensor) -> Tensor:
        """Standardises `clip_features`, (..., 22 + 2 F), and clips them to 4 standard deviations."""
        return ((clip - self.whole_mean) / self.whole_std).clamp(-4, 4)

    def emotion_embedding(self, windows: Tensor, clip: Tensor | None) -> Tensor:
        """The emotion embedding, (B, D).

        Args:
            windows: (B, K, 28, F), standardised.
            clip: (B, 22 + 2 F) `clip_features`; needed only if the settings have `manner`.
        """
        found = self.encode(self.emotion_encoder, windows)
        if self.of_whole is None:
            return found
        assert clip is not None
        known = self.standard_clip(clip)
        found = found + self.of_whole(known)
        if self.bent is None:
            return found
        return found + self.bent(known + _HIDDEN_NOISE * torch.randn_like(known) if self.training else known)

    @torch.no_grad()
    def init_as_linear_rule(self, rule: np.ndarray) -> None:
        """Initialise the emotion embedding as a linear classifier of `clip_features`.

        The windows have no effect before the training.

        Args:
            rule: (22 + 2 F + 1, C) coefficients of the log odds of each emotion, for the values of `standard_clip`; the
                last row is the bias.
        """
        assert self.of_whole is not None
        nn.init.orthogonal_(self.to_emotion.weight)
        nn.init.zeros_(self.to_emotion.bias)
        inverse = torch.linalg.pinv(self.to_emotion.weight) @ torch.from_numpy(rule.T.astype(np.float32))
        self.of_whole.weight.copy_(inverse[:, :-1])
        self.of_whole.bias.copy_(inverse[:, -1])
        for weight in self.emotion_encoder.linear[-1].parameters():
            weight.zero_()

    @torch.inference_mode()
    def emotion(self, audio: np.ndarray) -> np.ndarray:
        """The emotion embedding of audio, (D,) float32. It is computed from one window per video frame.

        Args:
            audio: (N,) int16, 16 kHz.
        """
        self.eval()
        frames = np.arange(max(1, len(audio) // sound.SAMPLES_A_FRAME))
        rows = features_of(audio, self.settings)
        windows = torch.from_numpy(feature_windows(rows, frames, self.settings))
        clip = torch.from_numpy(clip_features(audio, rows))[None].to(self.mean.device) if self.of_whole else None
        return self.emotion_embedding(self.standard(windows.to(self.mean.device))[None], clip)[0].cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        """The probability of each emotion: (C,) float32, in the order of `labels.emotions`."""
        embedding = torch.from_numpy(self.emotion(audio)).to(self.mean.device)
        return self.to_emotion(embedding).softmax(dim=0).cpu().numpy()

    def record(self) -> dict[str, object]:
        """JSON values that `build` needs in addition to the tensors."""
        return {"settings": asdict(self.settings), "labels": asdict(self.labels)}


def build(record: Mapping[str, Any], state: Mapping[str, Tensor], kind: type[AEE] = AEE) -> AEE:
    """The network of a loaded checkpoint, in evaluation mode. `record`: the result of `AEE.record`."""
    labels = record["labels"]
    emotions, speakers, sentences = (tuple(labels[k]) for k in ("emotions", "speakers", "sentences"))
    net = kind(AeeNetSettings(**record["settings"]), Labels(emotions, speakers, sentences, labels["transcripts"]))
    net.load_state_dict(dict(state))
    return net.eval()


def load(path: Path) -> AEE:
    """The network of a checkpoint file, in evaluation mode. Raises UserError if the file cannot be used."""
    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        return build(record, state)


def _halved(shape: tuple[int, int], times: int = 4) -> list[tuple[int, int]]:
    """The sizes of a window before and after each halving. A side that is at most 4 is not halved."""
    out = [shape]
    for _ in range(times):
        h, w = out[-1]
        out.append((h if h <= 4 else (h + 1) // 2, w if w <= 4 else (w + 1) // 2))
    return out


class Encoder(nn.Module):
    """8 convolutions and 3 linear layers: (B, 28, F) to (B, D). Every second convolution halves the size."""

    def __init__(self, shape: tuple[int, int], width: int, hidden: int, out: int, timeless: bool = False) -> None:
        super().__init__()
        self.timeless = timeless
        sizes, layers, n_in = _halved(shape), [], 1
        for k in range(8):
            n_out = width << (k // 2)
            (h, w), (h2, w2) = sizes[(k + 1) // 2], sizes[k // 2 + 1]
            stride = ((2 if h2 < h else 1), (2 if w2 < w else 1)) if k % 2 == 0 else (1, 1)
            layers += [nn.Conv2d(n_in, n_out, 3, stride, 1), nn.BatchNorm2d(n_out), nn.ReLU(inplace=True)]
            n_in = n_out
        self.conv = nn.Sequential(*layers)
        flat = n_in * sizes[4][1] * (1 if timeless else sizes[4][0])
        self.linear = nn.Sequential(
            nn.Linear(flat, hidden),
            nn.ReLU(inplace=True),
            nn.Linear(hidden, hidden // 4),
            nn.ReLU(inplace=True),
            nn.Linear(hidden // 4, out),
        )

    def forward(self, x: Tensor) -> Tensor:
        found = self.conv(x[:, None])
        return self.linear((found.mean(dim=2) if self.timeless else found).flatten(1))


class Decoder(nn.Module):
    """A linear layer, two transposed convolutions and a convolution: (B, D) to standardised features, (B, 28, F)."""

    def __init__(self, shape: tuple[int, int], n_in: int, width: int) -> None:
        super().__init__()
        self.shape, (self.h, self.w) = shape, _halved(shape, 2)[2]
        self.linear = nn.Linear(n_in, 4 * width * self.h * self.w)
        self.up = nn.Sequential(
            nn.BatchNorm2d(4 * width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(4 * width, 2 * width, 4, (2, 2), 1),
            nn.BatchNorm2d(2 * width),
            nn.ReLU(inplace=True),
            nn.ConvTranspose2d(2 * width, width, 4, (2, 2), 1),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 1, 3, 1, 1),
        )

    def forward(self, code: Tensor) -> Tensor:
        made = self.up(self.linear(code).unflatten(1, (-1, self.h, self.w)))
        return made[:, 0, : self.shape[0], : self.shape[1]]
