"""Saves, finds and loads the evaluators that are trained on a corpus.

A file of an evaluator has the safetensors format, which is read without pickle. The header of the file lists the
training clips, which the evaluator must not score. Therefore the hash of the file also covers the list of training
clips. The file contains a digest of itself, which is checked before use (`tensor_files.py`). The networks are defined
in `evaluator_networks`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from talking_face.files import sha256_of
from talking_face.packages import require
from talking_face.pretrained import torch_nets
from talking_face.pretrained.evaluator_networks import EmotionEvaluator, LipSyncEvaluator, build_emotion, build_syncnet
from talking_face.pretrained.model_files import EVALUATORS_FOLDER, ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.pretrained.tensor_files import TensorFile, read_sealed_tensors, write_sealed_tensors
from talking_face.reasons import UserError
from talking_face.sealed import Damaged

if TYPE_CHECKING:
    from torch import Tensor, nn

VERSION = "2"  # version of the networks and their inputs; a file with a different version is refused
N = TypeVar("N", bound="nn.Module")
FOLDER = EVALUATORS_FOLDER  # subfolder of a shard set

Kind = Literal["syncnet", "emotion"]
_REMEDY = "train it again: `cmet-eval train evaluators --data SHARDS`"
FILES: dict[Kind, str] = {"syncnet": "corpus_syncnet.safetensors", "emotion": "corpus_emotion.safetensors"}


@dataclass(frozen=True)
class TrainedOn:
    """The record of the training data in the header of a file. The evaluator must not score any training clip."""

    kind: Kind
    data: str  # content digest of the shard set
    clips: tuple[str, ...]  # ids of the training clips, sorted
    sounds: tuple[str, ...]  # `sound_id` of each training clip, sorted
    seed: int
    labels: tuple[str, ...] = ()  # classes of the emotion classifier, in the order of its outputs
    config: Mapping[str, object] = field(default_factory=dict, hash=False)
    version: str = VERSION

    def holds(self, name: str, audio: np.ndarray | None) -> bool:
        """True if the training data contains the clip's id, or a sound with exactly the same samples."""
        return name in self.clips or (audio is not None and len(audio) > 0 and sound_id(audio) in self.sounds)


def sound_id(audio: np.ndarray) -> str:
    """The digest of the sound of a clip, (N,) int16, as 16 hex digits."""
    return sha256_of(np.ascontiguousarray(audio).tobytes())[:16]


@dataclass(frozen=True)
class EvaluatorFile:
    """The file of an evaluator that was found.

    Each process keeps its loaded evaluators in a cache; the key of the cache is an `EvaluatorFile`.
    """

    path: Path
    sha256: str  # 64 hex digits
    trained_on: TrainedOn

    @property
    def tag(self) -> str:
        """The evaluator's name in signatures."""
        return f"corpus-{self.trained_on.kind}@{self.sha256[:8]}"


def save(path: Path, state: Mapping[str, Tensor], trained_on: TrainedOn) -> str:
    """Write the file of an evaluator and return the SHA-256 of the file. The write is atomic.

    If the tensors and the record are the same, the bytes of the file are the same.
    """
    return write_sealed_tensors(path, state, asdict(trained_on))


# -- finding -----------------------------------------------------------------------------------------------------------


def find(kind: Kind, files: ModelFiles) -> EvaluatorFile:
    """The file of the evaluator `kind`. It is searched for in the folders `files.weights`, then in `files.evaluators`.

    Raises:
        MissingWeights: the file is not in any of these folders.
        UserError: the file cannot be read, or its hash differs from the hash in `files.hashes`.
    """
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
    """A copy of `files` with the hashes of the evaluators in its folders. A command passes the copy to its workers."""
    paths = {name: _path(kind, files) for kind, name in FILES.items()}
    return replace(files, hashes=tuple((name, sha256_of(path) if path else "") for name, path in paths.items()))


def tag(kind: Kind, files: ModelFiles) -> str:
    """The name of an evaluator in signatures. If its file is absent, the name ends in `absent` in place of the hash."""
    try:
        return find(kind, files).tag
    except MissingWeights:
        return f"corpus-{kind}@absent"


def _path(kind: Kind, files: ModelFiles) -> Path | None:
    """The path of the evaluator's file in the first searched folder that contains the file, or None."""
    paths = (folder / FILES[kind] for folder in (*files.weights, *files.evaluators))
    return next((path for path in paths if path.is_file()), None)


def _opened(path: Path, kind: Kind) -> EvaluatorFile:
    """The file with its hash and header. Each process reads the file once, and again if the file changes."""
    status = path.stat()
    return _read(path, kind, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=8)
def _read(path: Path, kind: Kind, _changed: int, _size: int) -> EvaluatorFile:
    file = read_sealed_tensors(path, _REMEDY)
    return EvaluatorFile(path, file.sha256, _record_of(file, kind))


def _record_of(file: TensorFile, kind: Kind) -> TrainedOn:
    """The training record in the header of a file."""
    try:
        record = {**file.record, **{name: tuple(file.record[name]) for name in ("clips", "sounds", "labels")}}
        trained_on = TrainedOn(**record)
    except (KeyError, TypeError):
        raise Damaged(file.path, "it is not an evaluator of this suite", _REMEDY) from None
    if trained_on.kind != kind or trained_on.version != VERSION:
        raise UserError(f"{file.path} is a {trained_on.kind} of version {trained_on.version}, not {kind} {VERSION}")
    return trained_on


# -- loading -----------------------------------------------------------------------------------------------------------


def load_lip_sync(files: ModelFiles) -> LipSyncEvaluator:
    """The lip-sync network, loaded once per process and file. Raises the same errors as `find`.

    Raises MissingWeights also if torch cannot be loaded.
    """
    return _lip_sync(find("syncnet", files))


def load_emotion(files: ModelFiles) -> EmotionEvaluator:
    """The emotion classifier, loaded once per process and file. Raises the same errors as `load_lip_sync`."""
    return _emotion(find("emotion", files))


@lru_cache(maxsize=1)
def _lip_sync(found: EvaluatorFile) -> LipSyncEvaluator:
    require("torch", found.path.name, kind=MissingWeights)
    return LipSyncEvaluator(_filled(build_syncnet(), found), found.tag, torch_nets.device())


@lru_cache(maxsize=1)
def _emotion(found: EvaluatorFile) -> EmotionEvaluator:
    require("torch", found.path.name, kind=MissingWeights)
    labels = found.trained_on.labels
    return EmotionEvaluator(_filled(build_emotion(len(labels)), found), found.tag, labels, torch_nets.device())


def _filled(net: N, found: EvaluatorFile) -> N:
    """Loads the weights in a file into the network.

    Raises UserError if the file changed after it was found, or if its tensors do not belong to the network.
    """
    file = read_sealed_tensors(found.path, _REMEDY)
    if file.sha256 != found.sha256:
        raise UserError(f"{found.path} changed while it was in use; run the same command again")
    try:
        net.load_state_dict(file.tensors())
    except RuntimeError as error:
        raise UserError(f"{found.path} does not hold this network: {str(error).splitlines()[0]}") from None
    return net
