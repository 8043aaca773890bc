"""Encodes utterances as vectors, and pools of utterances as C-MET's speech input.

There are four encoders of utterances. `Emotion2Vec` is the encoder of the C-MET paper. `StoredVectors` reads vectors
from files that another program has written. `Prosody` needs no download. `AeeEncoder` is CEM-Net's audio emotion
extractor, trained on the same clips. `PoolEncoder` encodes several vectors of one emotion as the network's speech
input. A direction of speech is the difference of two speech inputs. Every training reports the quality of its encoder,
which `figures.directions` measures.
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
from talking_face.packages import require
from talking_face.pretrained.model_files import WEIGHTS, ModelFiles
from talking_face.reasons import ClipError, Reason, UserError

EMOTION2VEC = "iic/emotion2vec_plus_large"


class SpeechEncoder(Protocol):
    """Encodes the audio of an utterance as one vector."""

    name: str  # stored in checkpoints, which can be used only with an encoder of the same name
    size: int
    pool_rule: PoolRule  # see `PoolEncoder`
    keeps: bool  # whether vectors are worth keeping next to the shards (`cmet_reference.kept`), because they take long

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        """Encodes mono audio, (N,) int16 at 16 kHz, as (size,) float32. Only `StoredVectors` needs `clip_id`."""
        ...


# -- emotion2vec -------------------------------------------------------------------------------------------------------


class Emotion2Vec:
    """Runs `iic/emotion2vec_plus_large` through FunASR.

    The vector is the mean over time of the last layer's features, which have a rate of 50 Hz. Source: extract_e2v+L.py
    of ChanHyeok-Choi/C-MET. FunASR (funasr/models/emotion2vec/model.py) removes the ten extra tokens. FunASR normalises
    the waveform if the configuration of the model demands this.
    """

    size = 1024
    pool_rule: PoolRule = "mean"
    keeps = True

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """`folder`: the folder of the model's config.yaml and model.pt. Nothing is downloaded.

        Raises UserError if FunASR is not installed or the model is absent.
        """
        weights = Path(folder) / "model.pt"
        if not weights.is_file():
            raise UserError(
                f"{weights} is absent. Fetch {EMOTION2VEC} (modelscope download --model {EMOTION2VEC} --local_dir "
                f"{folder}), or set speech = 'prosody'"
            )
        funasr = require("funasr", "emotion2vec (speech = 'prosody' needs less)")
        self.name = f"emotion2vec@{sha256_of(weights)[:8]}"
        with tensors_only():
            self._model = funasr.AutoModel(model=str(folder), device=device, disable_update=True, disable_pbar=True)

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
    """Inside the block, torch.load reads only tensors and runs no code from the file, for all arguments."""
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
    """Reads vectors from .npy files by clip id, or all vectors of a folder.

    The vector of the clip mead/M003/front/angry/3/001 is the first of these files that exists:

    - FOLDER/mead/M003/front/angry/3/001.npy, as `cmet_reference.cmet.store_vectors` writes it;
    - FOLDER/M003/front/angry/level_3/emotion2vec+large_features/001.npy, as C-MET's extract_e2v+L.py writes it;
    - FOLDER/angry/emotion2vec+large_features/M003_level_3_001.npy, as in the folder audios/MEAD of C-MET.
    """

    pool_rule: PoolRule = "mean"
    keeps = False

    def __init__(self, folder: Path, released: str = "emotion2vec+large_features") -> None:
        """`released`: name of the folder with the vectors, next to MEAD's clips, in the paths of C-MET's script.

        Raises UserError if the folder has no vector.
        """
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

    def absent(self, clip_ids: Sequence[str]) -> list[str]:
        """The ids without a file."""
        return [clip for clip in clip_ids if not any(path.is_file() for path in self._candidates(clip))]

    def _candidates(self, clip_id: str) -> list[Path]:
        out = [self._folder / f"{clip_id}.npy"]
        parts = clip_id.split("/")
        if len(parts) == 6 and parts[0] == "mead":  # mead/M003/front/angry/3/001
            _, speaker, view, emotion, level, number = parts
            out.append(self._folder / speaker / view / emotion / f"level_{level}" / self._released / f"{number}.npy")
            out.append(self._folder / emotion / self._released / f"{speaker}_level_{level}_{number}.npy")
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


# -- CEM-Net's audio emotion extractor ---------------------------------------------------------------------------------


class AeeEncoder:
    """CEM-Net's audio emotion extractor (AEE), trained on the same shards."""

    pool_rule: PoolRule = "emotions"
    keeps = False

    def __init__(self, path: Path) -> None:
        from cmet_reference.cem_net import aee

        self._net = aee.load(path)
        self.size = len(self._net.emotion(np.zeros(AUDIO_RATE, np.int16)))
        self.name = f"aee@{checkpoints.revision(path)}"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        return np.asarray(self._net.emotion(checked(audio)), np.float32).reshape(-1)


