"""Training of the two evaluators, their held-out figures and their cards. Same data, settings and seed: same bytes."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional

from cmet_metrics.lse import SAMPLES_A_FRAME, LipSyncNet, lip_sync, n_windows
from cmet_pipelines.shards import ShardSet
from cmet_reference.evaluators import data
from cmet_reference.evaluators.data import Example
from cmet_reference.training.checkpoints import commit
from cmet_reference.training.loop import repeatable
from talking_face.emotions import EMOTIONS
from talking_face.pretrained import corpus_nets
from talking_face.pretrained.corpus_nets import ROWS, ROWS_A_FRAME, CorpusEmotion, CorpusSyncNet, Kind, TrainedOn
from talking_face.progress import Progress
from talking_face.reasons import UserError

SHIFTS = range(-10, 11)  # frames, of the held-out test of the lip-sync network


@dataclass(frozen=True)
class Settings:
    """Everything of a training but its data. In the file's header and the card."""

    seed: int = 0
    max_clips: int = data.MAX_CLIPS
    syncnet_steps: int = 300
    syncnet_clips: int = 8  # a step
    syncnet_frames: int = 40  # of a clip a step
    syncnet_rate: float = 2e-3
    emotion_copies: int = 3  # of each clip, its pictures altered, beside the clip itself
    # Of the covariances towards a multiple of the identity: chosen by leaving one training speaker out.
    emotion_shrink_blendshapes: float = 0.1
    emotion_shrink_gradients: float = 0.6
    threads: int = 1  # sums of floats depend on their number; two on a busy machine wait for each other


def train_evaluators(
    folder: Path, out: Path | None = None, settings: Settings | None = None, device: str = "cpu", quiet: bool = False
) -> dict[Kind, dict[str, Any]]:
    """Train both on a shard set's training split and write files and cards.

    Args:
        folder: the shard set.
        out: where the files go; default FOLDER/evaluators, where scoring finds them.
        device: of the training. Only on the CPU are the bytes the same from run to run.

    Returns:
        the cards, as written beside the files.
    """
    settings = settings or Settings()
    shards = ShardSet(folder)
    out = out or folder / corpus_nets.FOLDER
    train_ids = data.choose(shards.clips, True, settings.max_clips, settings.seed)
    test_ids = data.choose(shards.clips, False, data.MAX_TEST_CLIPS, settings.seed)
    shifted_ids = data.choose(shards.clips, False, data.MAX_SHIFTED_CLIPS, settings.seed)
    train = data.load(shards, train_ids, "read the training split", quiet)
    data.need(train, "the lip-sync network")
    test = data.load(shards, test_ids, "read held-out speakers", quiet)
    shifted = [e for e in test if e.clip_id in shifted_ids]
    labels = tuple(name for name in EMOTIONS if any(e.emotion == name for e in train))
    if len(labels) < 2:
        raise UserError(f"the training split shows {len(labels)} emotions; a classifier needs 2")
    with repeatable(settings.threads):
        started = time.monotonic()
        syncnet = fit_syncnet(train, settings, device, quiet)
        sync_seconds, started = time.monotonic() - started, time.monotonic()
        emotion = fit_emotion(train, labels, settings)
        emotion_seconds = time.monotonic() - started
        held_out: dict[Kind, dict[str, Any]] = {
            "syncnet": {**shift_figures(CorpusSyncNet(syncnet, "", device), shifted), "speakers": _speakers(shifted)},
            "emotion": {
                **accuracy_figures(CorpusEmotion(emotion, "", labels), test),
                "speakers": _speakers(test),
            },
        }
    cards: dict[Kind, dict[str, Any]] = {}
    parts: list[tuple[Kind, Any, float]] = [("syncnet", syncnet, sync_seconds), ("emotion", emotion, emotion_seconds)]
    for kind, net, seconds in parts:
        trained_on = TrainedOn(
            kind,
            shards.digest,
            tuple(sorted(e.clip_id for e in train)),
            tuple(sorted({e.sound_id for e in train})),
            settings.seed,
            labels if kind == "emotion" else (),
            {**asdict(settings), "device": device},
        )
        path = out / corpus_nets.FILES[kind]
        sha256 = corpus_nets.save(path, net.state_dict(), trained_on)
        cards[kind] = {
            "file": path.name,
            "sha256": sha256,
            "parameters": sum(p.numel() for p in net.parameters()),
            "held_out": held_out[kind],
            "trained_on": asdict(trained_on),
            "training_speakers": _speakers(train),
            "shards": shards.signature,
            "commit": commit(),
            "torch": torch.__version__,
            "seconds": round(seconds, 1),
        }
        card = path.with_suffix(".json")
        temporary = card.with_name(f".{card.name}.part")
        temporary.write_text(json.dumps(cards[kind], indent=1) + "\n", "utf-8")
        temporary.replace(card)
    return cards


