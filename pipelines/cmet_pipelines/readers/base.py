"""Defines the types that all readers share, and lists the files of a folder.

The files inside tars are listed by `cmet_pipelines.readers.archives`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

from pydantic import BaseModel, ConfigDict

from talking_face.clip import Clip, MediaSource
from talking_face.media.source import read_source
from talking_face.reasons import Reason, UserError

_VIDEO = "mp4 m4v mov mkv webm avi flv f4v mpg mpeg vob ts m2ts mts wmv asf 3gp 3g2 ogv mxf dv y4m rm nut gif"
_AUDIO = "m4a wav aac mp3 flac ogg opus wma aif aiff ac3 mka"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split(" "))
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _AUDIO.split(" "))

HIDDEN_FOLDERS = frozenset({"_truth", "__MACOSX"})


@dataclass(frozen=True)
class Skipped:
    """A file under the root that is not used as a clip, and the reason.

    For a file in a tar, `path` is `archive!member`.

    If the file is a clip that a table of known defects, a list or an option leaves out, `clip` holds this clip.
    """

    path: str
    reason: Reason
    detail: str
    clip: Clip | None = None


class ReaderOptions(BaseModel):
    """Options of one dataset. A reader with options declares a subclass, whose fields become options of `cmet-eval`.

    Each field has a type, a default, and a description that `--help` prints. A bool field becomes `--name/--no-name`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    def content(self) -> dict[str, object]:
        """The options that change labels or the choice of clips, JSON-ready. The digest of a shard set includes them.

        A subclass must not include the path of a file. If the content of a file matters, include a hash of the content.
        """
        return self.model_dump(mode="json")


@dataclass
class Discovery:
    """The result of a reader. Every file under the root is the video or the sound of a clip, or is in `skipped`."""

    clips: list[Clip] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # lines for the user: the recognised layout, facts about labels

    listed: set[str] = field(default_factory=set, repr=False, compare=False)  # names of the files that `files` found

    def skip(self, path: str, reason: Reason, detail: str) -> None:
        """Records a file that is not a clip."""
        self.skipped.append(Skipped(path, reason, detail))

    def exclude(self, clip: Clip, reason: Reason, detail: str) -> None:
        """Records a clip that is left out although the clip's files are present."""
        self.skipped.append(Skipped(str(clip.video), reason, detail, clip))

    def finish(self) -> Discovery:
        """Sorts the clips by clip_id. If several clips have the same id, all clips but the first are skipped."""
        seen: dict[str, Clip] = {}
        for clip in sorted(self.clips, key=lambda clip: (clip.clip_id, clip.video.member is not None, str(clip.video))):
            if clip.clip_id in seen:
                detail = f"the same clip as {seen[clip.clip_id].video}, which is used"
                self.skip(str(clip.video), Reason.DUPLICATE_ID, detail)
            else:
                seen[clip.clip_id] = clip
        self.clips = list(seen.values())
        self.skipped.sort(key=lambda skip: (skip.path, skip.detail))
        return self


@dataclass(frozen=True)
class Reader:
    """The reader of one dataset. A reader is registered if a module of this folder assigns the reader to `READER`."""

    name: str  # NAME in `cmet-eval preprocess NAME`, Clip.dataset, and the first part of every clip_id
    discover: Callable[..., Discovery]  # called with the resolved root and an instance of `options`
    options: type[ReaderOptions] = ReaderOptions


