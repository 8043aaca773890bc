"""AEE, the audio emotion extractor: what is felt, whose voice it is and what is said, pulled apart by putting them
together again in all ways.

The paper's second module: encoders of emotion, timbre and content with 8 convolutions and 3 linear layers each, and a
decoder. Two clips (e0, t0, c0) and (e1, t1, c1) give eight combinations (timbre i, emotion j, content k); each is
decoded and compared with the real clip of that combination, warped in time onto the clip that gave the content. The
scheme is EVP's (Ji et al. 2021; jixinya/EVP, train/disentanglement), which has no timbre and four combinations; its
released pairing of inputs and targets contradicts its text, so this follows the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from cmet_reference.cem_net import audio as sound
from cmet_reference.voice import checked, pitch_track, prosody

KIND = "aee"
LETTERS = " abcdefghijklmnopqrstuvwxyz'"  # of transcripts; 0 is CTC's blank


@dataclass(frozen=True)
class Settings:
    """What the encoders hear, and their sizes."""

    # "mfcc": EVP's cepstra, (28, 12) every 10 ms, which know neither pitch nor loudness; "mel": (28, 80) every 12.5 ms.
    features: Literal["mfcc", "mel"] = "mfcc"
    # Rows that are averaged to one step of a window. With 1 a window is 0.3 s; with 4 of "mel", 1.4 s: long enough to
    # hold a tone of voice, which carries over to other people better than the sounds it is made of.
    pool: int = 1
    merge: int = 1  # neighbouring mel bands that are averaged to one: of 80, 16 with 5, which know no one's formants
    timeless: bool = False  # emotion and timbre: convolutions' outputs are averaged over time, as neither has a when
    width: int = 64  # channels of the first two convolutions, doubled by every two (EVP's encoders: 64 to 512)
    hidden: int = 2048  # of the first linear layer (EVP); the second has a quarter
    content: int = 256  # EVP
    emotion: int = 128  # EVP
    timbre: int = 128  # as the emotion: the paper does not say, EVP has none
    dropout: float = 0.0  # before the emotion's classifier
    # What is said of a whole clip (`whole`) beside the windows: how high and loud it is, how that moves, and the
    # features' mean and deviation. Windows of a second and a half have no median and no range.
    manner: bool = False
    # Hidden units of a second way from these to the emotion's vector, beside a linear one, that begins at nothing.
    manner_hidden: int = 0


# Of `manner_hidden`, in training: of its units, and of what it hears, in deviations; docs/cem_net.md has its worth.
_BENT_DROPOUT, _BENT_NOISE = 0.4, 0.3


@dataclass(frozen=True)
class Labels:
    """What is told apart: names in the order of the classifiers' outputs."""

    emotions: tuple[str, ...]
    speakers: tuple[str, ...]
    sentences: tuple[str, ...] = ()
    transcripts: bool = False


@dataclass(frozen=True)
class Weights:
    """Of the losses; the paper gives none. Features are in units of their deviation, so that every reconstruction
    begins near 1 and every classification near the logarithm of its classes, 1.4 to 2.1: weights of 1 balance them."""

    reconstruction: float = 1.0
    emotion: float = 1.0
    identity: float = 1.0
    content: float = 1.0
    text: float = 1.0
    # Of the triplet, between embeddings of unit length, whose distances run from 0 to 2: same content a quarter of the
    # range nearer than other content.
    margin: float = 0.5


