"""Finds out what a training lacks before its first step: files, data, disk and memory, for all stages at once."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from cmet_pipelines.shards import ShardSet
from cmet_reference.clips import FRAME_BYTES, usable
from talking_face.packages import is_installed
from talking_face.pretrained.model_files import ModelFiles
from talking_face.pretrained.store import is_here, missing_message, weight
from talking_face.reasons import UserError


@dataclass(frozen=True)
class Lack:
    """Something that a stage needs and that is absent."""

    stage: str
    text: str  # one line: what is absent, and how to get it

    def __str__(self) -> str:
        return f"{self.stage}: {' '.join(self.text.split())}"


class Rows:
    """The tables of shard sets, which state what can be learnt from them. No clip is read."""

    def __init__(self, folders: Iterable[Path]) -> None:
        self.folders = [*folders]
        sets = [ShardSet(folder) for folder in self.folders]
        self.train = pd.concat([usable(shards, "train") for shards in sets])
        self.test = pd.concat([usable(shards, "test") for shards in sets])

    @property
    def places(self) -> str:
        """The folders, for messages."""
        return ", ".join(map(str, self.folders))

    def count(self, column: str) -> int:
        """The number of training clips with a text in this column."""
        if column not in self.train:
            return 0
        return int(self.train[column].map(lambda value: isinstance(value, str) and bool(value.strip())).sum())

    def lacks(self, stage: str, paper: bool) -> Iterator[Lack]:
        """What every stage needs: clips to learn from, and with the settings `paper` a test split too."""
        if self.train.empty:
            yield Lack(stage, f"{self.places}: no clip of the train split is long enough and shows a face")
        if paper and self.test.empty:
            yield Lack(
                stage, f"{self.places}: there is no test split; the paper measures on other speakers (see `split`)"
            )


def weights_lack(stage: str, name: str, files: ModelFiles) -> Iterator[Lack]:
    """A pretrained file that is absent, or a package that runs it and is not installed.

    Args:
        name: the entry in the registry of pretrained files.
    """
    entry = weight(name)
    if not is_here(name, files):
        yield Lack(stage, missing_message(entry))
    for package in entry.packages:
        if not is_installed(package):
            yield Lack(stage, f"the package {package} is not installed, which runs {entry.file}")


def memory_lacks(folders: Mapping[str, Path]) -> Iterator[Lack]:
    """A set of clips that does not fit into the memory of this machine."""
    need, have = clip_bytes(folders), os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if need > have:
        yield Lack(
            "all stages",
            f"the clips take {need / 1e9:.1f} GB of memory and the machine has {have / 1e9:.1f} GB; use a part of them",
        )


def clip_bytes(folders: Mapping[str, Path]) -> int:
    """Bytes of memory that the clips of all shard sets take: landmarks, blendshapes and sound."""
    frames = [rows["n_frames"].sum() for rows in (ShardSet(folder).clips for folder in folders.values())]
    return int(sum(frames)) * FRAME_BYTES


def disk_lack(stage: str, out: Path, need: int) -> Iterator[Lack]:
    """A disk without room for the checkpoints of a stage: the finished one and two unfinished ones with Adam's state.

    Args:
        out: the folder of the checkpoints, or a folder that will be made.
        need: bytes of the network's parameters.
    """
    there = next(folder for folder in (out, *out.parents) if folder.exists())
    free = shutil.disk_usage(there).free
    if 7 * need > free:  # one network, and twice a network with the two averages of Adam
        yield Lack(
            stage, f"{there} has {free / 1e9:.1f} GB of free space; the checkpoints take {7 * need / 1e9:.1f} GB"
        )


def refuse(model: str, settings: str, lacks: Iterable[Lack]) -> None:
    """Raises a UserError with one line for each lack, if there is any."""
    lines = [f"  {lack}" for lack in lacks]
    if lines:
        things = "one thing is absent" if len(lines) == 1 else f"{len(lines)} things are absent"
        raise UserError("\n".join([f"{model} cannot be trained with the settings {settings}: {things}", *lines]))
