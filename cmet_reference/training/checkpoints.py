"""Saves, loads and finds checkpoints.

A checkpoint is a safetensors file: it contains the tensors, and in its header all other values as JSON. Next to the
checkpoint there is a card, a JSON file about the training. Loading a checkpoint runs no code from the file, because
tensors are numbers and the header is JSON. Checkpoint and card contain a digest of themselves, which every reader
checks.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from talking_face.pretrained.model_files import CHECKPOINTS, CHECKPOINTS_FOLDER, ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.pretrained.tensor_files import TensorFile, read_sealed_tensors, write_sealed_tensors
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, read_sealed_json, write_sealed_json

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "2"  # version of the header; `load` refuses a file of another version
FOLDER = CHECKPOINTS_FOLDER  # name of the folder for checkpoints in a shard set
CARD_SEAL = "card_sha256"  # the member of a card with the card's digest; `sha256` is the hash of the checkpoint
_REMEDY = "train with --fresh"

_recorders: list[dict[str, str]] = []


class TrainedOn(TypedDict):
    """The inputs and settings of a training. If these are equal, two trainings on the CPU give the same bytes."""

    config: Mapping[str, object]
    steps: int
    seed: int
    precision: str
    threads: int
    processes: int
    data: Mapping[str, str]  # digests of the shard sets, by name
    built_on: Mapping[str, str]  # revisions of the earlier checkpoints, by kind
    clips: list[str]
    speakers: list[str]


class Card(TypedDict):
    """The JSON file next to a checkpoint."""

    file: str
    kind: str
    sha256: str
    parameters: int
    held_out: Mapping[str, float]
    seconds: float  # time for the steps, or for `solve` of a `ClosedForm`
    samples_per_second: float
    waiting_share: float  # share of `seconds` spent waiting for batches
    workers: int
    device: str
    peak_device_mb: int | None
    commit: str
    torch: str
    accelerate: str
    about: Mapping[str, object]  # facts about the data that the stage states, see `stage.Described`
    departures: list[str]  # differences from the paper in these settings, see cmet_reference/departures.toml
    trained_on: TrainedOn


class _Header(TypedDict):
    kind: str
    version: str
    record: dict[str, Any]  # the fields depend on the stage
    trained_on: TrainedOn


def save(
    path: Path,
    net_state: Mapping[str, Tensor],
    record: Mapping[str, object],
    card: Mapping[str, object] | None = None,
    kind: str = "",
) -> str:
    """Write a checkpoint NAME.safetensors and its card NAME.json. Each file gets its final name by an atomic rename.

    The same content gives the same bytes.

    Args:
        path: NAME.safetensors.
        net_state: tensors by name, on any device.
        record: JSON values that a loader needs in addition to the tensors. They are stored in the header, together with
            the card's `trained_on`, so that the file's hash covers the record and `trained_on`.
        card: JSON values of the card; `file`, `kind` and `sha256` are added to them. None: write no card.
        kind: kind of the checkpoint, which `load` compares; default: the file's name without its suffix.

    Returns:
        the SHA-256 of the file, in hexadecimal digits.
    """
    kind = kind or path.stem
    header = {"kind": kind, "version": VERSION, "record": record, "trained_on": (card or {}).get("trained_on", {})}
    sha256 = write_sealed_tensors(path, net_state, header, durable=True)
    if card is not None:
        whole = {"file": path.name, "kind": kind, "sha256": sha256, **card}
        write_sealed_json(path.with_suffix(".json"), whole, indent=1, durable=True, seal=CARD_SEAL)
    return sha256


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, on the CPU, and its record.

    Raises:
        MissingWeights: the file is absent.
        Damaged: the file is not a checkpoint, or is damaged.
        UserError: the file is of another kind or version.
    """
    try:
        file = _checked(path)
    except FileNotFoundError:
        raise MissingWeights(f"{path} is absent; `cmet-eval train` trains it, stage by stage") from None
    header = cast(_Header, file.record)
    if (header["kind"], header["version"]) != (kind, VERSION):
        raise UserError(
            f"{path} is of kind {header['kind']}, version {header['version']}, not of kind {kind}, version {VERSION}; "
            f"{_REMEDY}"
        )
    tensors = file.tensors()
    for loaded in _recorders:
        loaded[kind] = file.sha256[:12]
    return tensors, header["record"]


