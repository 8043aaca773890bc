"""Finds the videos of methods for pages and contact sheets, in the folder of a run or in folders of the user."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from cmet_eval.protocol.pairs import pair_file_name
from cmet_eval.runs.videos_by_content import VideosByContent
from talking_face.names import did_you_mean, file_name_of, printable
from talking_face.reasons import UserError


@dataclass(frozen=True)
class MethodVideos:
    """The folders in which the videos of methods are searched for."""

    root: Path  # contains METHOD/SETTING/PAIR.mp4, as `cmet-eval run` writes them
    own: Mapping[str, VideosByContent] = field(
        default_factory=dict
    )  # by method; such a method is not searched for in `root`

    @classmethod
    def of(cls, given: Sequence[str], root: Path, methods: Collection[str]) -> MethodVideos:
        """The folders in the values of `--videos`: METHOD=DIR for one method, or DIR in place of `root`.

        Raises UserError if a folder is absent, or if a method is not one of `methods`.
        """
        own: dict[str, VideosByContent] = {}
        for text in given:
            name, equals, place = ("", "", text) if Path(text).is_dir() else text.rpartition("=")
            if not Path(place).is_dir():
                raise UserError(f"--videos {printable(text)}: no folder {printable(place)}; give METHOD=DIR, or DIR")
            if equals and name not in methods:
                there = f"there are {', '.join(sorted(methods))}"
                raise UserError(f"--videos {printable(text)}: no method {name}{did_you_mean(name, methods)}; {there}")
            if equals:
                own[name] = VideosByContent(Path(place))
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
        own = self.own[method]
        for path in (own.folder / name, own.folder / file_name_of(setting) / name):
            if path.is_file():
                return path
        return own.find(sha256s)
