"""Writes what can differ between the demos of two machines: versions, processor, and digests of data and networks.

The first digest that differs shows where two demos diverged: the shards if the face tracking differs, a network if the
training differs, the videos of a method if only its generation differs.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from talking_face.files import sha256_of, write_text
from talking_face.signature import digest
from talking_face.threads import ARITHMETIC

NAME = "fingerprint.txt"
_PACKAGES = ("numpy", "scipy", "torch", "mediapipe", "opencv-contrib-python-headless", "av", "dlib", "cmet-eval")
_DIGITS = 12


def written(folder: Path) -> str:
    """Writes the fingerprint of a demo into `folder`/fingerprint.txt. Returns the text with the path."""
    text = "\n".join(f"{name:<16} {value}" for name, value in fingerprint(folder).items())
    write_text(folder / NAME, f"{text}\n")
    return f"{text}\nto compare with another machine: {folder / NAME}"


def fingerprint(folder: Path) -> dict[str, str]:
    """Name of a part -> its versions or its digest, for a finished run with the shards in `folder`/shards.

    Raises the errors of `ShardSet`.
    """
    from cmet_pipelines.shards import ShardSet

    shards = folder / "shards"
    found = {
        "packages": ", ".join(_versions()),
        "processor": _processor(),
        "arithmetic": ", ".join(f"{name}={value}" for name, value in ARITHMETIC.items()),
        "shards": ShardSet(shards).digest[:_DIGITS],
    }
    for kind in ("reference", "evaluators"):
        for path in sorted((shards / kind).glob("*.safetensors")):
            found[path.stem] = sha256_of(path)[:_DIGITS]
    videos = sorted((folder / "videos").glob("*/*/*.mp4"))
    for method in sorted({path.parent.parent.name for path in videos}):
        found[f"{method}'s videos"] = digest([sha256_of(p) for p in videos if p.parent.parent.name == method], _DIGITS)
    return found


def _versions() -> Iterator[str]:
    yield f"python {platform.python_version()}"
    for name in _PACKAGES:
        try:
            yield f"{name} {version(name)}"
        except PackageNotFoundError:
            yield f"{name} absent"


def _processor() -> str:
    """The instruction sets that torch and numpy use, because sums in other instruction sets have other last bits."""
    import torch

    return f"{platform.machine()}, torch uses {torch.backends.cpu.get_cpu_capability()}"
