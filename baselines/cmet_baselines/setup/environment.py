"""Builds the Python environment of a method from the recipe's requirements.txt, and states what an interpreter has.

Environments with equal requirements and the same version of Python are shared. uv is used if it is installed.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from cmet_baselines.adapters.command import run_logged
from cmet_baselines.adapters.environment import method_environment
from cmet_baselines.adapters.recipe import REQUIREMENTS, RecipeRun
from cmet_pipelines.out_folder import output_folder
from talking_face.files import sha256_of, write_text
from talking_face.lines import one_line
from talking_face.names import printable
from talking_face.reasons import ClipError, UserError
from talking_face.scratch import scratch_folder
from talking_face.signature import canonical_json, digest
from talking_face.user_files import read_text

_BUILD_S, _ASK_S = 7200.0, 300.0  # s; PyTorch with CUDA has 3 GB, and its first import from a slow disk takes a minute
_READY = "ready"  # the file in a finished environment
# Prints one JSON line: the version, the packages and, if asked, whether PyTorch has a GPU. Runs in Python 3.7, too.
_PROBE = """
import json, sys
try:
    from importlib.metadata import distributions
    packages = {str(d.metadata["Name"]).lower().replace("_", "-"): d.version for d in reversed(list(distributions()))}
except ImportError:
    packages = {}
import numpy
gpu = ""
if sys.argv[1:] == ["gpu"]:
    try:
        import torch
        gpu = torch.cuda.get_device_name(0) if torch.cuda.is_available() else ""
    except ImportError:
        pass
print(json.dumps({"version": "%d.%d.%d" % sys.version_info[:3], "packages": packages, "gpu": gpu}))
"""


class Interpreter(NamedTuple):
    """What an interpreter has.

    Attributes:
        path: the program.
        version: of Python, for example 3.11.7.
        packages: {name of a package in lower case, with hyphens: its version}.
        gpu: the name of the GPU that its PyTorch finds; empty if there is none, or if this was not asked for.
    """

    path: Path
    version: str
    packages: Mapping[str, str]
    gpu: str


def requirements(recipe: RecipeRun) -> list[str]:
    """The lines of requirements.txt, without comments."""
    lines = read_text(recipe.folder / REQUIREMENTS, "list of packages").splitlines()
    return [text for line in lines if (text := re.sub(r"(^|\s)#.*", "", line).strip())]


def environment_folder(recipe: RecipeRun, root: Path) -> Path:
    """The folder of the environment: equal lists of packages and equal versions of Python have the same folder."""
    return root / "environments" / digest([requirements(recipe), recipe.python], 12)


def is_built(folder: Path) -> bool:
    """Whether the environment is finished."""
    return (folder / _READY).is_file()


def is_of_suite(python: Path, root: Path) -> bool:
    """Whether `build` made the environment of an interpreter."""
    return python.is_relative_to(root / "environments")


def check_tools(recipe: RecipeRun, root: Path) -> None:
    """Raises UserError if the environment is not built, and neither uv nor the version of Python is here."""
    if not is_built(environment_folder(recipe, root)) and not shutil.which("uv"):
        find_python(recipe.python)


def build(recipe: RecipeRun, root: Path) -> Path:
    """The interpreter of the environment, which is built if it is absent. Raises UserError if that fails."""
    folder = environment_folder(recipe, root)
    python = folder / "bin" / "python"
    with output_folder(folder.with_name(folder.name + ".lock")):
        if is_built(folder):
            return python
        shutil.rmtree(folder, ignore_errors=True)
        listed = str(recipe.folder / REQUIREMENTS)
        if uv := shutil.which("uv"):
            steps = [
                [uv, "venv", "--quiet", "--python", recipe.python, str(folder)],
                [uv, "pip", "install", "--quiet", "--python", str(python), "-r", listed],
            ]
        else:
            steps = [
                [find_python(recipe.python), "-m", "venv", str(folder)],
                [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "-r", listed],
            ]
        for step in steps:
            _run(step, root, os.environ, _BUILD_S)
        write_text(folder / _READY, "\n".join(requirements(recipe)) + "\n")
    return python


def find_python(version: str) -> str:
    """An interpreter of this version. Raises UserError, with what to install, if there is none."""
    if sys.version_info[:2] == tuple(map(int, version.split("."))):
        return sys.executable
    if (found := shutil.which(f"python{version}")) is None:
        raise UserError(
            f"Python {version} is not installed; install it or uv, or give --python EXE, an interpreter with the "
            f"packages of {REQUIREMENTS}"
        )
    return found


def probe(python: Path, *, gpu: bool) -> Interpreter:
    """What an interpreter has. Raises UserError if it cannot run or has no numpy.

    Args:
        python: a path, or a name in PATH.
        gpu: whether to look for a GPU, which imports PyTorch.
    """
    if (found := shutil.which(python)) is None:
        raise UserError(f"{printable(str(python))} does not exist, or cannot be executed")
    # The path is not resolved: the `python` of an environment is a link, and its place selects the packages.
    path = Path(found).absolute()
    text = _run(
        [str(path), "-c", _PROBE, *(["gpu"] if gpu else [])], Path("/"), method_environment(os.environ, {}), _ASK_S
    )
    try:
        answer = json.loads(text.strip().splitlines()[-1])
        return Interpreter(path, str(answer["version"]), dict(answer["packages"]), printable(str(answer["gpu"])))
    except (ValueError, LookupError, TypeError):
        raise UserError(f"{printable(str(python))} is not an interpreter of Python: {one_line(text)[-200:]}") from None


def packages_hash(found: Interpreter) -> str:
    """SHA-256 of the version of Python, and of the names and versions of all packages."""
    return sha256_of(canonical_json([found.version, dict(found.packages)]).encode())


def differences(recipe: RecipeRun, found: Interpreter) -> list[str]:
    """One line for each pinned package in another version or absent, and for the version of Python."""
    lines = []
    if not found.version.startswith(f"{recipe.python}."):
        lines.append(f"Python {found.version}, and the recipe was run with {recipe.python}")
    for line in requirements(recipe):
        name, _, version = line.partition(";")[0].partition("==")
        here = found.packages.get(name.strip().lower().replace("_", "-").partition("[")[0])
        if version and here != version.strip():
            lines.append(f"{name.strip()} {here or 'absent'}, and the recipe was run with {version.strip()}")
    return lines


def _run(command: Sequence[str], folder: Path, environment: Mapping[str, str], deadline_s: float) -> str:
    """What a command prints. Raises UserError with its last lines if it fails."""
    with scratch_folder() as scratch:
        log = scratch / "printed.txt"
        try:
            status = run_logged(list(command), folder, environment, deadline_s, log, log)
        except ClipError as error:
            raise UserError(error.detail) from None
        text = log.read_text("utf-8", "replace")
    if status:
        tail = one_line(text)[-300:] or "it printed nothing"
        raise UserError(f"{printable(str(command[0]))} ended with {status}: {tail}")
    return text
