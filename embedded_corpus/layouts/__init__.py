"""Writes the embedded corpus in the folders and container formats of a real dataset.

This folder has one module per dataset. Each module defines the functions of `Layout`. `TRUTH` is the name of the folder
with the ground truth; every reader ignores this folder.
"""

from __future__ import annotations

import importlib
import io
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from talking_face.files import write_bytes
from talking_face.names import did_you_mean
from talking_face.reasons import UserError
from talking_face.sealed import read_sealed_json, write_sealed_json

if TYPE_CHECKING:
    from embedded_corpus.clip import ClipSpec, ClipTruth

TRUTH = "_truth"
LAYOUTS = ("mead", "crema-d", "lrs2", "meld", "clips")


class Layout(Protocol):
    """The functions of a layout's module."""

    SIZE: str  # default picture size, as "WIDTHxHEIGHT"

    def select(self, specs: Sequence[ClipSpec]) -> list[ClipSpec]:
        """Those of the clips `specs` that the dataset can contain. For example, CREMA-D has no contempt."""

    def paths(self, out: Path, spec: ClipSpec) -> tuple[Path, ...]:
        """The files of one clip. The last is the ground truth. If all files exist, the clip is not written again."""

    def write(self, out: Path, spec: ClipSpec) -> None:
        """Renders one clip and writes the clip's files. Each file gets its final name by an atomic rename."""

    def finish(self, out: Path, specs: Sequence[ClipSpec]) -> None:
        """Writes the files for the whole dataset, such as label files and lists of clips."""

    def add_defects(self, out: Path, specs: Sequence[ClipSpec]) -> None:
        """Adds damaged and mislabelled files, made from good clips. The real dataset has files with such defects."""


def layout(name: str) -> Layout:
    """The module of a layout. Raises UserError for an unknown name."""
    if name not in LAYOUTS:
        hint = did_you_mean(name, LAYOUTS)
        raise UserError(f"the embedded corpus has no layout {name!r}{hint or ';'} there are {', '.join(LAYOUTS)}")
    return cast(Layout, importlib.import_module(f"{__name__}.{name.replace('-', '_')}"))


def write_once(path: Path, data: bytes) -> None:
    """Writes a file, which gets its final name by an atomic rename. An existing file is kept."""
    if not path.is_file():
        write_bytes(path, data)


def write_truth(path: Path, truth: Mapping[str, object]) -> None:
    """Writes the ground truth of a clip as JSON, with a digest of itself."""
    write_sealed_json(path, truth)


def read_truth(path: Path) -> ClipTruth:
    """The ground truth of a clip. Raises Damaged if the file is damaged."""
    return cast("ClipTruth", read_sealed_json(path, "the next `cmet-eval synth` draws the clip again"))


def tar_of(members: Mapping[str, bytes], form: int, links: Mapping[str, str] | None = None) -> bytes:
    """A tar archive. The same arguments give the same bytes.

    Args:
        members: content of the files, by name.
        form: a format constant of `tarfile`, such as `tarfile.PAX_FORMAT`.
        links: targets of symbolic links, by name. The links are written at the end of the archive.
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
