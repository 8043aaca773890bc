"""Lays out the embedded corpus in the folders and containers of a dataset: one module for each dataset.

Each module is a `Layout`. `TRUTH` is the folder of the ground truth, which every reader ignores.
"""

from __future__ import annotations

import importlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from talking_face.files import write_bytes, write_text
from talking_face.reasons import UserError

if TYPE_CHECKING:
    from embedded_corpus.clip import ClipSpec

TRUTH = "_truth"
LAYOUTS = ("mead", "crema-d", "lrs2", "meld", "clips")


class Layout(Protocol):
    """The functions of a layout's module."""

    SIZE: str  # the default picture size, as the dataset's own

    def select(self, specs: Sequence[ClipSpec]) -> list[ClipSpec]:
        """The clips of the corpus that the dataset could contain: CREMA-D has no contempt."""

    def paths(self, out: Path, spec: ClipSpec) -> tuple[Path, ...]:
        """Every file of one clip, the truth last. A clip whose files all exist is not written again."""

    def write(self, out: Path, spec: ClipSpec) -> None:
        """Renders one clip and writes its files, each by an atomic rename."""

    def finish(self, out: Path, specs: Sequence[ClipSpec]) -> None:
        """Writes the label files and lists."""

    def add_defects(self, out: Path, specs: Sequence[ClipSpec]) -> None:
        """Adds damaged and mislabelled files as the real dataset has them, made from the bytes of good clips."""


def layout(name: str) -> Layout:
    """The module of a layout. Raises UserError for an unknown name."""
    if name not in LAYOUTS:
        raise UserError(f"the embedded corpus has no layout {name!r}; it can be written as {', '.join(LAYOUTS)}")
    return cast(Layout, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def write_once(path: Path, data: bytes) -> None:
    """Writes a file by an atomic rename; an existing file is kept."""
    if not path.is_file():
        write_bytes(path, data)


def write_truth(path: Path, truth: Mapping[str, object]) -> None:
    """Writes the ground truth of a clip as JSON."""
    write_text(path, json.dumps(truth, separators=(",", ":"), sort_keys=True) + "\n")


def tar_of(members: Mapping[str, bytes], form: int, links: Mapping[str, str] | None = None) -> bytes:
    """A tar archive in a format of `tarfile`. The same members give the same bytes.

    `links`: names of symbolic links, with their targets, at the end of the archive.
    """
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
        for name, target in (links or {}).items():
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    return buffer.getvalue()
