"""Utterance vectors: what C-MET hears of an emotion. Directions are differences of them.

emotion2vec is what the paper uses; `Stored` reads vectors computed elsewhere; `Prosody` needs no download;
`OwnEmotion` is CEM-Net's audio emotion encoder, trained on the same clips. `Hearing` is what the network gets of them.

`figures.directions` says what an encoder is worth: it is part of every training's held-out figures.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from cmet_reference.voice import RATE, Heard, Prosody, checked
from talking_face.emotions import EMOTIONS
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import ClipError, Reason, UserError

EMOTION2VEC = "iic/emotion2vec_plus_large"


class SpeechEncoder(Protocol):
    """Sound to one vector."""

    name: str  # what a checkpoint records; another name, another space
    size: int
    heard: Heard  # see `Hearing`

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
    heard: Heard = "mean"

    def __init__(self, folder: Path, device: str = "cpu") -> None:
        """`folder`: the model as fetched (config.yaml and model.pt in it). Nothing is downloaded.

        Raises UserError where FunASR or the model is not there.
        """
        weights = Path(folder) / "model.pt"
        if not weights.is_file():
            raise UserError(
                f"{weights} is not there. Fetch {EMOTION2VEC} (modelscope download --model {EMOTION2VEC} --local_dir "
                f"{folder}), or set speech = 'prosody'"
            )
        try:
            from funasr import AutoModel
        except ImportError as error:
            raise UserError(
                f"emotion2vec needs FunASR ({error}): pip install funasr; or set speech = 'prosody'"
            ) from None
        with weights.open("rb") as file:
            self.name = f"emotion2vec@{hashlib.file_digest(file, 'sha256').hexdigest()[:8]}"
        with tensors_only():
            self._model = AutoModel(model=str(folder), device=device, disable_update=True, disable_pbar=True)

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        wave = checked(audio).astype(np.float32) / 32768
        said = self._model.generate(wave, fs=RATE, granularity="utterance", extract_embedding=True)
        vector = np.asarray(said[0]["feats"], np.float32).reshape(-1)
        if vector.shape != (self.size,) or not np.isfinite(vector).all():
            raise ClipError(
                Reason.NOT_FINITE, f"{clip_id or 'the sound'}: emotion2vec gave {vector.shape}, not (1024,)"
            )
        return vector


@contextmanager
def tensors_only() -> Iterator[None]:
    """While a foreign checkpoint is read, torch takes tensors out of it and runs nothing, whatever its caller asks."""
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


class Stored:
    """Vectors in .npy files by clip id: FOLDER/CLIP_ID.npy, or where C-MET's extraction put them."""

    heard: Heard = "mean"

    def __init__(self, folder: Path, released: str = "emotion2vec+large_features") -> None:
        """`released`: the name of the folder beside MEAD's clips. Raises UserError where there is no vector at all."""
        self._folder, self._released = Path(folder), released
        first = min(self._folder.rglob("*.npy"), default=None)
        if first is None:
            raise UserError(f"{folder} holds no .npy file; utterance vectors are FOLDER/CLIP_ID.npy")
        self.size = len(_read_vector(first, str(first)))
        self.name = f"stored-{self.size}"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        if clip_id is None:
            raise ClipError(Reason.MISSING_FILE, "stored utterance vectors are found by clip id; this sound has none")
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
        raise ClipError(Reason.UNREADABLE, f"{clip_id}: {path} is no array of numbers ({error})") from None
    vector = np.asarray(vector)
    if vector.dtype.kind not in "fiu" or vector.size == 0 or not np.isfinite(vector).all():
        raise ClipError(Reason.NOT_FINITE, f"{clip_id}: {path} is not an array of finite numbers")
    return vector.reshape(-1).astype(np.float32)


# -- without a download ------------------------------------------------------------------------------------------------


class OwnEmotion:
    """CEM-Net's audio emotion encoder (AEE), trained on the same shards."""

    heard: Heard = "emotions"

    def __init__(self, path: Path) -> None:
        from cmet_reference.cem_net import aee
        from cmet_reference.training import checkpoints

        self._net = aee.load(path)
        self.size = len(self._net.emotion(np.zeros(RATE, np.int16)))
        self.name = f"aee@{checkpoints.revision(path)}"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        return np.asarray(self._net.emotion(checked(audio)), np.float32).reshape(-1)


# -- choosing one ------------------------------------------------------------------------------------------------------


