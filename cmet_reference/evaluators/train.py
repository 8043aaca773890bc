"""Trains the lip-sync network and the emotion classifier on a shard set, and writes their files and cards.

On the CPU, the same data, settings and seed give the same bytes.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cmet_pipelines.shards import ShardSet
from cmet_reference.evaluators import data
from cmet_reference.evaluators.data import Example
from cmet_reference.evaluators.emotion import accuracy_figures, fit_emotion
from cmet_reference.evaluators.lip_sync import fit_syncnet, shift_figures
from cmet_reference.evaluators.settings import EvaluatorSettings
from cmet_reference.training.checkpoints import CARD_SEAL, commit
from cmet_reference.training.runtime import repeatable
from talking_face.emotions import EMOTIONS
from talking_face.files import check_writable
from talking_face.pretrained import trained_evaluators
from talking_face.pretrained.evaluator_networks import EmotionEvaluator, LipSyncEvaluator
from talking_face.pretrained.trained_evaluators import Kind, TrainedOn
from talking_face.sealed import write_sealed_json

__all__ = ["EvaluatorSettings", "train_evaluators"]

EvaluatorCard = dict[str, Any]  # the JSON file next to an evaluator


@dataclass(frozen=True)
class Examples:
    """The clips for the training and the tests of both evaluators, in memory."""

    train: Sequence[Example]
    test: Sequence[Example]  # clips of held-out speakers, for the test of the emotion classifier
    shifted: Sequence[Example]  # the clips of `test` that are used for the test of the lip-sync network

    @property
    def labels(self) -> tuple[str, ...]:
        """The emotions of the training clips, in the order of EMOTIONS."""
        return tuple(name for name in EMOTIONS if any(e.emotion == name for e in self.train))


@dataclass(frozen=True)
class Trained:
    """A trained evaluator, with the figures of its test."""

    kind: Kind
    net: nn.Module
    seconds: float
    held_out: Mapping[str, object]
    labels: tuple[str, ...] = ()


def train_evaluators(
    folder: Path,
    out: Path | None = None,
    settings: EvaluatorSettings | None = None,
    device: str = "cpu",
    quiet: bool = False,
) -> dict[Kind, EvaluatorCard]:
    """Train both evaluators on the training split of a shard set, and write their files and cards.

    If the training split shows fewer than two emotions, only the lip-sync network is trained.

    Args:
        folder: the shard set.
        out: folder of the files; default: the folder `evaluators` in the shard set, where scoring searches for the
            files.
        settings: default: `EvaluatorSettings()`.
        device: a torch device for the lip-sync network. Only the CPU gives the same bytes in each run.
        quiet: show no progress bars.

    Returns:
        the cards by evaluator. Each card is also written next to the file of its evaluator.

    Raises:
        UserError: the training split has too few clips.
        OSError: the folder of the files cannot be written; this is checked before the training.
    """
    settings = settings or EvaluatorSettings()
    shards = ShardSet(folder)
    out = out or folder / trained_evaluators.FOLDER
    check_writable(out)
    examples = _read(shards, settings, quiet)
    with repeatable(settings.threads):
        trained = [_lip_sync(examples, settings, device, quiet)]
        if len(examples.labels) > 1:
            trained.append(_emotion(examples, settings))
    return {one.kind: _write(one, out, shards, examples.train, settings, device) for one in trained}


def _lip_sync(examples: Examples, settings: EvaluatorSettings, device: str, quiet: bool) -> Trained:
    started = time.monotonic()
    net = fit_syncnet(examples.train, settings, device, quiet)
    seconds = time.monotonic() - started
    figures = shift_figures(LipSyncEvaluator(net, "", device), examples.shifted)
    return Trained("syncnet", net, seconds, {**figures, "speakers": _speakers(examples.shifted)})


def _emotion(examples: Examples, settings: EvaluatorSettings) -> Trained:
    labels, started = examples.labels, time.monotonic()
    net = fit_emotion(examples.train, labels, settings)
    seconds = time.monotonic() - started
    figures = accuracy_figures(EmotionEvaluator(net, "", labels), examples.test)
    return Trained("emotion", net, seconds, {**figures, "speakers": _speakers(examples.test)}, labels)


def _read(shards: ShardSet, settings: EvaluatorSettings, quiet: bool) -> Examples:
    """Read the clips for training and test. Raises UserError if there are too few training clips."""
    train_ids = data.choose(shards.clips, True, settings.max_clips, settings.seed)
    test_ids = data.choose(shards.clips, False, data.MAX_TEST_CLIPS, settings.seed)
    shifted_ids = data.choose(shards.clips, False, data.MAX_SHIFTED_CLIPS, settings.seed)
    train = data.load(shards, train_ids, "read the training split", quiet)
    data.need(train, "the lip-sync network")
    test = data.load(shards, test_ids, "read held-out speakers", quiet)
    return Examples(train, test, [e for e in test if e.clip_id in shifted_ids])


def _write(
    trained: Trained,
    out: Path,
    shards: ShardSet,
    train: Sequence[Example],
    settings: EvaluatorSettings,
    device: str,
) -> EvaluatorCard:
    """Write the file and the card of one evaluator. Returns the card."""
    trained_on = TrainedOn(
        trained.kind,
        shards.digest,
        tuple(sorted(e.clip_id for e in train)),
        tuple(sorted({e.sound_id for e in train})),
        settings.seed,
        trained.labels,
        {**asdict(settings), "device": device},
    )
    path = out / trained_evaluators.FILES[trained.kind]
    sha256 = trained_evaluators.save(path, trained.net.state_dict(), trained_on)
    card = {
        "file": path.name,
        "sha256": sha256,
        "parameters": sum(p.numel() for p in trained.net.parameters()),
        "held_out": trained.held_out,
        "trained_on": asdict(trained_on),
        "training_speakers": _speakers(train),
        "shards": shards.signature,
        "commit": commit(),
        "torch": torch.__version__,
        "seconds": round(trained.seconds, 1),
    }
    write_sealed_json(path.with_suffix(".json"), card, indent=1, seal=CARD_SEAL)
    return card


def _speakers(examples: Sequence[Example]) -> list[str]:
    return sorted({e.speaker for e in examples})
