"""Two small evaluators trained on a corpus of one's own: a lip-sync network and an emotion classifier, and their files.

`cmet_reference.evaluators` trains them; here is what both training and scoring need: what the networks are shown, the
networks, and the file. A file is safetensors whose header holds what the network was trained on, so that the file's
hash covers the list of clips it must not judge. Read without pickle.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from talking_face.faces.points68 import to_68
from talking_face.files import sha256_of
from talking_face.pretrained import torch_nets
from talking_face.pretrained.mfcc import mfcc
from talking_face.pretrained.model_files import EVALUATORS_FOLDER, ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import UserError
from talking_face.signature import canonical_json

SIZE = 96  # side of the grey crops, px
WINDOW = 5  # frames of one lip embedding, at 25 frames/s; 0.2 s of sound
ROWS, ROWS_A_FRAME = 20, 4  # cepstra of one sound embedding, and from one window to the next
EMBEDDING = 128
FACE = 128  # side of the crops of whole faces, px
EMOTION_FRAMES = 8  # of a clip: the middles of equal stretches of those with a face
BLENDSHAPES, GRADIENTS = 52, 324  # numbers of a clip that the emotion classifier sees
VERSION = "2"  # of the networks and of what they are shown; a file of another version is refused

Kind = Literal["syncnet", "emotion"]
FILES: dict[Kind, str] = {"syncnet": "corpus_syncnet.safetensors", "emotion": "corpus_emotion.safetensors"}
FOLDER = EVALUATORS_FOLDER  # below a shard set

# In units of the distance between the eyes: the mouth crop's side, and how far its centre lies below the eyes' middle.
MOUTH_SIDE, MOUTH_DOWN = 1.4, 1.2
FACE_SIDE, FACE_DOWN = 2.5, 0.35  # of the face crop: from the brows' upper edge to the chin
_FLOOR = -8.0  # natural log of the energy of a window under the codec's noise; digital silence would be at -36


# -- what the networks are shown ---------------------------------------------------------------------------------------


def mouths(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The mouth of every frame, upright and of one size through the clip.

    A square of 1.4 times the clip's median distance between the eyes, its centre 1.2 of these below their middle,
    turned with them; a head that turns keeps its size. A frame without a face is placed between its neighbours.

    Args:
        frames: (T, H, W, 3) uint8 RGB.
        landmarks: (T, 478, 2 or 3) pixels, NaN without a face; at least one frame has one.

    Returns:
        (T, 96, 96) uint8 grey.
    """
    return _upright(frames, landmarks, SIZE, MOUTH_SIDE, MOUTH_DOWN)