def trained_on(path: Path) -> TrainedOn:
    """The inputs and settings of a checkpoint's training. The digest of the whole file is checked.

    Raises:
        Damaged: the file is not a checkpoint, or is damaged.
    """
    return cast(_Header, _checked(path).record)["trained_on"]


def record_of(path: Path) -> dict[str, Any]:
    """The record of a checkpoint, without its tensors. Raises Damaged as `trained_on` does."""
    return cast(_Header, _checked(path).record)["record"]


def read_card(path: Path) -> Card | None:
    """The card of a checkpoint; None if it is absent. Raises Damaged if the file is not a card, or is damaged."""
    try:
        card = read_sealed_json(card_path := path.with_suffix(".json"), _REMEDY, seal=CARD_SEAL)
    except FileNotFoundError:
        return None
    if not isinstance(card.get("sha256"), str) or not isinstance(card.get("trained_on"), dict):
        raise Damaged(card_path, "it is not the card of a checkpoint", _REMEDY)
    return cast(Card, card)


def revision(path: Path) -> str:
    """The first 12 hexadecimal digits of the file's SHA-256. Results refer to a checkpoint by this revision.

    Raises Damaged if the file is damaged: a damaged file has no revision.
    """
    return _checked(path).sha256[:12]


@contextmanager
def as_saved(path: Path, kind: str) -> Iterator[None]:
    """Raises a UserError if a field or tensor of a loaded checkpoint is missing or does not fit.

    Put this context manager around the block that creates a network from the checkpoint. A check of VERSION is not
    enough, because VERSION is only the version of the header, and the records of the stages change more often.
    """
    try:
        yield
    except (KeyError, TypeError, RuntimeError):
        raise UserError(f"{path} was trained by an earlier version; train again: `{command(kind)} --fresh`") from None


@contextmanager
def record_loaded() -> Iterator[dict[str, str]]:
    """Records the revision of every checkpoint that is loaded inside the block, by kind."""
    loaded: dict[str, str] = {}
    _recorders.append(loaded)
    try:
        yield loaded
    finally:
        _recorders.remove(loaded)


def model_of(stage: str) -> str:
    """The name of the model that a stage belongs to, as in the command `cmet-eval train`."""
    return "cmet" if stage == "cmet" else "cem-net"


def command(stage: str) -> str:
    """The command that trains a stage."""
    return f"cmet-eval train {model_of(stage)} --stage {stage} --data SHARDS"


def find(stage: str, files: ModelFiles) -> Path:
    """The checkpoint of a stage, in the first folder of `files.checkpoints` that has it.

    Raises MissingWeights if no folder has it.
    """
    for folder in files.checkpoints:
        path = folder / f"{stage}.safetensors"
        if path.is_file():
            return path
    raise MissingWeights(
        f"{stage}.safetensors is not trained here; run `{command(stage)}`, or name its folder in {CHECKPOINTS}"
    )


def commit() -> str:
    """The git commit of this code, followed by `+` if tracked files were changed; `unknown` outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20).stdout

    try:
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _checked(path: Path) -> TensorFile:
    """The content of a checkpoint. Raises Damaged if it is not a checkpoint, or is damaged."""
    file = read_sealed_tensors(path, _REMEDY)
    types = {"kind": str, "version": str, "record": dict, "trained_on": dict}
    if not all(isinstance(file.record.get(name), form) for name, form in types.items()):
        raise Damaged(path, "it is not a checkpoint of this suite", _REMEDY)
    return file