def check_rules(reader: Reader, found: Discovery) -> None:
    """Checks the clips that a reader found: name of the dataset, types of the labels, unique and sorted ids.

    If a rule is broken, raises UserError. The message names the reader, the clip and the rule.
    """
    types = get_type_hints(Clip)
    for clip in (*found.clips, *(skip.clip for skip in found.skipped if skip.clip)):
        for name, expected in types.items():
            value = getattr(clip, name)
            if not isinstance(value, expected):
                wanted = getattr(expected, "__name__", None) or str(expected)
                raise _broken_rule(reader, f"{name} of {clip.clip_id} is {value!r}; it must be of type {wanted}")
        if clip.dataset != reader.name:
            raise _broken_rule(reader, f"dataset of {clip.clip_id} is {clip.dataset!r}; it must be {reader.name!r}")
        if not clip.clip_id.startswith(f"{reader.name}/"):
            raise _broken_rule(reader, f"clip_id {clip.clip_id!r} must start with '{reader.name}/'")
    for first, second in pairwise(found.clips):
        if first.clip_id == second.clip_id:
            raise _broken_rule(reader, f"two clips have the id {first.clip_id}; finish() keeps one of them")
        if first.clip_id > second.clip_id:
            raise _broken_rule(reader, "the clips are not sorted by clip_id; return into.finish()")


def unmentioned(root: Path, found: Discovery) -> list[str]:
    """Sorted names of the listed files that are neither used by a clip (as video or sound) nor in `found.skipped`.

    The paths in `found.skipped` must be relative to `root`, which must be resolved.
    """
    clips = (*found.clips, *(skip.clip for skip in found.skipped if skip.clip))
    sources = (source for clip in clips for source in (clip.video, clip.audio) if source)
    mentioned = {str(source).removeprefix(f"{root}/") for source in sources} | {skip.path for skip in found.skipped}
    archives = {name[:at] for name in mentioned for at, char in enumerate(name) if char == "!"}
    return sorted(found.listed - mentioned - archives)


def _broken_rule(reader: Reader, rule: str) -> UserError:
    return UserError(f"the reader of {reader.name} breaks a rule: {rule} (docs/how_to/add_a_dataset.md)")


@dataclass(frozen=True)
class Found:
    """One file, on disk or inside a tar."""

    name: str  # path relative to the root, or `archive!member` for a file in a tar
    parts: tuple[str, ...]  # folders and file name below the root, without the names of tars
    source: MediaSource


def walk(root: Path, into: Discovery) -> Iterator[Found]:
    """Every regular file under `root` in sorted order. `root` must be resolved.

    Other entries are added to `into.skipped`: hidden files, files in HIDDEN_FOLDERS (such as the ground truth of the
    embedded corpus), links to files outside the root, links to folders, and special files.
    """
    for folder, subfolders, files in os.walk(root, followlinks=False):
        for linked in sorted(name for name in subfolders if (Path(folder) / name).is_symlink()):
            into.skip(
                (Path(folder) / linked).relative_to(root).as_posix(),
                Reason.NOT_A_CLIP,
                "a link to a folder; not followed",
            )
        subfolders.sort()
        for name in sorted(files):
            path = Path(folder) / name
            relative = path.relative_to(root)
            shown = relative.as_posix()
            if passed := hidden(relative.parts):
                into.skip(shown, Reason.NOT_A_CLIP, passed)
            elif path.is_symlink() and not path.resolve().is_relative_to(root):
                into.skip(shown, Reason.NOT_A_CLIP, "a link that leaves the folder; not followed")
            elif not path.is_symlink() and not path.is_file():
                into.skip(shown, Reason.NOT_A_CLIP, "not a regular file")
            else:
                into.listed.add(shown)
                yield Found(shown, relative.parts, MediaSource(str(path)))


def hidden(parts: tuple[str, ...]) -> str | None:
    """The reason to skip a file with this path below the root, or None."""
    if parts[-1].startswith("._"):
        return "an AppleDouble file, not media"
    if any(part.startswith(".") for part in parts):
        return "a hidden file"
    if any(part in HIDDEN_FOLDERS for part in parts[:-1]):
        return "a side file of the corpus, not a clip"
    return None


def read_text(source: MediaSource) -> str:
    """The text of a small UTF-8 file, on disk or in a tar. Invalid bytes become U+FFFD.

    Raises ClipError if the file cannot be read.
    """
    return read_source(source).decode("utf-8-sig", errors="replace")
