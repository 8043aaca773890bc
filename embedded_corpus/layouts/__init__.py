"""The trees that the embedded corpus is written to: one module a dataset, with that dataset's folders and containers.

Each module is a `Layout`. `TRUTH` holds the ground truth, in a folder that every reader passes by.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from talking_face.reasons import UserError

if TYPE_CHECKING:
    from embedded_corpus.clip import ClipSpec

TRUTH = "_truth"
LAYOUTS = ("mead", "crema-d", "lrs2", "meld", "clips")


class Layout(Protocol):
    """What a layout's module offers."""

    SIZE: str  # the default picture size, as the dataset's own

    def select(self, specs: Sequence[ClipSpec]) -> list[ClipSpec]:
        """Those of the corpus's clips that the dataset could hold: CREMA-D knows no contempt."""

    def paths(self, out: Path, spec: ClipSpec) -> tuple[Path, ...]:
        """Every file of one clip, the truth last: a clip whose files are all there is not written again."""

    def write(self, out: Path, spec: ClipSpec) -> None:
        """Renders one clip and writes its files, each whole or not at all."""

    def finish(self, out: Path, specs: Sequence[ClipSpec]) -> None:
        """Writes what stands beside the clips: label files and lists."""

    def add_defects(self, out: Path, specs: Sequence[ClipSpec]) -> None:
        """Writes what goes wrong with the real dataset beside the good clips, from their bytes."""


def layout(name: str) -> Layout:
    """The layout's module. Raises UserError on a name that is none."""
    if name not in LAYOUTS:
        raise UserError(f"the embedded corpus has no layout {name!r}; it can be written as {', '.join(LAYOUTS)}")
    return cast(Layout, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def write_text(path: Path, text: str, encoding: str = "utf-8") -> None:
    """Writes a text file, whole or not at all, with its folders."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(text, encoding=encoding, newline="")
    temporary.replace(path)


def write_bytes(path: Path, data: bytes) -> None:
    """Writes a file, whole or not at all, with its folders; one that is there is left alone."""
    if path.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_bytes(data)
    temporary.replace(path)


def write_truth(path: Path, truth: dict) -> None:
    """Writes the ground truth of a clip."""
    import json

    write_text(path, json.dumps(truth, separators=(",", ":"), sort_keys=True) + "\n")
