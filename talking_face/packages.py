"""Imports packages that only some parts of the suite need, and states which extra installs an absent package.

`EXTRAS` repeats the packages of pyproject.toml, because a program cannot read that file after an installation. A test
compares the two.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import json
import shlex
import tomllib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from urllib.parse import unquote, urlsplit

from talking_face.lines import one_line
from talking_face.reasons import UserError

DISTRIBUTION = "cmet-eval"
_ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Extra:
    """A group of packages that is installed together.

    Attributes:
        purpose: what the packages are for.
        packages: {distribution: the name under which Python imports it}.
    """

    purpose: str
    packages: Mapping[str, str]


CORE = Extra(
    "measure, metrics, cite, doctor: PSNR, SSIM, LMD, registration, jitter and lip energy",
    {
        "numpy": "numpy",
        "opencv-contrib-python-headless": "cv2",
        "av": "av",
        "mediapipe": "mediapipe",
        "pydantic": "pydantic",
        "pooch": "pooch",
        "typer": "typer",
    },
)
# In the order in which a package is searched for; the first extra that has the package is named in messages.
EXTRAS: Mapping[str, Extra] = {
    "boards": Extra(
        "result rows and pandas tables, leaderboard, compare, report, study",
        {
            "pyarrow": "pyarrow",
            "pandas": "pandas",
            "jinja2": "jinja2",
            "matplotlib": "matplotlib",
            "scipy": "scipy",
            "krippendorff": "krippendorff",
        },
    ),
    "pipelines": Extra(
        "data sets: preprocess, inspect, pairs, run, score, verify, synth",
        {"pyarrow": "pyarrow", "pandas": "pandas", "scipy": "scipy"},
    ),
    "cluster": Extra("--scheduler, with [pipelines]", {"dask": "dask", "distributed": "distributed"}),
    "weights": Extra(
        "dlib's points and identity, the FER network",
        {"dlib-bin": "dlib", "face-recognition-models": "face_recognition_models", "h5py": "h5py"},
    ),
    "paper": Extra(
        "metrics that run networks: LSE, FID, FVD, LPIPS, ArcFace, emotion",
        {"torch": "torch", "onnxruntime": "onnxruntime"},
    ),
    "reference": Extra(
        "training and the reference models, with [pipelines]",
        {"torch": "torch", "safetensors": "safetensors", "accelerate": "accelerate"},
    ),
}
# The distributions that this suite uses.
DISTRIBUTIONS = frozenset({*CORE.packages, *(name for extra in EXTRAS.values() for name in extra.packages)})

# Packages of which only a part is used. Their own dependencies would install a second OpenCV over the headless one.
_WITHOUT_DEPENDENCIES = {"syncnet_python": "syncnet-python==0.2.3"}


def require(package: str, needed_by: str, extra: str = "", kind: type[UserError] = UserError) -> ModuleType:
    """Imports a package.

    Args:
        package: the name under which the package is imported.
        needed_by: what needs the package, as the subject of the message, for example `training`.
        extra: the extra that the message names; default: the first extra that has the package.
        kind: the class of the error.

    Raises:
        UserError: the package is absent, or its import fails. In the second case, as when a CUDA library is missing,
            the message quotes the package's own words.
    """
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        absent = error.name or package
        how = install_command(extra) if extra else how_to_install(absent)
        raise kind(f"{needed_by} needs {absent}; run `{how}`") from None
    except Exception as error:  # an import runs code of the package, which can raise anything
        words = one_line(error, 300) or type(error).__name__
        raise kind(f"{needed_by} needs {package}, which cannot be loaded here ({words}); install it again") from None


def need_extras(needed_by: str, *extras: str) -> None:
    """Checks that every package of some extras is installed, without importing one. Takes about 1 ms.

    Args:
        needed_by: what needs the extras, as the subject of the message, for example `cmet-eval score`.
        extras: names in `EXTRAS`.

    Raises:
        UserError: a package is absent. The message has one line and names the command that installs the extras.
    """
    lacking = [extra for extra in extras if absent_packages(EXTRAS[extra])]
    if lacking:
        absent = dict.fromkeys(name for extra in lacking for name in absent_packages(EXTRAS[extra]))
        raise UserError(f"{needed_by} needs {', '.join(absent)}; run `{install_command(*lacking)}`")


def absent_packages(extra: Extra) -> tuple[str, ...]:
    """The distributions of an extra that cannot be imported because they are not installed."""
    return tuple(name for name, module in extra.packages.items() if not is_installed(module))


def is_installed(module: str) -> bool:
    """Whether Python finds a module of this name. The module is not imported."""
    try:
        return importlib.util.find_spec(module) is not None
    except ImportError:  # a program refuses the module
        return False
    except ValueError:  # a module without a spec, which a program has put there
        return True


def is_of_an_extra(module: str) -> bool:
    """Whether an extra installs the package of this module."""
    return _extra_of(module) is not None


def how_to_install(module: str) -> str:
    """The command that installs an absent module: the first extra that has it, or else the package itself."""
    if (extra := _extra_of(module)) is not None:
        return install_command(extra)
    alone = _WITHOUT_DEPENDENCIES.get(module.partition(".")[0])
    return f"pip install --no-deps {alone}" if alone else f"pip install {module}"


def _extra_of(module: str) -> str | None:
    package = module.partition(".")[0]
    return next((name for name, extra in EXTRAS.items() if package in extra.packages.values()), None)


def install_command(*extras: str) -> str:
    """The `pip` command that adds extras to this installation; without extras, the command that installs the core.

    pip finds a released version by its name. For an installation from a folder, a wheel or a repository, the command
    repeats the place, which pip has stored (PEP 610). If a folder or wheel no longer exists, the command names the
    packages of the extras.
    """
    names = f"[{','.join(extras)}]" if extras else ""
    source = _source()
    if source is None:
        return f'pip install "{DISTRIBUTION}{names}"'
    if source.path is None:
        return f'pip install "{DISTRIBUTION}{names} @ {source.address}"'
    if source.path.is_dir():  # messages that are stored shorten the folder; what follows it stays usable
        editable = "-e " if source.editable else ""
        return f"cd {shlex.quote(str(source.path))} && pip install {editable}{shlex.quote(f'.{names}')}"
    if source.path.exists():
        return f"pip install {shlex.quote(f'{source.path}{names}')}"
    groups = [EXTRAS[extra] for extra in extras] or [CORE]
    return f"pip install {' '.join(dict.fromkeys(name for group in groups for name in group.packages))}"


@dataclass(frozen=True)
class _Source:
    """What this suite was installed from: a folder or wheel, or an address."""

    path: Path | None = None
    editable: bool = False
    address: str = ""


def _source() -> _Source | None:
    """What this suite was installed from; None for a package index."""
    try:
        stored = importlib.metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    except importlib.metadata.PackageNotFoundError:  # the files of a checkout on Python's path
        return _Source(_ROOT, editable=True) if (_ROOT / "pyproject.toml").is_file() else None
    if not stored:
        return None
    facts = json.loads(stored)
    url = urlsplit(facts["url"])
    if url.scheme == "file":
        return _Source(Path(unquote(url.path)), bool(facts.get("dir_info", {}).get("editable")))
    repository = facts.get("vcs_info")
    address = f"{repository['vcs']}+{facts['url']}@{repository['commit_id']}" if repository else facts["url"]
    return _Source(address=address)


def installed_versions() -> dict[str, str]:
    """The version of each of DISTRIBUTIONS that is installed, sorted by name."""
    found = {}
    for name in sorted(DISTRIBUTIONS):
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def suite_version() -> str:
    """The version of this suite, also where its files are on Python's path without an installation."""
    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return str(tomllib.loads((_ROOT / "pyproject.toml").read_text())["project"]["version"])
