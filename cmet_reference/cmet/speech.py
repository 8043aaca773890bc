"""Utterance vectors: what C-MET hears of an emotion. Directions are differences of them.

emotion2vec is what the paper uses; `Stored` reads vectors computed elsewhere; `Prosody` and `Voice` need no download;
`OwnEmotion` is CEM-Net's audio emotion encoder, trained on the same clips.

`figures.directions` says what an encoder is worth: it is part of every training's held-out figures.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

import numpy as np

from cmet_reference.voice import RATE, Prosody, Units, Voice, checked
from talking_face.reasons import ClipError, Reason, UserError

EMOTION2VEC = "iic/emotion2vec_plus_large"


class SpeechEncoder(Protocol):
    """Sound to one vector."""

    name: str  # what a checkpoint records; another name, another space
    size: int
    units: Units  # how the training split sets the network's units

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
    units: Units = "own"  # the released code subtracts raw vectors

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

    units: Units = "own"

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

    units: Units = "discriminant"

    def __init__(self, path: Path) -> None:
        from cmet_reference.cem_net import aee
        from cmet_reference.training import checkpoints

        self._net = aee.load(path)
        self.size = len(self._net.emotion(np.zeros(RATE, np.int16)))
        self.name = f"aee@{checkpoints.revision(path)}"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        return np.asarray(self._net.emotion(checked(audio)), np.float32).reshape(-1)


# -- choosing one ------------------------------------------------------------------------------------------------------


def build(setting: str, folder: Path | None = None) -> SpeechEncoder:
    """The encoder that a configuration names: `voice`, `prosody`, `aee`, `emotion2vec:FOLDER` or `stored:FOLDER`.

    `folder` is where checkpoints of this training lie (for `aee`); without it they are looked for.
    """
    kind, _, where = setting.partition(":")
    if kind in ("prosody", "voice"):
        return Prosody() if kind == "prosody" else Voice()
    if kind == "aee":
        from cmet_reference.training import checkpoints

        here = folder / "aee.safetensors" if folder else None
        return OwnEmotion(here if here and here.is_file() else checkpoints.find("aee"))
    if kind in ("emotion2vec", "stored"):
        if not where:
            raise UserError(f"speech = {setting!r} names no folder: {kind}:FOLDER")
        return Emotion2Vec(Path(where)) if kind == "emotion2vec" else Stored(Path(where))
    raise UserError(f"speech = {setting!r}; there are voice, prosody, aee, emotion2vec:FOLDER and stored:FOLDER")


def fitted_units(
    units: Units, vectors: np.ndarray, speakers: Sequence[str], emotions: Sequence[str], levels: Sequence[int]
) -> tuple[np.ndarray, np.ndarray]:
    """Mean (D,) and matrix (D, K), float32: the network hears (vector - mean) @ matrix.

    `own`: as they are. `deviation`: each coordinate in units of its deviation within one speaker and emotion; in units
    of the total deviation what tells speakers apart is large. `discriminant`: see `discriminant_units`.

    Args:
        vectors: (N, D) of the training split.
        speakers, emotions, levels: of each.
    """
    mean = vectors.mean(axis=0)
    if units == "own":
        mean, matrix = np.zeros_like(mean), np.eye(len(mean))
    elif units == "deviation":
        deviation = _without_means(vectors, list(zip(speakers, emotions, strict=True))).std(axis=0)
        total = vectors.std(axis=0)
        # One clip a group has no deviation within.
        matrix = np.diag(1 / (np.where(deviation > 1e-3 * total, deviation, total) + 1e-6))
    else:
        matrix = discriminant_units(vectors, speakers, emotions, levels)
    return mean.astype(np.float32), matrix.astype(np.float32)


# Left-out training speakers' emotions lie as the others' on the first five axes (correlation 1, .98, .92, .88, .7 with
# four speakers, 1, 1, .97, .97, .87 with twelve), and not on the other two (-.07, .31 and .21, .52).
AXES = 5


def discriminant_units(
    vectors: np.ndarray, speakers: Sequence[str], emotions: Sequence[str], levels: Sequence[int], shrink: float = 0.1
) -> np.ndarray:
    """(D, K) linear discriminants of emotions, speakers' means removed; K is AXES, fewer with few emotions or numbers.

    Scatter within is what speaker, emotion and level do not explain, `shrink` of it replaced by its diagonal. Axes that
    diagonalise both it and the scatter between emotions; on each, emotions' means and one clip's noise have a variance
    of 1 together. So weak differences are not drowned in the pitch, by which the eight emotions are nearly in line, and
    noise is not blown up to their size.
    """
    x = _without_means(vectors, speakers)
    inside = _without_means(x, list(zip(emotions, levels, strict=True)))
    unit = x.std(axis=0) + 1e-9
    x, inside = x / unit, inside / unit
    scatter = inside.T @ inside / max(1, len(x) - len(set(speakers)) - len(set(zip(emotions, levels, strict=True))) + 1)
    scatter = (1 - shrink) * scatter + shrink * np.diag(np.diag(scatter)) + 1e-6 * np.eye(len(scatter))
    spread, axes = np.linalg.eigh(scatter)
    white = axes / np.sqrt(spread)
    names = np.array(emotions)
    means = np.stack([x[names == e].mean(axis=0) for e in sorted(set(emotions))]) @ white
    k = min(AXES, len(means) - 1, x.shape[1])
    _, between, turned = np.linalg.svd((means - means.mean(axis=0)) / np.sqrt(max(1, len(means) - 1)))
    return np.asarray((white @ turned[:k].T) / np.sqrt(between[:k] ** 2 + 1) / unit[:, None])


def _without_means(vectors: np.ndarray, groups: Sequence[object]) -> np.ndarray:
    """(N, D) float64 less the mean of each one's group."""
    out = vectors.astype(np.float64)
    for group in set(groups):
        rows = [i for i, g in enumerate(groups) if g == group]
        out[rows] -= out[rows].mean(axis=0)
    return out