def faces(frames: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The face in 8 frames, upright: the middles of 8 equal stretches of the frames with a face; some twice if few.

    A square of 2.5 times their median distance between the eyes, its centre 0.35 of these below their middle.

    Args:
        frames, landmarks: as `mouths` takes them.

    Returns:
        (8, 128, 128) uint8 grey.
    """
    take = faces_at(landmarks)
    return _upright(frames[take], landmarks[take], FACE, FACE_SIDE, FACE_DOWN)


def faces_at(landmarks: np.ndarray) -> np.ndarray:
    """(8,) int: which of the frames `faces` takes."""
    valid = np.flatnonzero(np.isfinite(landmarks).all(axis=(1, 2)))
    return valid[((np.arange(EMOTION_FRAMES) + 0.5) * len(valid) / EMOTION_FRAMES).astype(int)]


def _upright(frames: np.ndarray, landmarks: np.ndarray, size: int, side: float, down: float) -> np.ndarray:
    """(T, size, size) uint8 grey: squares turned with the eyes; `side` and `down` in distances between the eyes."""
    points = to_68(landmarks).astype(np.float64)
    eyes = np.stack([points[:, 36:42].mean(axis=1), points[:, 42:48].mean(axis=1)], axis=1).reshape(-1, 4)
    valid = np.isfinite(eyes).all(axis=1)
    t = np.arange(len(eyes))
    eyes = np.stack([np.interp(t, t[valid], column[valid]) for column in eyes.T], axis=1)
    across, middle = eyes[:, 2:] - eyes[:, :2], (eyes[:, 2:] + eyes[:, :2]) / 2
    length = np.hypot(*across.T)
    scale = size / (side * float(np.median(length[valid])))
    out = np.empty((len(frames), size, size), np.uint8)
    for i, frame in enumerate(frames):
        cos, sin = across[i] / length[i]
        turn = scale * np.array([[cos, sin], [-sin, cos]])
        move = size * np.array([0.5, 0.5 - down / side]) - turn @ middle[i]
        # Coordinates from the edge to the whole-number centres of warpAffine.
        move += turn @ (0.5, 0.5) - 0.5
        matrix = np.column_stack([turn, move])
        grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
        out[i] = cv2.warpAffine(grey, matrix, (size, size), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return out


def emotion_input(seen: np.ndarray, blendshapes: np.ndarray) -> np.ndarray:
    """What the emotion classifier is given of a clip: 52 numbers of its blendshapes, 324 of its pictures.

    Log odds of the blendshapes, 0.01 added on either side, mean over the frames with a face: those of brows and nose
    move between 0.001 and 0.1 on a drawn face, which log odds tell apart. And histograms of oriented gradients, mean
    over the crops: 9 directions, cells of 16 px of the crop at 64 px (OpenCV's descriptor, blocks of 2 x 2 cells
    normalised by L2-Hys).

    Args:
        seen: (8, 128, 128) uint8 grey, of `faces`.
        blendshapes: (T, 52), 0 to 1, NaN where there is no face; at least one frame has one.

    Returns:
        (376,) float32.
    """
    valid = blendshapes[np.isfinite(blendshapes).all(axis=1)].astype(np.float64)
    odds = np.log((valid + 0.01) / (1.01 - valid)).mean(axis=0)
    small = [cv2.resize(picture, (64, 64), interpolation=cv2.INTER_AREA) for picture in seen]
    hog = cv2.HOGDescriptor((64, 64), (32, 32), (16, 16), (16, 16), 9)
    gradients = np.mean([np.ravel(hog.compute(picture)) for picture in small], axis=0, dtype=np.float64)
    return np.concatenate([odds, gradients]).astype(np.float32)


def cepstra(samples: np.ndarray) -> np.ndarray:
    """(R, 13) float32, every 10 ms, energy not below `_FLOOR`: (N,) int16 at 16 kHz."""
    rows = mfcc(samples).astype(np.float32)
    quiet = rows[:, 0] < _FLOOR
    rows[quiet] = 0.0  # the shape of a spectrum of nothing is noise
    rows[quiet, 0] = _FLOOR
    return rows


# -- the networks ------------------------------------------------------------------------------------------------------


def _standard(x: Any) -> Any:
    """Pictures (N, 96, 96), 0-255, to mean 0 and deviation 1 each: light and camera do not count."""
    x = x.float()
    mean, std = x.mean(dim=(1, 2), keepdim=True), x.std(dim=(1, 2), keepdim=True)
    return ((x - mean) / (std + 4.0)).unsqueeze(1)


def _conv(n_in: int, n_out: int, size: int, stride: int) -> list[Any]:
    from torch import nn

    return [
        nn.Conv2d(n_in, n_out, size, stride, size // 2, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(inplace=True),
    ]


def build_syncnet() -> Any:
    """The lip-sync network, 0.4 M parameters: `lips((B, T, 96, 96))` and `sound((B, R, 13))` to unit embeddings.

    Frames are encoded one by one, and two convolutions over time join five of them, so that a clip costs a pass
    over its frames and not over its windows. The sound's convolutions have no padding: their field is 20 rows, their
    step 4. Returns (B, T - 4, 128) and (B, (R - 20) // 4 + 1, 128).
    """
    import torch
    from torch import nn
    from torch.nn import functional

    class SyncNet(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.frame = nn.Sequential(
                *_conv(1, 24, 7, 4), *_conv(24, 48, 3, 2), *_conv(48, 96, 3, 2), *_conv(96, 96, 3, 2)
            )
            self.flat = nn.Sequential(nn.Flatten(), nn.Linear(96 * 9, 128))
            self.time = nn.Sequential(
                nn.Conv1d(128, 128, 3), nn.BatchNorm1d(128), nn.ReLU(inplace=True), nn.Conv1d(128, EMBEDDING, 3)
            )
            self.heard = nn.Sequential(
                nn.Conv1d(13, 96, 4, 2),
                nn.BatchNorm1d(96),
                nn.ReLU(inplace=True),
                nn.Conv1d(96, 128, 3, 2),
                nn.BatchNorm1d(128),
                nn.ReLU(inplace=True),
                nn.Conv1d(128, 192, 4),
                nn.BatchNorm1d(192),
                nn.ReLU(inplace=True),
                nn.Conv1d(192, EMBEDDING, 1),
            )
            self.register_buffer("mean", torch.zeros(13))
            self.register_buffer("std", torch.ones(13))

        def lips(self, x: Any) -> Any:
            clips, frames = x.shape[:2]
            seen = self.flat(self.frame(_standard(x.flatten(0, 1)))).view(clips, frames, -1)
            return functional.normalize(self.time(seen.transpose(1, 2)).transpose(1, 2), dim=-1)

        def sound(self, x: Any) -> Any:
            x = ((x - self.mean) / self.std).clamp(-4, 4)
            return functional.normalize(self.heard(x.transpose(1, 2)).transpose(1, 2), dim=-1)

    return SyncNet()


def build_emotion(n_classes: int) -> Any:
    """The emotion classifier: (B, 376) of `emotion_input` to (B, classes) logits; 3,024 parameters for 8 classes.

    Two linear judges, one of the blendshapes and one of the gradients, each giving log probabilities; their sum.
    """
    from torch import nn

    class Emotion(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.moved, self.seen = nn.Linear(BLENDSHAPES, n_classes), nn.Linear(GRADIENTS, n_classes)

        def forward(self, x: Any) -> Any:
            moved, seen = x.split([BLENDSHAPES, GRADIENTS], dim=1)
            return self.moved(moved).log_softmax(dim=1) + self.seen(seen).log_softmax(dim=1)

    return Emotion()


class CorpusSyncNet:
    """The trained lip-sync network, as `cmet_metrics.lse.LipSyncNet` asks for one."""

    def __init__(self, net: Any, tag: str, device: str = "cpu") -> None:
        self.net, self.tag, self.device = net.eval().to(device), tag, device

    def lip(self, crops: np.ndarray) -> np.ndarray:
        """(T, 96, 96) uint8 mouth crops to (T - 4, 129) float32; row i is of frames i to i + 4."""
        import torch

        with torch_nets.inference():
            # Of 250 frames at once; four frames are shared by neighbours.
            parts = [
                self.net.lips(torch.from_numpy(crops[i : i + 250 + WINDOW - 1]).to(self.device)[None])[0]
                for i in range(0, len(crops) - WINDOW + 1, 250)
            ]
            return _heard_something(torch.cat(parts).cpu().numpy())

    def sound(self, samples: np.ndarray, windows: int) -> np.ndarray:
        """(N,) int16 at 16 kHz to (windows, 129) float32; N >= 640 (windows + 5) is enough."""
        import torch

        rows = cepstra(samples)[: ROWS_A_FRAME * (windows - 1) + ROWS]
        if windows < 1 or len(rows) < ROWS_A_FRAME * (windows - 1) + ROWS:
            raise ValueError(f"{len(samples)} samples are too few for {windows} windows")
        with torch_nets.inference():
            return _heard_something(self.net.sound(torch.from_numpy(rows).to(self.device)[None])[0].cpu().numpy())


def _heard_something(embeddings: np.ndarray) -> np.ndarray:
    """One coordinate more, 1 everywhere. Distances stay, but to the zeros that stand beyond the ends it is the root
    of 2, as to unrelated sound; without it, it is 1, and on clips of 2 s zeros can win over a poor match."""
    return np.pad(embeddings, ((0, 0), (0, 1)), constant_values=1.0)


class CorpusEmotion:
    """The trained emotion classifier."""

    def __init__(self, net: Any, tag: str, labels: tuple[str, ...], device: str = "cpu") -> None:
        self.net, self.tag, self.labels, self.device = net.eval().to(device), tag, labels, device

    def probabilities(self, shown: np.ndarray) -> np.ndarray:
        """(C,) float64, sum 1, in the order of `labels`, from what `emotion_input` gives of a clip."""
        import torch

        with torch_nets.inference():
            return self.net(torch.from_numpy(shown).to(self.device)[None]).double().softmax(dim=1)[0].cpu().numpy()


# -- files -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class TrainedOn:
    """What stands in a file's header. Whatever is scored must not be among it."""

    kind: Kind
    data: str  # content digest of the shard set
    clips: tuple[str, ...]  # ids, sorted
    sounds: tuple[str, ...]  # `sound_id` of each, sorted
    seed: int
    labels: tuple[str, ...] = ()  # of the emotion network
    config: Mapping[str, Any] = field(default_factory=dict, hash=False)
    version: str = VERSION

    def holds(self, name: str, audio: np.ndarray | None) -> bool:
        """Whether a clip was trained on, by its id or by its sound, sample for sample."""
        return name in self.clips or (audio is not None and len(audio) > 0 and sound_id(audio) in self.sounds)


def sound_id(audio: np.ndarray) -> str:
    """Digest of a clip's samples, (N,) int16."""
    return hashlib.sha256(np.ascontiguousarray(audio).tobytes()).hexdigest()[:16]


@dataclass(frozen=True)
class Evaluator:
    """A file that was found: where, its SHA-256 in hex, and what it was trained on."""

    path: Path
    sha256: str
    trained_on: TrainedOn

    @property
    def tag(self) -> str:
        """How it stands in signatures."""
        return f"corpus-{self.trained_on.kind}@{self.sha256[:8]}"


def save(path: Path, state: Mapping[str, Any], trained_on: TrainedOn) -> str:
    """Write an evaluator by an atomic rename; the same tensors and record give the same bytes. Returns the SHA-256."""
    from safetensors.torch import save as to_bytes

    tensors = {name: value.detach().cpu().contiguous() for name, value in state.items()}
    # One key: the order of several is not fixed.
    data = to_bytes(tensors, metadata={"trained_on": canonical_json(asdict(trained_on))})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_bytes(data)
    temporary.replace(path)
    return hashlib.sha256(data).hexdigest()


def find(kind: Kind, files: ModelFiles | None = None) -> Evaluator:
    """The evaluator's file: in the folders `files.weights`, then `files.evaluators`.

    Raises:
        MissingWeights: no folder has the file.
        UserError: the file cannot be read, or is another one than `files.hashes` records.
    """
    files = files or ModelFiles.from_environment()
    path = _path(kind, files)
    found = _opened(path, kind) if path else None
    expected = dict(files.hashes).get(FILES[kind])
    if expected is not None and expected != (found.sha256 if found else ""):
        raise UserError(f"{FILES[kind]} changed after the command started; run the same command again")
    if found is None:
        raise MissingWeights(
            f"{FILES[kind]} (evaluator trained on the corpus itself) is not on this machine.\n"
            f"To get it: run `cmet-eval train evaluators --data SHARDS`, which writes SHARDS/{FOLDER}; or put the file "
            "into a folder named by CMET_EVAL_WEIGHTS."
        )
    return found


def with_hashes(files: ModelFiles) -> ModelFiles:
    """The same folders with the hashes of the evaluators in them. A command passes this value to its workers."""
    paths = {name: _path(kind, files) for kind, name in FILES.items()}
    return replace(files, hashes=tuple((name, sha256_of(path) if path else "") for name, path in paths.items()))


def _path(kind: Kind, files: ModelFiles) -> Path | None:
    """The first searched folder's file of an evaluator, or None."""
    paths = (folder / FILES[kind] for folder in (*files.weights, *files.evaluators))
    return next((path for path in paths if path.is_file()), None)


def _opened(path: Path, kind: Kind) -> Evaluator:
    status = path.stat()
    return _read(path, kind, status.st_mtime_ns, status.st_size)


def tag(kind: Kind, files: ModelFiles | None = None) -> str:
    """The evaluator's tag for signatures; `absent` in place of the hash where there is no file."""
    try:
        return find(kind, files).tag
    except MissingWeights:
        return f"corpus-{kind}@absent"


def corpus_syncnet(files: ModelFiles | None = None) -> CorpusSyncNet:
    """The lip-sync network, loaded once a process and file. Raises MissingWeights."""
    return _syncnet(find("syncnet", files))


def corpus_emotion(files: ModelFiles | None = None) -> CorpusEmotion:
    """The emotion classifier, loaded once a process and file. Raises MissingWeights."""
    return _emotion(find("emotion", files))


@lru_cache(maxsize=8)
def _read(path: Path, kind: Kind, _changed: int, _size: int) -> Evaluator:
    data = path.read_bytes()
    return Evaluator(path, hashlib.sha256(data).hexdigest(), _header(path, data, kind))


def _header(path: Path, data: bytes, kind: Kind) -> TrainedOn:
    """The record in the header of safetensors: 8 bytes of length, then JSON."""
    try:
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        record = json.loads(header["__metadata__"]["trained_on"])
        record |= {name: tuple(record[name]) for name in ("clips", "sounds", "labels")}
        trained_on = TrainedOn(**record)
    except (ValueError, KeyError, TypeError, UnicodeDecodeError):
        raise UserError(f"{path} is no evaluator of this suite, or damaged; train it again") from None
    if trained_on.kind != kind or trained_on.version != VERSION:
        raise UserError(f"{path} is a {trained_on.kind} of version {trained_on.version}, not {kind} {VERSION}")
    return trained_on


@lru_cache(maxsize=1)
def _syncnet(found: Evaluator) -> CorpusSyncNet:
    return CorpusSyncNet(_filled(build_syncnet(), found), found.tag, torch_nets.device())


@lru_cache(maxsize=1)
def _emotion(found: Evaluator) -> CorpusEmotion:
    labels = found.trained_on.labels
    return CorpusEmotion(_filled(build_emotion(len(labels)), found), found.tag, labels, torch_nets.device())


def _filled(net: Any, found: Evaluator) -> Any:
    from safetensors.torch import load

    data = found.path.read_bytes()
    if hashlib.sha256(data).hexdigest() != found.sha256:
        raise UserError(f"{found.path} changed while it was in use; run the same command again")
    try:
        net.load_state_dict(load(data))
    except RuntimeError as error:
        raise UserError(f"{found.path} does not hold this network: {str(error).splitlines()[0]}") from None
    return net
