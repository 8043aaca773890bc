"""Encodes utterances as vectors, and pools of them as C-MET's speech input; directions are differences.

The paper uses emotion2vec. `StoredVectors` reads vectors that were computed elsewhere, `Prosody` needs no download, and
`AeeEncoder` is CEM-Net's audio emotion extractor, trained on the same clips. `PoolEncoder` makes the network's input of
their vectors. `figures.directions` measures an encoder; it is part of every training's held-out figures.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cmet_reference.training import checkpoints
from cmet_reference.voice import PoolRule, Prosody, checked
from talking_face.emotions import EMOTIONS
from talking_face.files import sha256_of
from talking_face.media.reading import AUDIO_RATE
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason, UserError

EMOTION2VEC = "iic/emotion2vec_plus_large"


class SpeechEncoder(Protocol):
    """Encodes the audio of an utterance as one vector."""

    name: str  # recorded in checkpoints; encoders of different names are not interchangeable
    size: int
    pool_rule: PoolRule  # see `PoolEncoder`

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        """(size,) float32 of (N,) int16 at 16 kHz mono. `clip_id` for encoders that look vectors up."""
        ...


# -- emotion2vec -------------------------------------------------------------------------------------------------------


class Emotion2Vec:
    """`iic/emotion2vec_plus_large` through FunASR: the mean over time of the last layer's features at 50 Hz.

    Source: extract_e2v+L.py of ChanHyeok-Choi/C-MET; funasr/models/emotion2vec/model.py drops the ten extra tokens and
    normalises the waveform where the model's configuration says so.
    """

    size = 1024
    pool_rule: PoolRule = "mean"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """`folder`: holds the fetched model, config.yaml and model.pt. Nothing is downloaded.

        Raises UserError where FunASR or the model is absent.
        """
        weights = Path(folder) / "model.pt"
        if not weights.is_file():
            raise UserError(
                f"{weights} is absent. Fetch {EMOTION2VEC} (modelscope download --model {EMOTION2VEC} --local_dir "
                f"{folder}), or set speech = 'prosody'"
            )
        try:
            from funasr import AutoModel
        except ImportError as error:
            raise UserError(
                f"emotion2vec needs FunASR ({error}): pip install funasr; or set speech = 'prosody'"
            ) from None
        self.name = f"emotion2vec@{sha256_of(weights)[:8]}"
        with tensors_only():
            self._model = AutoModel(model=str(folder), device=device, disable_update=True, disable_pbar=True)

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        wave = checked(audio).astype(np.float32) / 32768
        result = self._model.generate(wave, fs=AUDIO_RATE, granularity="utterance", extract_embedding=True)
        vector = np.asarray(result[0]["feats"], np.float32).reshape(-1)
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise ClipError(
                Reason.NOT_FINITE, f"{clip_id or 'the audio'}: emotion2vec gave {vector.shape}, not (1024,)"
            )
        return vector


@contextmanager
def tensors_only() -> Iterator[None]:
    """Inside the block torch.load reads only tensors and runs no code, whatever its caller asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


# -- vectors computed elsewhere ----------------------------------------------------------------------------------------


class StoredVectors:
    """Reads vectors from .npy files by clip id: FOLDER/CLIP_ID.npy, or the paths of C-MET's extraction."""

    pool_rule: PoolRule = "mean"

    def __init__(self, folder: Path, released: str = "emotion2vec+large_features") -> None:
        """`released`: the folder's name next to MEAD's clips. Raises UserError where the folder has no vector."""
        self._folder, self._released = Path(folder), released
        first = min(self._folder.rglob("*.npy"), default=None)
        if first is None:
            raise UserError(f"{folder} holds no .npy file; utterance vectors are FOLDER/CLIP_ID.npy")
        self.size = len(_read_vector(first, str(first)))
        self.name = f"stored-{self.size}"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        if clip_id is None:
            raise ClipError(Reason.MISSING_FILE, "stored utterance vectors are found by clip id; this audio has no id")
        for path in self._candidates(clip_id):
            if path.is_file():
                vector = _read_vector(path, clip_id)
                if len(vector) != self.size:
                    raise ClipError(
                        Reason.SIZE_MISMATCH, f"{clip_id}: {path} has {len(vector)} numbers, not {self.size}"
                    )
                return vector
        raise ClipError(Reason.MISSING_FILE, f"{clip_id}: no utterance vector {self._candidates(clip_id)[0]}")

    def _candidates(self, clip_id: str) -> list[Path]:
        out = [self._folder / f"{clip_id}.npy"]
        parts = clip_id.split("/")
        if len(parts) == 6 and parts[0] == "mead":  # mead/M003/front/angry/3/001
            _, speaker, view, emotion, level, number = parts
            out.append(self._folder / speaker / view / emotion / f"level_{level}" / self._released / f"{number}.npy")
        return out


