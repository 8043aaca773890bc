"""Training of the two evaluators, their held-out figures and their cards. Same data, settings and seed: same bytes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from torch.nn import functional

from cmet_reference.evaluators import data
from cmet_reference.evaluators.data import Example
from cmet_reference.training.checkpoints import commit
from cmet_reference.training.loop import repeatable
from metrics.lse import SAMPLES_A_FRAME, LipSyncNet, lip_sync, n_windows
from pipelines.shards import ShardSet
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
    emotion_steps: int = 400
    emotion_clips: int = 64
    emotion_frames: int = 8  # of a clip a step, of the 16 that are kept
    emotion_rate: float = 3e-3
    emotion_noise: float = 0.3  # of each blendshape's deviation
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
    train = data.load(shards, train_ids, "read the training split", quiet)
    data.need(train, "the lip-sync network")
    test = data.load(shards, test_ids, "read held-out speakers", quiet)
    labels = tuple(name for name in EMOTIONS if any(e.emotion == name for e in train))
    if len(labels) < 2:
        raise UserError(f"the training split shows {len(labels)} emotions; a classifier needs 2")
    with repeatable(settings.threads):
        started = time.monotonic()
        syncnet = fit_syncnet(train, settings, device, quiet)
        sync_seconds, started = time.monotonic() - started, time.monotonic()
        emotion = fit_emotion(train, labels, settings, device, quiet)
        emotion_seconds = time.monotonic() - started
        held_out: dict[Kind, dict[str, Any]] = {
            "syncnet": {**shift_figures(CorpusSyncNet(syncnet, "", device), test), "speakers": _speakers(test)},
            "emotion": {
                **accuracy_figures(CorpusEmotion(emotion, "", labels, device), test),
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


def fit_emotion(
    train: Sequence[Example], labels: Sequence[str], settings: Settings, device: str = "cpu", quiet: bool = True
) -> Any:
    """The emotion classifier. Clips without a label of the common vocabulary are left out."""
    train = [e for e in train if e.emotion in labels]
    net = _seeded(lambda: corpus_nets.build_emotion(len(labels)), settings.seed).to(device)
    rows = np.concatenate([e.faces for e in train])
    net.mean.copy_(torch.from_numpy(rows.mean(axis=0)))
    net.std.copy_(torch.from_numpy(rows.std(axis=0) + 1e-3))
    spread = rows.std(axis=0) * np.float32(settings.emotion_noise)
    draw = np.random.default_rng(settings.seed + 1)
    torch.manual_seed(settings.seed + 1)  # dropout
    losses = []
    with Progress(settings.emotion_steps, unit="steps", label="emotion", quiet=quiet) as progress:
        for _ in _schedule(list(net.parameters()), settings.emotion_rate, settings.emotion_steps):
            picked = draw.choice(len(train), min(settings.emotion_clips, len(train)), replace=False)
            shown = np.stack([_emotion_part(train[i], settings.emotion_frames, spread, draw) for i in picked])
            said = net(torch.from_numpy(shown).to(device))
            meant = torch.tensor([labels.index(str(train[i].emotion)) for i in picked], device=device)
            loss = functional.cross_entropy(said, meant, label_smoothing=0.1)
            loss.backward()
            losses.append(float(loss.detach()))
            progress.advance()
    net.losses = losses
    return net.eval()


def _emotion_part(e: Example, frames: int, spread: np.ndarray, draw: np.random.Generator) -> np.ndarray:
    """Some frames of a clip, (frames, 52), all moved by one draw of noise of deviation `spread`: another rest."""
    take = np.sort(draw.choice(len(e.faces), frames, replace=False))
    return e.faces[take] + draw.normal(0, 1, spread.shape).astype(np.float32) * spread


def accuracy_figures(net: CorpusEmotion, test: Sequence[Example]) -> dict[str, Any]:
    """Accuracy on held-out clips, in all and by emotion; an emotion that was not trained on is missed."""
    hits: dict[str, list[bool]] = {}
    for e in test:
        if e.emotion is not None:
            said = net.labels[int(net.probabilities(e.faces).argmax())]
            hits.setdefault(e.emotion, []).append(said == e.emotion)
    every = [hit for row in hits.values() for hit in row]
    share = {"accuracy": float(np.mean(every))} if every else {}
    return {"clips": len(every), **share, "by_emotion": {name: float(np.mean(row)) for name, row in hits.items()}}


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
