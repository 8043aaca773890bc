"""Writes what can differ between the demos of two machines: versions, processor, and digests of data and networks.

The first digest that differs shows where two demos diverged: the shards if the face tracking differs, a network if the
training differs, the videos of a method if only its generation differs.
"""

from __future__ import annotations

import os
import platform
from pathlib import Path

from talking_face.files import sha256_of, write_text
from talking_face.packages import installed_versions, suite_version
from talking_face.signature import digest
from talking_face.threads import ARITHMETIC

NAME = "fingerprint.txt"
_PACKAGES = ("numpy", "scipy", "torch", "mediapipe", "opencv-contrib-python-headless", "av", "dlib-bin")
_DIGITS = 12


def written(folder: Path) -> str:
    """Writes the fingerprint of a demo into `folder`/fingerprint.txt. Returns the text with the path."""
    found = fingerprint(folder)
    width = max(map(len, found))
    text = "\n".join(f"{name:<{width}} {value}" for name, value in found.items())
    write_text(folder / NAME, f"{text}\n")
    return f"{text}\nto compare with another machine: {folder / NAME}"


def fingerprint(folder: Path) -> dict[str, str]:
    """Name of a part -> its versions or its digest, for a finished run with the shards in `folder`/shards.

    Raises the errors of `ShardSet`.
    """
    from cmet_pipelines.shards import ShardSet

    shards = folder / "shards"
    found = {
        "packages": _versions(),
        "processor": _processor(),
        "arithmetic": ", ".join(f"{name}={os.environ.get(name, 'not set')}" for name in ARITHMETIC),
        "shards": ShardSet(shards).digest[:_DIGITS],
    }
    for kind in ("reference", "evaluators"):
        for path in sorted((shards / kind).glob("*.safetensors")):
            found[path.stem] = sha256_of(path)[:_DIGITS]
    videos = sorted((folder / "videos").glob("*/*/*.mp4"))
    for method in sorted({path.parent.parent.name for path in videos}):
        found[f"{method}'s videos"] = digest([sha256_of(p) for p in videos if p.parent.parent.name == method], _DIGITS)
    return found


def _versions() -> str:
    own, others = {"cmet-eval": suite_version(), "python": platform.python_version()}, installed_versions()
    found = {**own, **{name: others.get(name, "absent") for name in _PACKAGES}}
    return ", ".join(f"{name} {version}" for name, version in found.items())


def _processor() -> str:
    """The kind of processor, and the instruction set that torch uses: sums in another one have other last bits."""
    import torch

    return f"{platform.machine()}, torch uses {torch.backends.cpu.get_cpu_capability()}"