# -- lip-sync ----------------------------------------------------------------------------------------------------------


def fit_syncnet(train: Sequence[Example], settings: Settings, device: str = "cpu", quiet: bool = True) -> Any:
    """The lip-sync network, trained to tell each five frames' own sound from all others of the batch.

    Lips and sound of a batch are compared each with each. Twice a cross-entropy: among the windows of the same clip
    (the shifts, which LSE is about), and among those of all clips; both from lips to sound and back.
    """
    net = _seeded(corpus_nets.build_syncnet, settings.seed).to(device)
    rows = np.concatenate([e.cepstra for e in train])
    net.mean.copy_(torch.from_numpy(rows.mean(axis=0)))
    net.std.copy_(torch.from_numpy(rows.std(axis=0) + 1e-3))
    scale = torch.nn.Parameter(torch.tensor(2.5, device=device))  # log of the inverse temperature
    draw = np.random.default_rng(settings.seed)
    frames = min(settings.syncnet_frames, *(len(e.mouths) for e in train))
    losses = []
    with Progress(settings.syncnet_steps, unit="steps", label="lip-sync", quiet=quiet) as progress:
        for _ in _schedule([*net.parameters(), scale], settings.syncnet_rate, settings.syncnet_steps):
            picked = draw.choice(len(train), min(settings.syncnet_clips, len(train)), replace=False)
            lips, sounds = zip(*(_sync_part(train[i], frames, draw) for i in picked), strict=True)
            lip = net.lips(torch.from_numpy(np.stack(lips)).to(device))
            sound = net.sound(torch.from_numpy(np.stack(sounds)).to(device))[:, : lip.shape[1]]
            loss = _contrast(lip, sound, scale.exp().clamp(max=50.0))
            loss.backward()
            losses.append(float(loss.detach()))
            progress.advance()
    net.losses = losses
    return net.eval()


