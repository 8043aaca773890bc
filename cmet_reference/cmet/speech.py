"""Utterance vectors: what C-MET hears of an emotion. Directions are differences of them.

emotion2vec is what the paper uses; `Stored` reads vectors computed elsewhere; `Prosody` needs no download and no
training; `OwnEmotion` is CEM-Net's audio emotion encoder, trained on the same clips.

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

from talking_face.reasons import ClipError, Reason, UserError

EMOTION2VEC = "iic/emotion2vec_plus_large"
RATE = 16000
_FRAME, _HOP, _FFT = 1024, 320, 2048  # samples: 64 ms, 20 ms
_LOWEST, _HIGHEST = 60, 500  # Hz
_OCTAVE = 0.05  # of a peak's height, for each doubling of the period (Praat: 0.01; these voices have strong overtones)
_VOICED = 0.5  # of a frame's energy that repeats after one period
_AUDIBLE = 30.0  # dB below the loudest frame


class SpeechEncoder(Protocol):
    """Sound to one vector."""

    name: str  # what a checkpoint records; another name, another space
    size: int
    relative: bool  # True: coordinates are to be put in units of their deviation on the training split

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
    relative = False  # the released code subtracts raw vectors

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
        wave = _checked(audio).astype(np.float32) / 32768
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

    relative = False

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

PROSODY = (
    "pitch, log Hz, median",
    "pitch range, 10th to 90th percentile",
    "pitch movement between frames",
    "voiced share",
    "level, dB, 95th percentile",
    "level's deviation",
    "audible share",
    "level's movement between frames",
    "harmonics to noise, dB",
    "spectral tilt, dB: 1 to 5 kHz against what is below",
)


class Prosody:
    """How something is said: pitch, loudness, their movement, breath and brightness. Ten numbers, no training.

    Means and deviations of 13 cepstra beside the first eight lowered the accuracy on held-out speakers (nearest label,
    one clip less the speaker's neutral mean: 70 % to 63 %): they tell voices and sentences apart more than emotions.
    """

    name = "prosody-1"
    size = len(PROSODY)
    relative = True

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        pitch, strength, level, tilt = pitch_track(_checked(audio))
        voiced = (strength > _VOICED) & (level > level.max() - _AUDIBLE)
        heard = pitch[voiced] if voiced.sum() >= 3 else np.full(3, np.log(150.0))  # whisper, silence: no movement
        low, high = np.percentile(heard, (10, 90))
        top = np.percentile(level, 95)
        loud = level > top - 15
        clear = loud & voiced if (loud & voiced).any() else loud
        share = np.clip(strength[clear], 0.01, 0.999)
        return np.array(
            [
                np.median(heard),
                high - low,
                np.abs(np.diff(heard)).mean(),
                voiced.mean(),
                top,
                level.std(),
                (level > top - 25).mean(),
                np.abs(np.diff(level)).mean(),
                10 * np.log10(share / (1 - share)).mean(),
                tilt[clear].mean(),
            ],
            np.float32,
        )


def pitch_track(samples: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Pitch by autocorrelation, loudness and brightness, every 20 ms.

    Windows of 64 ms under a Hann taper, their autocorrelation divided by the taper's own (Boersma 1993, eq. 9); the
    highest peak between 60 and 500 Hz.

    Args:
        samples: (N,) int16, 16 kHz.

    Returns:
        pitch in log Hz; the peak's height: the share of energy that repeats; level in dB of the squared sample; tilt in
        dB. (1 + N // 320,) each.
    """
    wave = np.pad(samples.astype(np.float64), _FRAME // 2)
    frames = np.lib.stride_tricks.sliding_window_view(wave, _FRAME)[::_HOP]
    frames = frames - frames.mean(axis=1, keepdims=True)
    taper = np.hanning(_FRAME)
    power = np.abs(np.fft.rfft(frames * taper, _FFT)) ** 2
    own = np.fft.irfft(np.abs(np.fft.rfft(taper, _FFT)) ** 2)[:_FRAME]
    repeat = np.fft.irfft(power)[:, :_FRAME]
    repeat /= (repeat[:, :1] + 1e-9) * (own / own[0] + 1e-3)
    first = RATE // _HIGHEST
    lags = np.arange(first, RATE // _LOWEST)
    # A tone repeats after two periods as well as after one: an octave down costs.
    period = (repeat[:, lags] - _OCTAVE * np.log2(lags)).argmax(axis=1) + first
    hertz = np.fft.rfftfreq(_FFT, 1 / RATE)
    low, high = (power[:, (hertz >= a) & (hertz < b)].sum(axis=1) for a, b in ((50, 1000), (1000, 5000)))
    return (
        np.log(RATE / period),
        repeat[np.arange(len(repeat)), period],
        10 * np.log10((frames**2).mean(axis=1) + 1),
        10 * np.log10((high + 1) / (low + 1)),
    )


def _checked(audio: np.ndarray) -> np.ndarray:
    if audio.ndim != 1 or audio.dtype != np.int16 or len(audio) < 640:
        raise ClipError(
            Reason.TOO_SHORT, f"an utterance is (N,) int16 with 640 samples or more, got {audio.shape} {audio.dtype}"
        )
    return audio


class OwnEmotion:
    """CEM-Net's audio emotion encoder (AEE), trained on the same shards."""

    relative = True

    def __init__(self, path: Path) -> None:
        from cmet_reference.cem_net import aee
        from cmet_reference.training import checkpoints

        self._net = aee.load(path)
        self.size = len(self._net.emotion(np.zeros(RATE, np.int16)))
        self.name = f"aee@{checkpoints.revision(path)}"

    def encode(self, audio: np.ndarray, clip_id: str | None = None) -> np.ndarray:
        return np.asarray(self._net.emotion(_checked(audio)), np.float32).reshape(-1)


# -- choosing one ------------------------------------------------------------------------------------------------------


def build(setting: str, folder: Path | None = None) -> SpeechEncoder:
    """The encoder that a configuration names: `prosody`, `aee`, `emotion2vec:FOLDER` or `stored:FOLDER`.

    `folder` is where checkpoints of this training lie (for `aee`); without it they are looked for.
    """
    kind, _, where = setting.partition(":")
    if kind == "prosody":
        return Prosody()
    if kind == "aee":
        from cmet_reference.training import checkpoints

        here = folder / "aee.safetensors" if folder else None
        return OwnEmotion(here if here and here.is_file() else checkpoints.find("aee"))
    if kind in ("emotion2vec", "stored"):
        if not where:
            raise UserError(f"speech = {setting!r} names no folder: {kind}:FOLDER")
        return Emotion2Vec(Path(where)) if kind == "emotion2vec" else Stored(Path(where))
    raise UserError(f"speech = {setting!r}; there are prosody, aee, emotion2vec:FOLDER and stored:FOLDER")


def standard(vectors: np.ndarray, groups: Sequence[tuple[str, str]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean, and deviation within groups of one speaker and emotion: (D,) each, float32.

    In units of the deviation within, what tells emotions apart is large; in units of the total deviation, what tells
    speakers apart is. On held-out speakers of the embedded corpus the nearest label is right in 70 % against 54 %.

    Args:
        vectors: (N, D).
        groups: (speaker, emotion) of each.
    """
    inside = vectors.astype(np.float64).copy()
    for group in set(groups):
        rows = [i for i, g in enumerate(groups) if g == group]
        inside[rows] -= inside[rows].mean(axis=0)
    deviation = inside.std(axis=0)
    total = vectors.std(axis=0)
    # One clip a group has no deviation within.
    deviation = np.where(deviation > 1e-3 * total, deviation, total) + 1e-6
    return vectors.mean(axis=0).astype(np.float32), deviation.astype(np.float32)
