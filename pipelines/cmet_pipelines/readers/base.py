"""Defines the types that all readers share, and lists the files of a folder.

The files inside tars are listed by `cmet_pipelines.readers.archives`.
"""

from __future__ import annotations

import errno
import os
import stat
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import get_type_hints

from pydantic import BaseModel, ConfigDict, Field

from talking_face.clip import Clip, MediaSource
from talking_face.media.source import read_source
from talking_face.names import counted, printable
from talking_face.reasons import Reason, UserError

HIDDEN_FOLDERS = frozenset({"_truth", "__MACOSX", "lost+found"})
LINK_LEFT = "a link; not followed (--follow-links follows the links directly in ROOT)"

_SHOW_EVERY_S = 10.0  # s between two lines about the number of files, in folders of millions of files
_LONGEST_TEXT = 16 << 20  # bytes of a transcript or of a list
_PRINTED = ("clip_id", "speaker", "emotion", "emotion_voted", "take", "view", "sentence_id", "split")


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

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    follow_links: bool = Field(
        default=False, description="read the folders and files to which links directly in ROOT lead"
    )

    def content(self) -> dict[str, object]:
        """The options that change labels or the choice of clips, JSON-ready. The digest of a shard set includes them.

        A subclass must not include the path of a file. If the content of a file matters, include a hash of the content.
        `follow_links` is not included: it only adds clips, and all clips are in the manifest of the shard set.
        """
        return self.model_dump(mode="json", exclude={"follow_links"})


@dataclass
class Discovery:
    """The result of a reader. Every file under the root is the video or the sound of a clip, or is in `skipped`."""

    clips: list[Clip] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # lines for the user: the recognised layout, facts about labels

    listed: set[str] = field(default_factory=set, repr=False, compare=False)  # names of the files that `files` found
    shown_at: float = field(default_factory=time.monotonic, repr=False, compare=False)  # time of the last line, s

    def list(self, name: str) -> None:
        """Counts a file. In folders of millions of files, prints the number of files to stderr every ten seconds."""
        self.listed.add(name)
        if len(self.listed) % 1000 == 0 and time.monotonic() - self.shown_at > _SHOW_EVERY_S:
            self.shown_at = time.monotonic()
            print(f"looking for clips: {len(self.listed):,} files so far", file=sys.stderr, flush=True)

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
                detail = f"the same clip_id as {seen[clip.clip_id].video}, which is used"
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
    bibtex: str = ""  # BibTeX of the paper that describes the dataset, for `cmet-eval cite`


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
        if odd := next((name for name in _PRINTED if not (getattr(clip, name) or "").isprintable()), None):
            rule = "must be printable; see talking_face.names.printable"
            raise _broken_rule(reader, f"{odd} of {clip.clip_id!r} is {getattr(clip, odd)!r}; it {rule}")
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
    below = f"{printable(str(root))}/"
    mentioned = {str(source).removeprefix(below) for source in sources} | {skip.path for skip in found.skipped}
    archives = {name[:at] for name in mentioned for at, char in enumerate(name) if char == "!"}
    return sorted(found.listed - mentioned - archives)


def _broken_rule(reader: Reader, rule: str) -> UserError:
    return UserError(f"the reader of {reader.name} breaks a rule: {rule} (docs/how_to/add_a_dataset.md)")


@dataclass(frozen=True, slots=True)
class Found:
    """One file, on disk or inside a tar. In `parts` and `place`, bytes that are not UTF-8 are lone surrogates."""

    name: str  # path relative to the root, or `archive!member` for a file in a tar; printable
    parts: tuple[str, ...]  # folders and file name below the root, without the names of tars
    source: MediaSource
    # Path below the root of the file on disk; for a file in a tar, then its path in the tar, for each tar around it.
    place: tuple[str, ...]


def walk(root: Path, into: Discovery, options: ReaderOptions | None = None) -> Iterator[Found]:
    """Every regular file under `root` in sorted order. `root` must be resolved.

    Other entries are added to `into.skipped`: hidden files, files in HIDDEN_FOLDERS (such as the ground truth of the
    embedded corpus), links out of the root, links to folders, special files, and folders and files that cannot be read.
    With the option `follow_links`, links directly in the root are followed.
    """
    links = _Links(str(root), options is not None and options.follow_links)
    pending: list[tuple[str, ...]] = [()]
    while pending:
        parts = pending.pop()
        folder = _Folder(str(root), parts)
        try:
            with os.scandir(folder.path) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            detail = f"the folder cannot be read: {error.strerror}; its files are missing here"
            into.skip(folder.shown or ".", Reason.NOT_A_CLIP if folder.hidden else Reason.UNREADABLE, detail)
            continue
        subfolders = []
        for entry in entries:
            below = (*parts, entry.name)
            if (kind := links.kind(entry, folder)) is _FOLDER:
                subfolders.append(below)
            elif kind is not _FILE:
                into.skip(folder.below(entry.name), *kind)
            else:
                shown = folder.below(entry.name)
                into.list(shown)
                yield Found(shown, below, MediaSource(f"{folder.path}/{entry.name}"), ("/".join(below),))
        pending.extend(reversed(subfolders))
    if links.left:
        some = f"{counted(len(links.left), 'link')} of ROOT to other folders or files"
        into.notes.append(f"{some} left out, such as {links.left[0]}; --follow-links reads them")