class AEE(nn.Module):
    """The three encoders, the decoder and the classifiers. `mean`, `std`: of the features in the training split."""

    mean: Tensor  # (F,)
    std: Tensor  # (F,)
    whole_mean: Tensor  # (22 + 2 F,)
    whole_std: Tensor  # (22 + 2 F,)

    def __init__(
        self,
        settings: Settings,
        labels: Labels,
        mean: np.ndarray | None = None,
        std: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        self.settings, self.labels = s, _ = settings, labels
        shape = window_shape(s)
        self.emotion_encoder = _Encoder(shape, s.width, s.hidden, s.emotion, s.timeless)
        self.timbre_encoder = _Encoder(shape, s.width, s.hidden, s.timbre, s.timeless)
        self.content_encoder = _Encoder(shape, s.width, s.hidden, s.content)
        self.decoder = _Decoder(shape, s.emotion + s.timbre + s.content, s.width)
        self.dropout = nn.Dropout(s.dropout)
        n_whole = MANNERS + 2 * shape[1] if s.manner else 0
        self.of_whole = nn.Linear(n_whole, s.emotion) if s.manner else None
        self.bent: nn.Sequential | None = None
        if s.manner and s.manner_hidden:
            last = nn.Linear(s.manner_hidden, s.emotion)
            nn.init.zeros_(last.weight)
            nn.init.zeros_(last.bias)
            self.bent = nn.Sequential(nn.Linear(n_whole, s.manner_hidden), nn.SiLU(), nn.Dropout(_BENT_DROPOUT), last)
        self.register_buffer("whole_mean", torch.zeros(n_whole))
        self.register_buffer("whole_std", torch.ones(n_whole))
        self.to_emotion = nn.Linear(s.emotion, len(labels.emotions))
        self.to_speaker = nn.Linear(s.timbre, len(labels.speakers))
        n_text = 1 + len(LETTERS) if labels.transcripts else len(labels.sentences)
        self.to_text = nn.Linear(s.content, n_text) if n_text else None
        self.register_buffer("mean", torch.from_numpy(np.zeros(shape[1], np.float32) if mean is None else mean))
        self.register_buffer("std", torch.from_numpy(np.ones(shape[1], np.float32) if std is None else std))

    def standard(self, windows: Tensor) -> Tensor:
        """(..., 28, F) features to mean 0, deviation 1."""
        return (windows - self.mean) / self.std

    def encode(self, encoder: nn.Module, windows: Tensor) -> Tensor:
        """(B, K, 28, F) standard windows to (B, D): the mean of what K windows of a clip say."""
        return encoder(windows.flatten(0, 1)).unflatten(0, windows.shape[:2]).mean(dim=1)

    def standard_whole(self, wholes: Tensor) -> Tensor:
        """(..., 22 + 2 F) of `whole` to mean 0, deviation 1, within 4 of them."""
        return ((wholes - self.whole_mean) / self.whole_std).clamp(-4, 4)

    def feel(self, windows: Tensor, wholes: Tensor | None) -> Tensor:
        """The emotion's vector, (B, D): of (B, K, 28, F) standard windows and (B, 22 + 2 F) wholes, if heard."""
        found = self.encode(self.emotion_encoder, windows)
        if self.of_whole is None:
            return found
        assert wholes is not None
        known = self.standard_whole(wholes)
        found = found + self.of_whole(known)
        if self.bent is None:
            return found
        return found + self.bent(known + _BENT_NOISE * torch.randn_like(known) if self.training else known)

    @torch.no_grad()
    def furnish(self, rule: np.ndarray) -> None:
        """Begin as a linear rule on what is said of whole clips: (22 + 2 F + 1, C), log odds of each emotion from
        `standard_whole`, the last row for an input of 1. The windows add nothing yet."""
        assert self.of_whole is not None
        nn.init.orthogonal_(self.to_emotion.weight)
        nn.init.zeros_(self.to_emotion.bias)
        back = torch.linalg.pinv(self.to_emotion.weight) @ torch.from_numpy(rule.T.astype(np.float32))
        self.of_whole.weight.copy_(back[:, :-1])
        self.of_whole.bias.copy_(back[:, -1])
        for weight in self.emotion_encoder.linear[-1].parameters():
            weight.zero_()

    @torch.inference_mode()
    def emotion(self, audio: np.ndarray) -> np.ndarray:
        """The emotion of a clip's sound: (N,) int16 at 16 kHz to (D,) float32, the mean over a window each frame."""
        self.eval()
        frames = np.arange(max(1, len(audio) // sound.SAMPLES_A_FRAME))
        rows = features_of(audio, self.settings)
        windows = torch.from_numpy(feature_windows(rows, frames, self.settings))
        how = torch.from_numpy(whole(audio, rows))[None].to(self.mean.device) if self.of_whole else None
        return self.feel(self.standard(windows.to(self.mean.device))[None], how)[0].cpu().numpy()

    @torch.inference_mode()
    def probabilities(self, audio: np.ndarray) -> np.ndarray:
        """(C,) float32, sum 1, in the order of `labels.emotions`."""
        said = torch.from_numpy(self.emotion(audio)).to(self.mean.device)
        return self.to_emotion(said).softmax(dim=0).cpu().numpy()

    def record(self) -> dict[str, Any]:
        """What `build` needs beside the tensors."""
        return {"settings": asdict(self.settings), "labels": asdict(self.labels)}


def build(record: Mapping[str, Any], state: Mapping[str, Tensor]) -> AEE:
    """The network of a checkpoint, ready to use."""
    told = record["labels"]
    emotions, speakers, sentences = (tuple(told[k]) for k in ("emotions", "speakers", "sentences"))
    net = AEE(Settings(**record["settings"]), Labels(emotions, speakers, sentences, told["transcripts"]))
    net.load_state_dict(dict(state))
    return net.eval()


def load(path: Path) -> AEE:
    """The network of a checkpoint file. Raises UserError where it is of another kind."""
    from cmet_reference.training import checkpoints

    state, record = checkpoints.load(path, KIND)
    with checkpoints.as_saved(path, KIND):
        return build(record, state)


# -- what is heard -----------------------------------------------------------------------------------------------------


def window_shape(settings: Settings) -> tuple[int, int]:
    """(steps, features) of a window."""
    return (sound.CEPSTRUM_STEPS, sound.CEPSTRA if settings.features == "mfcc" else sound.MELS // settings.merge)


def features_of(audio: np.ndarray, settings: Settings) -> np.ndarray:
    """(N,) int16 to (R, F) float32: 100 rows a second of 12 cepstra, or 80 a second of 80 mel bands, over
    `pool` and `merge`."""
    if settings.features == "mfcc":
        rows = sound.cepstra(audio)
    else:
        rows = sound.mel(audio).T.reshape(-1, sound.MELS // settings.merge, settings.merge).mean(axis=2)
    whole = rows[: len(rows) // settings.pool * settings.pool]
    return np.ascontiguousarray(whole.reshape(-1, settings.pool, rows.shape[1]).mean(axis=1))


def feature_windows(rows: np.ndarray, frames: np.ndarray, settings: Settings) -> np.ndarray:
    """(R, F) to (len(frames), 28, F), centred on frames of 40 ms; rows beyond the ends are the ends'."""
    if settings.features == "mfcc" and settings.pool == 1:
        return sound.cepstrum_windows(rows, frames)
    # Cepstra begin 0.12 s early, and a row's middle is 12.5 ms after its beginning.
    step, before = (160, 1920 - 200) if settings.features == "mfcc" else (sound.MEL_HOP, 0)
    middle = ((np.asarray(frames) + 0.5) * sound.SAMPLES_A_FRAME + before) / (step * settings.pool)
    start = np.round(middle - sound.CEPSTRUM_STEPS / 2).astype(int)
    return rows[np.clip(start[:, None] + np.arange(sound.CEPSTRUM_STEPS), 0, len(rows) - 1)]


def whole(audio: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """What is said of a whole clip: its `manner` and the mean and deviation of its features over time.

    (N,) int16 and its `features_of`, (R, F), to (22 + 2 F,) float32.
    """
    return np.concatenate([manner(audio), rows.mean(axis=0), rows.std(axis=0)]).astype(np.float32)


MANNERS = 22


def manner(audio: np.ndarray) -> np.ndarray:
    """How a whole clip is said, (22,) float32: the ten numbers of `cmet_reference.voice.Prosody`; the slopes of
    pitch and level over the clip; four percentiles (5, 25, 75, 95) and the deviation of pitch about its median; three
    quartiles of how far voiced sound repeats; the deviation of its tilt; the correlation of pitch and level.

    Args:
        audio: (N,) int16, 16 kHz, one frame of 40 ms or more.
    """
    pitch, strength, level, tilt = pitch_track(checked(audio))
    voiced = (strength > 0.5) & (level > level.max() - 30)
    more = np.zeros(12)
    more[1] = _slope(level)
    if voiced.sum() >= 5:  # 0.1 s
        heard, loud = pitch[voiced], level[voiced]
        together = np.corrcoef(heard, loud)[0, 1] if heard.std() > 0 and loud.std() > 0 else 0.0
        more[0] = _slope(heard)
        more[2:6] = np.percentile(heard, (5, 25, 75, 95)) - np.median(heard)
        more[6:] = [heard.std(), *np.percentile(strength[voiced], (25, 50, 75)), tilt[voiced].std(), together]
    return np.concatenate([prosody(pitch, strength, level, tilt), more]).astype(np.float32)


def _slope(values: np.ndarray) -> float:
    """Of a line through them, over half of their length."""
    return float(np.polyfit(np.linspace(-1, 1, len(values)), values, 1)[0]) if len(values) > 1 else 0.0


def warp(rows: np.ndarray, onto: np.ndarray) -> np.ndarray:
    """Dynamic time warping: `rows` (R, F) in the time of `onto` (S, F), to (S, F).

    L1 costs between rows, steps (1, 0), (0, 1) and (1, 1) of equal weight; where several rows fall on one, the last
    stays, as in jixinya/EVP, MFCC_dtw.py. Cost: R x S; 2 ms for 200 x 200.
    """
    from scipy.spatial.distance import cdist

    cost = cdist(rows, onto, "cityblock")
    n, m = cost.shape
    total = np.full((n + 1, m + 1), np.inf)
    total[0, 0] = 0
    for d in range(2, n + m + 1):  # along anti-diagonals: i + j = d
        i = np.arange(max(1, d - m), min(n, d - 1) + 1)
        j = d - i
        before = np.minimum(np.minimum(total[i - 1, j], total[i, j - 1]), total[i - 1, j - 1])
        total[i, j] = before + cost[i - 1, j - 1]
    i, j = n, m
    match = np.full(m, -1)
    while i and j:
        match[j - 1] = max(match[j - 1], i - 1)
        i, j = min(((i - 1, j - 1), (i - 1, j), (i, j - 1)), key=lambda at: total[at])
    return rows[match]


# -- losses ------------------------------------------------------------------------------------------------------------


def cross_reconstruction(net: AEE, batch: Mapping[str, Tensor], weights: Weights) -> tuple[Tensor, dict[str, Tensor]]:
    """All losses of the main training.

    Args:
        batch: `corners` (B, 2, 2, 2, 28, F): windows of the clips with timbre i, emotion j and content k, those of one
            content aligned; `known` (B, 2, 2, 2): 1 where there is such a clip; `heard` (B, 2, K, 28, F): windows of
            the two clips that are encoded, for emotion and timbre; `whole` (B, 2, 22 + 2 F), where it counts;
            `emotion`, `speaker` (B, 2): their classes.
    """
    corners, heard = net.standard(batch["corners"]), net.standard(batch["heard"]).flatten(0, 1)
    known = batch["known"]
    pair = (len(corners), 2)
    how = batch["whole"].flatten(0, 1) if net.of_whole else None
    feeling = net.feel(heard, how).unflatten(0, pair)
    voice = net.encode(net.timbre_encoder, heard).unflatten(0, pair)
    # Content of the two clips, and of the clips that share it and nothing else.
    own = torch.stack([corners[:, 0, 0, 0], corners[:, 1, 1, 1]], dim=1)
    twin = torch.stack([corners[:, 1, 1, 0], corners[:, 0, 0, 1]], dim=1)
    said, said_twin = net.content_encoder(torch.cat([own, twin], dim=1).flatten(0, 1)).unflatten(0, (-1, 4)).chunk(2, 1)
    every = [torch.cat([feeling[:, j], voice[:, i], said[:, k]], dim=1) for i in (0, 1) for j in (0, 1) for k in (0, 1)]
    made = net.decoder(torch.cat(every)).unflatten(0, (2, 2, 2, -1)).permute(3, 0, 1, 2, 4, 5)
    error = (made - corners).square().mean(dim=(4, 5))
    has_twin = torch.stack([known[:, 1, 1, 0], known[:, 0, 0, 1]], dim=1)
    parts = {
        "reconstruction": (error * known).sum() / known.sum(),
        "emotion": classification(net.to_emotion(net.dropout(feeling)).flatten(0, 1), batch["emotion"].flatten()),
        "identity": classification(net.to_speaker(voice).flatten(0, 1), batch["speaker"].flatten()),
        "content": content_triplet(said, said_twin, has_twin, weights.margin),
    }
    return sum((getattr(weights, k) * v for k, v in parts.items()), torch.zeros((), device=error.device)), parts


def content_triplet(said: Tensor, twin: Tensor, known: Tensor, margin: float) -> Tensor:
    """max(margin + |own - same content| - |own - other content|, 0), mean over the known; lengths of unit vectors.

    Args:
        said: (B, 2, D), of the two clips. twin: (B, 2, D), of clips with their content and another's voice and emotion.
        known: (B, 2), 1 where there is such a clip.
    """
    said, twin = functional.normalize(said, dim=2), functional.normalize(twin, dim=2)
    near = (said - twin).add(1e-6).norm(dim=2)
    far = (said - twin.flip(1)).add(1e-6).norm(dim=2)
    return ((margin + near - far).clamp(min=0) * known).sum() / known.sum().clamp(min=1)


def pretraining(net: AEE, batch: Mapping[str, Tensor], weights: Weights) -> tuple[Tensor, dict[str, Tensor]]:
    """The three tasks before: emotion and identity from K windows of a clip, and its text.

    Args:
        batch: `heard` (B, K, 28, F), and `felt`, which the emotion is told from, with `whole` (B, 22 + 2 F) where it
            counts; `emotion` and `speaker` (B,), -100 where unlabelled; of the text either `sentence` (B,), or `spoken`
            (B, S, 28, F), windows frame by frame, with their `lengths` (B,), and `letters` (B, L) with `n_letters`
            (B,).
    """
    parts: dict[str, Tensor] = {}
    heard = net.standard(batch["heard"])
    if "emotion" in batch:
        logits = net.to_emotion(net.dropout(net.feel(net.standard(batch["felt"]), batch.get("whole"))))
        parts["emotion"] = classification(logits, batch["emotion"])
    if "speaker" in batch:
        logits = net.to_speaker(net.encode(net.timbre_encoder, heard))
        parts["identity"] = classification(logits, batch["speaker"])
    if net.to_text is not None and "spoken" in batch:
        spoken = net.standard(batch["spoken"])
        letters = net.to_text(net.content_encoder(spoken.flatten(0, 1))).unflatten(0, spoken.shape[:2])
        parts["text"] = functional.ctc_loss(
            letters.log_softmax(dim=2).transpose(0, 1),
            batch["letters"],
            batch["lengths"],
            batch["n_letters"],
            zero_infinity=True,
        )
    elif net.to_text is not None and "sentence" in batch:
        logits = net.to_text(net.encode(net.content_encoder, heard))
        parts["text"] = classification(logits, batch["sentence"])
    return sum((getattr(weights, k) * v for k, v in parts.items()), torch.zeros((), device=heard.device)), parts


# -- networks ----------------------------------------------------------------------------------------------------------


def classification(logits: Tensor, classes: Tensor) -> Tensor:
    """Cross-entropy, mean over the labelled; a class of -100 is none. 0 where all are."""
    return functional.cross_entropy(logits, classes, reduction="sum") / (classes >= 0).sum().clamp(min=1)


def _halved(shape: tuple[int, int], times: int = 4) -> list[tuple[int, int]]:
    """Sizes of a window after each halving; a side of 4 or less is not halved."""
    out = [shape]
    for _ in range(times):
        h, w = out[-1]
        out.append((h if h <= 4 else (h + 1) // 2, w if w <= 4 else (w + 1) // 2))
    return out


class _Encoder(nn.Module):
    """8 convolutions, every other one with a stride, and 3 linear layers: (B, 28, F) to (B, D)."""

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


class _Decoder(nn.Module):
    """A linear layer and three transposed convolutions with one to finish: (B, D) to (B, 28, F), standard features."""

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
