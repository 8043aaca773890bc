"""Saves, loads and finds checkpoints.

A checkpoint is a safetensors file: it contains the tensors, and in its header all other values as JSON. Next to the
checkpoint there is a card, a JSON file about the training. Loading a checkpoint runs no code from the file, because
tensors are numbers and the header is JSON. Tensors and header are checked before use.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, cast

from talking_face.files import sha256_of, write_bytes, write_text
from talking_face.pretrained.model_files import CHECKPOINTS, CHECKPOINTS_FOLDER, ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import UserError
from talking_face.signature import canonical_json

if TYPE_CHECKING:
    from torch import Tensor

VERSION = "1"  # version of the header; `load` refuses a file of another version
FOLDER = CHECKPOINTS_FOLDER  # name of the folder for checkpoints in a shard set
_HEADER_BYTES = 100 << 20  # greatest length of a header in the safetensors format

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
    from safetensors.torch import save as to_bytes

    # Each tensor is copied, because the format cannot store tensors that share memory (tied weights).
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in net_state.items()}
    kind = kind or path.stem
    header = {"kind": kind, "version": VERSION, "record": record, "trained_on": (card or {}).get("trained_on", {})}
    # The header has only one key, because the format does not fix the order of keys.
    data = to_bytes(tensors, metadata={"checkpoint": canonical_json(header)})
    sha256 = sha256_of(data)
    write_bytes(path, data, durable=True)
    if card is not None:
        text = json.dumps({"file": path.name, "kind": kind, "sha256": sha256, **card}, indent=1)
        write_text(path.with_suffix(".json"), text + "\n", durable=True)
    return sha256


def load(path: Path, kind: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors of a checkpoint, on the CPU, and its record.

    Raises:
        MissingWeights: the file is absent.
        UserError: the file is not a checkpoint, is damaged, or is of another kind or version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingWeights(f"{path} is absent; `cmet-eval train` trains it, stage by stage") from None
    header = _header(path, data)
    if (header["kind"], header["version"]) != (kind, VERSION):
        raise UserError(
            f"{path} is of kind {header['kind']}, version {header['version']}, not of kind {kind}, version {VERSION}; "
            "train with --fresh"
        )
    try:
        tensors = from_bytes(data)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); train with --fresh") from None
    for loaded in _recorders:
        loaded[kind] = sha256_of(data)[:12]
    return tensors, header["record"]


def trained_on(path: Path) -> TrainedOn:
    """The inputs and settings of a checkpoint's training. Only the header of the file is read.

    Raises:
        UserError: the file is not a checkpoint of this suite.
    """
    with path.open("rb") as file:
        length = int.from_bytes(size := file.read(8), "little")
        return _header(path, size + file.read(min(length, _HEADER_BYTES)))["trained_on"]


def read_card(path: Path) -> Card | None:
    """The card of a checkpoint; None if it is absent. Raises UserError if the file is not a card."""
    card_path = path.with_suffix(".json")
    try:
        card = json.loads(card_path.read_text("utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise UserError(f"{card_path} is damaged ({error}); train with --fresh") from None
    if not isinstance(card, dict) or not {"sha256", "trained_on"} <= card.keys():
        raise UserError(f"{card_path} is not the card of a checkpoint; train with --fresh")
    return cast(Card, card)


def revision(path: Path) -> str:
    """The first 12 hexadecimal digits of the file's SHA-256. Results refer to a checkpoint by this revision."""
    return sha256_of(path)[:12]


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


def _header(path: Path, data: bytes) -> _Header:
    """Reads the JSON header of a safetensors file: 8 bytes with the length of the header, then the header."""
    try:
        outer = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = json.loads(outer["__metadata__"]["checkpoint"])
        if not isinstance(found["record"], dict) or not isinstance(found["trained_on"], dict):
            raise TypeError
        return cast(_Header, {"kind": str(found["kind"]), "version": str(found["version"]), **found})
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is not a checkpoint of this suite, or is damaged; train with --fresh") from None