class _Folder:
    """One folder while it is walked: its path on disk, its printable path below the root, and whether it is hidden."""

    def __init__(self, root: str, parts: tuple[str, ...]) -> None:
        self.parts = parts
        self.path = "/".join((root.rstrip("/"), *parts)) if parts else root
        self.shown = printable("/".join(parts))
        self.hidden = hidden((*parts, "x")) is not None

    def below(self, name: str) -> str:
        """The printable path of an entry, below the root."""
        return f"{self.shown}/{printable(name)}" if self.parts else printable(name)

    def refuses(self, name: str) -> tuple[Reason, str] | None:
        """The reason to skip a hidden file or a file in a hidden folder."""
        why = hidden((*self.parts, name)) if self.hidden or name.startswith(".") else None
        return (Reason.NOT_A_CLIP, why) if why else None


_FOLDER, _FILE = "a folder that is read", "a file that is read"
_Kind = str | tuple[Reason, str]  # _FOLDER, _FILE, or the reason and the message of an entry that is not read


class _Links:
    """Decides which entries are read. No link is followed inside a folder to which a link leads."""

    def __init__(self, root: str, follow: bool) -> None:
        self.root, self.follow = root, follow
        self.read = {
            root: ""
        }  # real path of every folder that is read, with all folders below it: its name in the root
        self.left: list[str] = []  # links directly in the root that are left out because `follow` is False

    def kind(self, entry: os.DirEntry[str], folder: _Folder) -> _Kind:
        """What the walk does with an entry."""
        try:
            if entry.is_dir(follow_symlinks=False):
                return _FOLDER
            if refused := folder.refuses(entry.name):
                return refused
            if entry.is_symlink():
                kind = self._kind_of_link(entry.path, folder.below(entry.name), top=not folder.parts)
            else:
                kind = _FILE if entry.is_file(follow_symlinks=False) else (Reason.NOT_A_CLIP, "not a regular file")
            if kind is _FILE and not os.access(entry.path, os.R_OK):
                Path(entry.path).stat()
                return Reason.UNREADABLE, "the file cannot be read: Permission denied"
            return kind
        except FileNotFoundError:  # a link whose target is absent; a reader can know the file by its name
            return _FILE
        except OSError as error:
            return Reason.UNREADABLE, f"it cannot be read: {error.strerror}"

    def _kind_of_link(self, path: str, shown: str, top: bool) -> _Kind:
        target = os.path.realpath(path)
        kind = stat.S_IFMT(_mode(path))
        if kind == stat.S_IFLNK:
            return Reason.NOT_A_CLIP, "a link that leads to itself"
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            return Reason.NOT_A_CLIP, "a link to something that is not a regular file"
        if kind != stat.S_IFDIR and any(_holds(real, target) for real in self.read):
            return _FILE
        if kind == stat.S_IFDIR:
            if _holds(target, self.root):
                return Reason.NOT_A_CLIP, "a link to a folder that holds this folder; not followed"
            if name := self._read_as(target):
                return Reason.NOT_A_CLIP, f"a link to a folder that is read as {name}"
        if not top:
            where = "to a folder" if kind == stat.S_IFDIR else "that leaves the folder"
            return Reason.NOT_A_CLIP, f"a link {where}; not followed, because it is not directly in ROOT"
        if not self.follow:
            self.left.append(shown)
            return Reason.NOT_A_CLIP, LINK_LEFT
        if kind == 0:
            return Reason.MISSING_FILE, "a link to a file or folder that does not exist"
        if kind == stat.S_IFDIR:
            self.read[target] = shown
            return _FOLDER
        return _FILE

    def _read_as(self, target: str) -> str | None:
        """The printable name below the root by which the walk reads the folder `target`, or None."""
        for real, name in self.read.items():
            inside = target[len(real) :].strip(os.sep) if _holds(real, target) else None
            if inside is not None and not hidden((*Path(inside).parts, "x")):
                return printable(f"{name}/{inside}".strip("/"))
        return None


def _mode(path: str) -> int:
    """The mode of a link's target. 0: it does not exist. S_IFLNK: the link leads to itself."""
    try:
        return Path(path).stat().st_mode
    except FileNotFoundError:
        return 0
    except OSError as error:
        if error.errno == errno.ELOOP:
            return stat.S_IFLNK
        raise


def _holds(folder: str, path: str) -> bool:
    """Whether the folder is `path`, or `path` is inside it. Both paths are real."""
    return path == folder or path.startswith(folder.rstrip(os.sep) + os.sep)


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

    Raises ClipError if the file cannot be read or is larger than a text.
    """
    return read_source(source, _LONGEST_TEXT).decode("utf-8-sig", errors="replace")