# -- choice of an encoder ----------------------------------------------------------------------------------------------


def make_encoder(setting: str, folder: Path | None = None, *, files: ModelFiles, device: str = "cpu") -> SpeechEncoder:
    """The encoder that the settings name: `prosody`, `aee`, `emotion2vec:FOLDER` or `stored:FOLDER`.

    Args:
        setting: the name.
        folder: the first folder in which the checkpoint of `aee` is searched for; then it is searched for in `files`.
        files: the folders that are searched.
        device: the torch device of emotion2vec; the other encoders run on the CPU.

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
        place = existing(where, f"speech = {setting!r}", files)
        return Emotion2Vec(place, device) if kind == "emotion2vec" else StoredVectors(place)
    raise UserError(f"speech = {setting!r}; there are prosody, aee, emotion2vec:FOLDER and stored:FOLDER")


def existing(where: str, setting: str, files: ModelFiles) -> Path:
    """The folder that a setting names.

    Raises UserError if it is absent. A checkpoint records only the last part of a path, so CMET_EVAL_WEIGHTS is named.
    """
    if not (place := files.folder(where)).is_dir():
        raise UserError(f"{setting}: no folder {where} here; set {WEIGHTS} to the folder that contains it")
    return place


# -- pools of utterances ----------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Utterances:
    """A pool of utterances of one emotion. Vectors that another program computed are found by clip id or by folder.

    Attributes:
        audio: (N,) int16 each, 16 kHz.
        clip_ids: the clip ids, in the order of `audio`; only stored vectors need them.
        folder: a folder with one vector per .npy file, as inference.py of C-MET reads it (--emo_e2v_path). If it is
            given, `audio` and `clip_ids` are not used.
    """

    audio: Sequence[np.ndarray] = ()
    clip_ids: Sequence[str] = ()
    folder: Path | None = None

    def __bool__(self) -> bool:
        return bool(len(self.audio)) or self.folder is not None

    def vectors(self, encoder: SpeechEncoder) -> np.ndarray:
        """The vectors of the utterances, (N, R). Raises ClipError if a vector is absent, or has another size."""
        if self.folder is None:
            ids: Sequence[str | None] = self.clip_ids or [None] * len(self.audio)
            return np.stack([encoder.encode(a, clip) for a, clip in zip(self.audio, ids, strict=True)])
        found = [_read_vector(path, path.name) for path in sorted(self.folder.glob("*.npy"))]
        if not found or any(len(vector) != encoder.size for vector in found):
            raise ClipError(
                Reason.SIZE_MISMATCH, f"{self.folder} should hold .npy files with {encoder.size} numbers each"
            )
        return np.stack(found)


SHRINK = 0.3  # share of the covariance that is replaced by its diagonal; values of 0.1 to 0.6 change the cosine by 0.01
# Assumed probability that the speaker of an utterance has no utterance in the neutral pool. In that case the utterance
# is compared with neutral utterances of the training split. A test of this rule used pools of ten clips of six held-out
# speakers, after training on six other speakers. If only half of the speakers are in the neutral pool, the emotion is
# recognised in 94 % of the pools with this rule, and in 85 % without it. If all speakers are in the neutral pool, the
# emotion is recognised in 96 % of the pools with this rule, and in 94 % without it.
STRANGER = 0.2
KNOWN = 64  # number of neutral utterances of the training split that are stored for this rule
# Assumed correlation between the utterances of a pool. Because of it, ten utterances count as 5.3 independent
# utterances.
ALIKE = 0.1


@dataclass(frozen=True)
class PoolEncoder:
    """Encodes a pool of utterances of one emotion as the network's speech input, (D,).

    If the pool rule is `mean`, the encoder returns the mean of the vectors, (R,), as the released code does. If it is
    `emotions`, the encoder returns the probability of each emotion, (8,).

    The rule `mean` suits emotion2vec_plus_large. This network was trained to recognise emotions, and its vectors of one
    emotion are similar for all speakers. Prosody differs between speakers, and four training speakers are too few to
    learn this difference. Therefore the rule `emotions` classifies the emotion before the network, relative to neutral
    speech. docs/experiments/cmet.md reports the effect.
    """

    rule: PoolRule
    mean: np.ndarray  # (R,) float32, mean of all training utterances
    # (R, R) whitening matrix: after multiplication, vectors have variance 1 within an emotion. It is fitted to vectors
    # minus the mean neutral vector of their speaker.
    white: np.ndarray
    centres: np.ndarray  # (8, R) whitened; mean offset of each emotion from the neutral means of its speakers
    known: np.ndarray  # (K, R) neutral utterances of the training split; see STRANGER

    def __call__(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(D,): the mean vector (R,), or the probabilities of the emotions (8,).

        Args:
            pool: (N, R) vectors of one or more utterances of one emotion.
            rest: (M, R) vectors of one or more neutral utterances, preferably of the same speakers.
        """
        if self.rule == "mean":
            return np.asarray(pool.mean(axis=0))
        return softmax(self.scores(pool, rest))

    def direction(self, source: np.ndarray, target: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(D,): the encoding of the target emotion's pool minus the encoding of the source emotion's pool."""
        return self(target, rest) - self(source, rest)

    @property
    def size(self) -> int:
        """D, the number of values in an encoding."""
        return len(EMOTIONS) if self.rule == "emotions" else len(self.mean)

    def scores(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(8,) log likelihood of each of EMOTIONS, up to a constant. The arguments are those of `__call__`.

        It is unknown which neutral utterance has the same speaker as the utterance x. Therefore x is compared with
        every neutral utterance n: p(x | emotion) is the mean, over n, of a normal density of x - n. The density is
        centred on the emotion's centre and has twice the variance of one utterance. Two corrections follow. STRANGER
        corrects for the case that `rest` has no utterance of the speaker. ALIKE corrects for the correlation between
        the utterances of a pool.
        """
        log = self._log_likelihood(pool, rest)
        if len(self.known):
            log = np.logaddexp(np.log(1 - STRANGER) + log, np.log(STRANGER) + self._log_likelihood(pool, self.known))
        return np.asarray(log.sum(axis=0) / (1 + ALIKE * (len(log) - 1)))

    def _log_likelihood(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(N, 8) log p(x | emotion) of each utterance, on the assumption that `rest` has its speaker."""
        x, n = (np.asarray((v - self.mean) @ self.white, np.float64) for v in (pool, rest))
        distance = ((x[:, None, None] - n[None, :, None] - self.centres) ** 2).sum(axis=-1)  # (N, M, 8)
        return np.asarray(np.logaddexp.reduce(-distance / (2 * 2), axis=1) - np.log(len(n)))


def softmax(scores: np.ndarray) -> np.ndarray:
    """Converts log likelihoods to (8,) float32 probabilities. The prior probabilities of all emotions are equal."""
    odds = np.exp(scores - scores.max())
    return np.asarray(odds / odds.sum(), np.float32)


def fit_pool_encoder(
    rule: PoolRule, vectors: np.ndarray, speakers: Sequence[str], emotions: Sequence[str]
) -> PoolEncoder:
    """Fits the encoder to the training split. An emotion that does not occur in the split always gets probability 0.

    Args:
        vectors: (N, R), one vector per utterance.
        speakers: the speaker of each utterance.
        emotions: the emotion of each utterance.
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


_OUT_OF_REACH = 1e3  # centre of an emotion that does not occur in the training split; it is too far to be chosen