def _sync_part(e: Example, frames: int, draw: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A stretch of a clip, changed as people, cameras and microphones do."""
    start = int(draw.integers(0, len(e.mouths) - frames + 1))
    # The last window's cepstra reach past its frames; the clip's own end has none to follow.
    mouths = _altered(e.mouths[start : start + frames], draw)
    need = ROWS_A_FRAME * (frames - corpus_nets.WINDOW) + ROWS
    sound = e.cepstra[ROWS_A_FRAME * start :][:need].copy()
    if len(sound) < need:
        sound = np.concatenate([sound, np.repeat(sound[-1:], need - len(sound), axis=0)])
    sound[:, 0] += draw.uniform(-2.0, 2.0)  # natural log of the energy: -9 to 9 dB
    return mouths, sound


def _contrast(lip: Any, sound: Any, scale: Any) -> Any:
    clips, windows, size = lip.shape
    own = torch.arange(windows, device=lip.device).repeat(clips)
    inside = scale * lip @ sound.transpose(1, 2)
    everyone = torch.arange(clips * windows, device=lip.device)
    across = scale * lip.reshape(-1, size) @ sound.reshape(-1, size).T
    return (
        functional.cross_entropy(inside.flatten(0, 1), own)
        + functional.cross_entropy(inside.transpose(1, 2).flatten(0, 1), own)
        + functional.cross_entropy(across, everyone)
        + functional.cross_entropy(across.T, everyone)
    ) / 4


def shift_figures(net: LipSyncNet, test: Sequence[Example]) -> dict[str, Any]:
    """How often sound moved by -10 to 10 frames comes back as that offset, on held-out clips.

    Sound moved `k` frames later must give an offset of -k by SyncNet's sign; what moves in is silence.
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
    """The sound `k` frames later, of the same length; silence moves in."""
    by = k * SAMPLES_A_FRAME
    out = np.zeros_like(samples)
    if by >= 0:
        out[by:] = samples[: len(samples) - by]
    else:
        out[:by] = samples[-by:]
    return out


# -- emotion -----------------------------------------------------------------------------------------------------------


def fit_emotion(train: Sequence[Example], labels: Sequence[str], settings: Settings) -> Any:
    """The emotion classifier: two linear discriminants, in closed form, on the CPU. Clips without a label are left out.

    The spread within an emotion is in the covariance, and so is what sets people apart; with four of them it is as
    large as what sets emotions apart, and the discriminant turns away from it.
    """
    train = [e for e in train if e.emotion in labels]
    meant = torch.tensor([labels.index(str(e.emotion)) for e in train])
    draw = np.random.default_rng(settings.seed)
    shown = [[corpus_nets.emotion_input(e.faces, e.blendshapes) for e in train]]
    for _ in range(settings.emotion_copies):
        shown.append([corpus_nets.emotion_input(_another_crop(e.faces, draw), e.blendshapes) for e in train])
    x = torch.from_numpy(np.array(shown)).flatten(0, 1).double()
    net = corpus_nets.build_emotion(len(labels))
    split = corpus_nets.BLENDSHAPES
    _discriminant(net.moved, x[: len(train), :split], meant, settings.emotion_shrink_blendshapes)
    _discriminant(net.seen, x[:, split:], meant.repeat(len(shown)), settings.emotion_shrink_gradients)
    return net.eval()


def _discriminant(layer: Any, x: Any, meant: Any, shrink: float) -> None:
    """Fill a linear layer with Fisher's discriminant of (N, D) float64 by class, all classes as likely.

    In units of each coordinate's deviation; the covariance within classes is `shrink` of the way to its mean variance
    times the identity, so that it can be inverted with fewer clips than coordinates.
    """
    mean, std = x.mean(dim=0), x.std(dim=0) + 1e-6
    x = (x - mean) / std
    centres = torch.stack([x[meant == k].mean(dim=0) for k in range(layer.out_features)])
    within = (x - centres[meant]).T @ (x - centres[meant]) / len(x)
    level = within.diagonal().mean().clamp(min=1e-9)
    within = (1 - shrink) * within + shrink * level * torch.eye(len(within), dtype=x.dtype)
    weight = torch.linalg.solve(within, centres.T).T
    bias = -(weight * centres).sum(dim=1) / 2
    with torch.no_grad():
        layer.weight.copy_(weight / std)
        layer.bias.copy_(bias - (weight / std) @ mean)


def _another_crop(pictures: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The faces of a clip, (8, 128, 128) uint8, altered alike, as points that lie otherwise and another light would.

    Turned by up to 4 degrees, 0.94 to 1.06 times as large, moved by up to 3 px; gamma from 0.6 to 1.6.
    """
    size = pictures.shape[1]
    turn = cv2.getRotationMatrix2D((size / 2, size / 2), draw.uniform(-4, 4), draw.uniform(0.94, 1.06))
    matrix = np.asarray(turn, np.float64)
    matrix[:, 2] += draw.uniform(-3, 3, 2)
    curve = (255 * np.linspace(0, 1, 256) ** (2.0 ** draw.uniform(-0.7, 0.7))).astype(np.uint8)
    moved = [cv2.warpAffine(picture, matrix, (size, size), borderMode=cv2.BORDER_REPLICATE) for picture in pictures]
    return curve[np.stack(moved)]


def accuracy_figures(net: CorpusEmotion, test: Sequence[Example]) -> dict[str, Any]:
    """Accuracy on held-out clips: in all, by intensity without neutral, by emotion, and what was said of each.

    An emotion that was not trained on is missed.
    """
    told = [(e, net.labels[int(net.probabilities(corpus_nets.emotion_input(e.faces, e.blendshapes)).argmax())])
            for e in test if e.emotion is not None]  # fmt: skip

    def share(rows: list[tuple[Example, str]]) -> float:
        return float(np.mean([e.emotion == said for e, said in rows]))

    emotions = [name for name in EMOTIONS if any(e.emotion == name for e, _ in told)]
    felt = [(e, said) for e, said in told if e.emotion != "neutral" and e.intensity is not None]
    return {
        "clips": len(told),
        **({"accuracy": share(told)} if told else {}),
        "by_intensity": {str(k): share([row for row in felt if row[0].intensity == k])
                         for k in sorted({e.intensity for e, _ in felt if e.intensity is not None})},
        "by_emotion": {name: share([row for row in told if row[0].emotion == name]) for name in emotions},
        "said": {name: dict(Counter(said for e, said in told if e.emotion == name)) for name in emotions},
    }  # fmt: skip


# -- shared ------------------------------------------------------------------------------------------------------------


def _altered(pictures: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """The mouths of a clip, (T, 96, 96) uint8, all altered alike, so that a few speakers stand for many.

    Turned by up to 6 degrees, 0.85 to 1.15 times as large, moved by up to 6 px, mirrored half of the time; gamma from
    0.5 to 2; a smooth pattern of up to 40 grey levels laid over: another skin, beard or light.
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


def _schedule(parameters: Sequence[Any], rate: float, steps: int) -> Iterator[int]:
    """AdamW with a rate that rises for a twentieth of the steps and falls to nothing; a step after every turn."""
    optimizer = torch.optim.AdamW(parameters, lr=rate, weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, max(2, steps), pct_start=0.05)
    for step in range(steps):
        optimizer.zero_grad(set_to_none=True)
        yield step
        optimizer.step()
        if step + 1 < steps:
            schedule.step()


def _seeded(build: Callable[[], Any], seed: int) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build().train()


def _speakers(examples: Sequence[Example]) -> list[str]:
    return sorted({e.speaker for e in examples})
