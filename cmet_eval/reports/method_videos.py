"""Finds the videos of methods for pages and contact sheets, in the folder of a run or in folders of the user."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from cmet_eval.protocol.pairs import pair_file_name
from talking_face.files import sha256_of
from talking_face.names import did_you_mean, file_name_of, printable
from talking_face.reasons import UserError


@dataclass(frozen=True)
class MethodVideos:
    """The folders in which the videos of methods are searched for."""

    root: Path  # contains METHOD/SETTING/PAIR.mp4, as `cmet-eval run` writes them
    own: Mapping[str, _OwnFolder] = field(
        default_factory=dict
    )  # by method; such a method is not searched for in `root`

    @classmethod
    def of(cls, given: Sequence[str], root: Path, methods: Collection[str]) -> MethodVideos:
        """The folders in the values of `--videos`: METHOD=DIR for one method, or DIR in place of `root`.

        Raises UserError if a folder is absent, or if a method is not one of `methods`.
        """
        own: dict[str, _OwnFolder] = {}
        for text in given:
            name, equals, place = ("", "", text) if Path(text).is_dir() else text.rpartition("=")
            if not Path(place).is_dir():
                raise UserError(f"--videos {printable(text)}: no folder {printable(place)}; give METHOD=DIR, or DIR")
            if equals and name not in methods:
                there = f"there are {', '.join(sorted(methods))}"
                raise UserError(f"--videos {printable(text)}: no method {name}{did_you_mean(name, methods)}; {there}")
            if equals:
                own[name] = _OwnFolder(Path(place))
            else:
                root = Path(place)
        return cls(root, own)

    def find(self, method: str, setting: str, pair_id: str, sha256s: Collection[str] = ()) -> Path | None:
        """The video of a pair; None if it is not there.

        In a folder that the user named, DIR/PAIR.mp4 and DIR/SETTING/PAIR.mp4 are tried first. If neither is there, it
        is any file below DIR whose SHA-256 is one of `sha256s`, so that the names of the files do not matter.
        """
        name = f"{pair_file_name(pair_id)}.mp4"
        if method not in self.own:
            path = self.root / file_name_of(method) / file_name_of(setting) / name
            return path if path.is_file() else None
        folder = self.own[method]
        for path in (folder.path / name, folder.path / file_name_of(setting) / name):
            if path.is_file():
                return path
        return next((folder.by_sha256[sha] for sha in sorted(sha256s) if sha in folder.by_sha256), None)


@dataclass(frozen=True)
class _OwnFolder:
    path: Path

    @cached_property
    def by_sha256(self) -> dict[str, Path]:
        """{SHA-256: path} of every file below the folder; it is computed only if a file is not found by its name."""
        files = sorted(path for path in self.path.rglob("*") if path.is_file())
        return {sha256_of(path): path for path in reversed(files)}