def _read_vector(path: Path, clip_id: str) -> np.ndarray:
    try:
        vector = np.load(path, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ClipError(Reason.UNREADABLE, f"{clip_id}: {path} is not an array of numbers ({error})") from None
    vector = np.asarray(vector)
    if vector.dtype.kind not in "fiu" or vector.size == 0 or not np.isfinite(vector).all():
        raise ClipError(Reason.NOT_FINITE, f"{clip_id}: {path} is not an array of finite numbers")
    return vector.reshape(-1).astype(np.float32)


# -- without a download ------------------------------------------------------------------------------------------------


class AeeEncoder:
    """CEM-Net's audio emotion extractor (AEE), trained on the same shards."""

    pool_rule: PoolRule = "emotions"

    def __init__(self, path: Path) -> None:
        from cmet_reference.cem_net import aee

        self._net = aee.load(path)
        self.size = len(self._net.emotion(np.zeros(AUDIO_RATE, np.int16)))
        self.name = f"aee@{checkpoints.revision(path)}"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        return np.asarray(self._net.emotion(checked(audio)), np.float32).reshape(-1)


# -- choosing one ------------------------------------------------------------------------------------------------------


def make_encoder(setting: str, folder: Path | None = None, *, files: ModelFiles) -> SpeechEncoder:
    """The encoder that the settings name: `prosody`, `aee`, `emotion2vec:FOLDER` or `stored:FOLDER`.

    Args:
        folder: the checkpoints of this training, for `aee`; where it has none, `files` are searched.

    Raises:
        UserError: the setting is unknown, or its files cannot be used.
    """
    kind, _, where = setting.partition(":")
    if kind == "prosody":
        return Prosody()
    if kind == "aee":
        here = folder / "aee.safetensors" if folder else None
        return AeeEncoder(here if here and here.is_file() else checkpoints.find("aee", files))
    if kind in ("emotion2vec", "stored"):
        if not where:
            raise UserError(f"speech = {setting!r} names no folder: {kind}:FOLDER")
        return Emotion2Vec(Path(where)) if kind == "emotion2vec" else StoredVectors(Path(where))
    raise UserError(f"speech = {setting!r}; there are prosody, aee, emotion2vec:FOLDER and stored:FOLDER")


# -- pools of utterances ----------------------------------------------------------------------------------------------

SHRINK = 0.3  # of the scatter, replaced by its diagonal; 0.1 to 0.6 differ by 0.01 in cosine
# Probability that an utterance's speaker is not in the neutral pool; a neutral utterance of the training split then
# replaces it. With ten clips and ten neutral ones of half of the speakers, the emotion of left-out speakers' pools is
# recognised in 94 %, in 85 % without this (six speakers to train and to test on; with all speakers in the neutral pool
# 96 % and 94 %).
STRANGER = 0.2
KNOWN = 64  # neutral utterances of the training split that are stored for this
ALIKE = 0.1  # correlation between the utterances of a pool: ten count as 5.3, one as one


@dataclass(frozen=True)
class PoolEncoder:
    """Encodes a pool of utterances of one emotion as the network's speech input, (D,).

    The rule `mean` gives the mean of the vectors, (R,), as released. The rule `emotions` gives the probability of each
    emotion, (8,). emotion2vec_plus_large was trained on emotions, so that pools of one emotion are similar for all
    speakers. Prosody differs between speakers, and four training speakers are too few to learn that difference.
    Therefore emotions are classified before the network, relative to neutral speech. docs/experiments/cmet.md has
    the effect.
    """

    rule: PoolRule
    mean: np.ndarray  # (R,) float32
    white: np.ndarray  # (R, R) whitening: vectors @ white have variance 1 within an emotion, neutral means removed
    centres: np.ndarray  # (8, R) in these units: mean offset of each emotion from its speakers' neutral means
    known: np.ndarray  # (K, R) neutral utterances of the training split; see STRANGER

    def __call__(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(D,): the R numbers of a mean, or 8 probabilities.

        Args:
            pool: (N, R) utterance vectors, one or more, of one emotion.
            rest: (M, R) neutral ones, one or more, preferably of the same people.
        """
        if self.rule == "mean":
            return np.asarray(pool.mean(axis=0))
        return softmax(self.scores(pool, rest))

    def direction(self, source: np.ndarray, target: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(D,): the encoding of the target's pool minus that of the source's."""
        return self(target, rest) - self(source, rest)

    @property
    def size(self) -> int:
        """D."""
        return len(EMOTIONS) if self.rule == "emotions" else len(self.mean)

    def scores(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(8,) log likelihood of each of EMOTIONS, up to a constant. Arguments as in a call.

        The neutral utterance of the same speaker is unknown, so an utterance is compared with each: p(x | emotion) is
        the mean over neutral n of a normal density of x - n around the emotion's centre, with twice the variance of one
        utterance. Possibly no speaker in `rest` is the same: see STRANGER. A pool's utterances are not independent: see
        ALIKE.
        """
        log = self._log_likelihood(pool, rest)
        if len(self.known):
            log = np.logaddexp(np.log(1 - STRANGER) + log, np.log(STRANGER) + self._log_likelihood(pool, self.known))
        return np.asarray(log.sum(axis=0) / (1 + ALIKE * (len(log) - 1)))

    def _log_likelihood(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(N, 8) log p(x | emotion) of each utterance, if its speaker is one of `rest`."""
        x, n = (np.asarray((v - self.mean) @ self.white, np.float64) for v in (pool, rest))
        distance = ((x[:, None, None] - n[None, :, None] - self.centres) ** 2).sum(axis=-1)  # (N, M, 8)
        return np.asarray(np.logaddexp.reduce(-distance / (2 * 2), axis=1) - np.log(len(n)))


def softmax(scores: np.ndarray) -> np.ndarray:
    """(8,) float32 probabilities of log likelihoods, for equally likely emotions."""
    odds = np.exp(scores - scores.max())
    return np.asarray(odds / odds.sum(), np.float32)


def fit_pool_encoder(
    rule: PoolRule, vectors: np.ndarray, speakers: Sequence[str], emotions: Sequence[str]
) -> PoolEncoder:
    """Fits the encoder to the training split. An emotion that it does not show has a probability of 0.

    Args:
        vectors: (N, R), with the speaker and the emotion of each.
    """
    mean, labels, who = vectors.mean(axis=0), np.array(emotions), np.array(speakers)
    offset = np.asarray(vectors - mean, np.float64)
    for speaker in set(speakers):
        rows = who == speaker
        neutral = rows & (labels == "neutral")
        offset[rows] -= offset[neutral if neutral.any() else rows].mean(axis=0)
    centres = np.stack([offset[labels == e].mean(axis=0) if (labels == e).any() else 0 * mean for e in EMOTIONS])
    within = offset - centres[[EMOTIONS.index(e) for e in emotions]]
    scatter = within.T @ within / len(within)
    own = np.diag(scatter)
    scatter = (1 - SHRINK) * scatter + np.diag(SHRINK * own + 1e-6 * vectors.var(axis=0) + 1e-12)
    spread, axes = np.linalg.eigh(scatter)
    white = axes / np.sqrt(spread)
    centres = centres @ white
    centres[[e not in emotions for e in EMOTIONS]] = _OUT_OF_REACH
    neutral = np.flatnonzero(labels == "neutral") if "neutral" in emotions else np.arange(len(labels))
    kept = neutral[np.linspace(0, len(neutral) - 1, min(KNOWN, len(neutral))).round().astype(int)]
    return PoolEncoder(rule, *(np.asarray(a, np.float32) for a in (mean, white, centres, vectors[kept])))


_OUT_OF_REACH = 1e3  # standard deviations from all utterances