def build(setting: str, folder: Path | None = None, files: ModelFiles | None = None) -> SpeechEncoder:
    """The encoder that a configuration names: `prosody`, `aee`, `emotion2vec:FOLDER` or `stored:FOLDER`.

    `folder` is where checkpoints of this training lie (for `aee`); without it they are looked for.
    """
    kind, _, where = setting.partition(":")
    if kind == "prosody":
        return Prosody()
    if kind == "aee":
        from cmet_reference.training import checkpoints

        here = folder / "aee.safetensors" if folder else None
        return OwnEmotion(here if here and here.is_file() else checkpoints.find("aee", files))
    if kind in ("emotion2vec", "stored"):
        if not where:
            raise UserError(f"speech = {setting!r} names no folder: {kind}:FOLDER")
        return Emotion2Vec(Path(where)) if kind == "emotion2vec" else Stored(Path(where))
    raise UserError(f"speech = {setting!r}; there are prosody, aee, emotion2vec:FOLDER and stored:FOLDER")


# -- what the network hears of them ------------------------------------------------------------------------------------

SHRINK = 0.3  # of the scatter, replaced by its diagonal; 0.1 to 0.6 differ by 0.01 in cosine
# How likely an utterance's speaker is not in the neutral pool; one of the training split then stands for that voice.
# Ten clips beside ten neutral ones of half of the speakers: left-out training speakers' pools are heard right in 94 %,
# in 85 % without (six to learn from, six told; with all speakers in the neutral pool 96 % and 94 %).
STRANGER = 0.2
KNOWN = 64  # neutral utterances of the training split that are kept for it
ALIKE = 0.1  # what two utterances of a pool tell twice: ten count for 5.3, one for one


@dataclass(frozen=True)
class Hearing:
    """A pool of utterances, as the network hears it.

    `mean`: their mean, as released, of an encoder of R numbers. `emotions`: how likely the pool shows each emotion.
    emotion2vec_plus_large was trained to tell emotions apart, so that a pool lands where its emotion's pools do,
    whoever speaks. Plain numbers of a voice lie a little elsewhere for every speaker, and four training speakers do not
    say what to answer there: so emotions are told apart before the network, relative to neutral speech. docs/cmet.md
    has what it is worth.
    """

    rule: Heard
    mean: np.ndarray  # (R,) float32
    white: np.ndarray  # (R, R): vectors @ white scatter by 1 along each axis within an emotion, neutral means removed
    centres: np.ndarray  # (8, R) in these units: mean offset of each emotion from its speakers' neutral means
    known: np.ndarray  # (K, R) neutral utterances of the training split; see STRANGER

    def __call__(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(D,): R numbers of a mean, 8 shares.

        Args:
            pool: (N, R) utterance vectors, one or more, of one emotion.
            rest: (M, R) neutral ones, one or more, best of the same people.
        """
        if self.rule == "mean":
            return np.asarray(pool.mean(axis=0))
        return shares(self.scores(pool, rest))

    def between(self, source: np.ndarray, target: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(D,) from what is heard of one pool to what is heard of another."""
        return self(target, rest) - self(source, rest)

    @property
    def size(self) -> int:
        """D."""
        return len(EMOTIONS) if self.rule == "emotions" else len(self.mean)

    def scores(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(8,) log likelihood of each of EMOTIONS, up to a constant. Arguments as above.

        Which neutral utterance is by the same speaker is not known, so an utterance is compared with each:
        p(x | emotion) is the mean over neutral n of a normal density of x - n about the emotion's centre, of twice the
        scatter of one utterance. Nobody in `rest` may be: see STRANGER. A pool's utterances are not independent: see
        ALIKE.
        """
        log = self._beside(pool, rest)
        if len(self.known):
            log = np.logaddexp(np.log(1 - STRANGER) + log, np.log(STRANGER) + self._beside(pool, self.known))
        return np.asarray(log.sum(axis=0) / (1 + ALIKE * (len(log) - 1)))

    def _beside(self, pool: np.ndarray, rest: np.ndarray) -> np.ndarray:
        """(N, 8) log p(x | emotion) of each utterance, its speaker one of `rest`."""
        x, n = (np.asarray((v - self.mean) @ self.white, np.float64) for v in (pool, rest))
        apart = ((x[:, None, None] - n[None, :, None] - self.centres) ** 2).sum(axis=-1)  # (N, M, 8)
        return np.asarray(np.logaddexp.reduce(-apart / (2 * 2), axis=1) - np.log(len(n)))


def shares(scores: np.ndarray) -> np.ndarray:
    """(8,) float32 probabilities of log likelihoods, every emotion as likely as another beforehand."""
    odds = np.exp(scores - scores.max())
    return np.asarray(odds / odds.sum(), np.float32)


def fit_hearing(rule: Heard, vectors: np.ndarray, speakers: Sequence[str], emotions: Sequence[str]) -> Hearing:
    """Of the training split; an emotion that it does not show has a share of 0.

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
    return Hearing(rule, *(np.asarray(a, np.float32) for a in (mean, white, centres, vectors[kept])))


_OUT_OF_REACH = 1e3  # deviations from everything
