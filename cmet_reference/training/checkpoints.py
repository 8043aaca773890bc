"""Checkpoints: tensors as safetensors, everything else as JSON in the file's header, and a card beside the file.

Nothing of a file is ever run: tensors are numbers, the header is JSON, and both are checked before they are used.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from talking_face.pretrained.model_files import CHECKPOINTS, CHECKPOINTS_FOLDER, ModelFiles
from talking_face.pretrained.store import MissingWeights
from talking_face.reasons import UserError
from talking_face.signature import canonical_json

VERSION = "1"  # of the header; a file of another version is refused
FOLDER = CHECKPOINTS_FOLDER  # below a shard set
FOLDERS = CHECKPOINTS  # environment variable: folders to look in first
_HEADER_BYTES = 100 << 20  # the format's own limit

_beside: list[Path] = []
_watched: list[dict[str, str]] = []


def save(
    path: Path,
    net_state: Mapping[str, Any],
    record: Mapping[str, Any],
    card: Mapping[str, Any] | None = None,
    kind: str = "",
) -> str:
    """Write a checkpoint, and its card as PATH.json, each by an atomic rename. The same content gives the same bytes.

    Args:
        path: NAME.safetensors.
        net_state: tensors by name, on any device.
        record: plain JSON: what a loader needs beside the tensors. In the header, as the card's `trained_on` is, so
            that the file's hash covers both.
        card: plain JSON; `file`, `kind` and `sha256` are filled in. None: no card.
        kind: what `load` must ask for; default: the file's name without its ending.

    Returns:
        the SHA-256 of the file, in hex.
    """
    from safetensors.torch import save as to_bytes

    # A clone each: tied weights share memory, which the format has no word for.
    tensors = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in net_state.items()}
    kind = kind or path.stem
    header = {"kind": kind, "version": VERSION, "record": record, "trained_on": (card or {}).get("trained_on", {})}
    # One key: the order of several is not fixed.
    data = to_bytes(tensors, metadata={"checkpoint": canonical_json(header)})
    sha256 = hashlib.sha256(data).hexdigest()
    write(path, data)
    if card is not None:
        text = json.dumps({"file": path.name, "kind": kind, "sha256": sha256, **card}, indent=1)
        write(path.with_suffix(".json"), (text + "\n").encode())
    return sha256


def write(path: Path, data: bytes) -> None:
    """Bytes to a file that is there whole or not at all, also after the power fails."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.part")
    with temporary.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def load(path: Path, kind: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors of a checkpoint, on the CPU, and its record.

    Raises:
        MissingWeights: there is no such file.
        UserError: the file is no checkpoint, is damaged, or is of another kind or version.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load as from_bytes

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise MissingWeights(f"{path} is not there; `cmet-eval train` makes it, stage by stage") from None
    found = _header(path, data)
    if (found["kind"], found["version"]) != (kind, VERSION):
        raise UserError(f"{path} is a {found['kind']} of version {found['version']}, not {kind} of {VERSION}")
    try:
        tensors = from_bytes(data)
    except SafetensorError as error:
        raise UserError(f"{path} is damaged ({error}); train it again") from None
    for seen in _watched:
        seen[kind] = hashlib.sha256(data).hexdigest()[:12]
    return tensors, found["record"]


def trained_on(path: Path) -> dict[str, Any]:
    """What a checkpoint was trained with: data digests, clip ids (`clips`), config, seed. Reads only the header.

    Raises UserError where the file is no checkpoint of this suite.
    """
    with path.open("rb") as file:
        length = int.from_bytes(size := file.read(8), "little")
        return _header(path, size + file.read(min(length, _HEADER_BYTES)))["trained_on"]


def revision(path: Path) -> str:
    """The first 12 hex digits of the file's SHA-256: how a checkpoint stands in results."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:12]


@contextmanager
def as_saved(path: Path, kind: str) -> Iterator[None]:
    """Inside, a checkpoint that was loaded becomes a network; a field or tensor that is missing is told as UserError.

    The files' version is of the header alone; what stages write changes more often.
    """
    try:
        yield
    except (KeyError, TypeError, RuntimeError):
        raise UserError(f"{path} was trained by an earlier version; train again: `{command(kind)} --fresh`") from None


@contextmanager
def watch() -> Iterator[dict[str, str]]:
    """Kind and revision of every checkpoint loaded meanwhile: what a stage that is being built stands on."""
    seen: dict[str, str] = {}
    _watched.append(seen)
    try:
        yield seen
    finally:
        _watched.remove(seen)


def look_beside(shards: str | Path) -> None:
    """From now on this process finds what was trained on that shard set, unless CMET_EVAL_CHECKPOINTS has others."""
    _beside[:] = [Path(shards) / FOLDER]


def model_of(stage: str) -> str:
    """What `cmet-eval train` calls the model that a stage belongs to."""
    return "cmet" if stage == "cmet" else "cem-net"


def command(stage: str) -> str:
    """What trains a stage."""
    return f"cmet-eval train {model_of(stage)} --stage {stage} --data SHARDS"


def find(stage: str, files: ModelFiles | None = None) -> Path:
    """The checkpoint of a stage, in the first of the folders `files.checkpoints` that has one.

    Raises MissingWeights where it is nowhere.
    """
    if files is None:
        named = ModelFiles.from_environment()
        files = replace(named, checkpoints=(*named.checkpoints, *_beside))
    for folder in files.checkpoints:
        path = folder / f"{stage}.safetensors"
        if path.is_file():
            return path
    raise MissingWeights(
        f"{stage}.safetensors is not trained here; run `{command(stage)}`, or name its folder in {FOLDERS}"
    )


def commit() -> str:
    """The commit of this code, with `+` where files differ from it; `unknown` outside a checkout."""
    here = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=here, capture_output=True, text=True, check=True, timeout=20).stdout

    try:
        return git("rev-parse", "HEAD").strip() + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return "unknown"


def _header(path: Path, data: bytes) -> dict[str, Any]:
    """The record in the header of safetensors: 8 bytes of length, then JSON."""
    try:
        outer = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        found = json.loads(outer["__metadata__"]["checkpoint"])
        if not isinstance(found["record"], dict) or not isinstance(found["trained_on"], dict):
            raise TypeError
        return {"kind": str(found["kind"]), "version": str(found["version"]), **found}
    except (ValueError, KeyError, TypeError):
        raise UserError(f"{path} is no checkpoint of this suite, or damaged; train it again") from None
