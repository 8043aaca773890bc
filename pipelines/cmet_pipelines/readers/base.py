"""What all readers share: their options and result, and a walk that stays inside the root (tars: archives.py)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from talking_face.clip import Clip, MediaSource
from talking_face.media.source import open_source
from talking_face.reasons import Reason

_VIDEO = "mp4 m4v mov mkv webm avi flv f4v mpg mpeg vob ts m2ts mts wmv asf 3gp 3g2 ogv mxf dv y4m rm nut gif"
_AUDIO = "m4a wav aac mp3 flac ogg opus wma aif aiff ac3 mka"
VIDEO_SUFFIXES = frozenset(f".{name}" for name in _VIDEO.split(" "))
AUDIO_SUFFIXES = frozenset(f".{name}" for name in _AUDIO.split(" "))

HIDDEN_FOLDERS = frozenset({"_truth", "__MACOSX"})


@dataclass(frozen=True)
class Skipped:
    """A file under the root that gives no clip, and why; `archive!member` in a tar.

    `clip` is the clip that it is, where a table of known defects, a list or an option leaves it out.
    """

    path: str
    reason: Reason
    detail: str
    clip: Clip | None = None


@dataclass(frozen=True)
class ReaderOptions:
    """What a user may say about discovery. Every reader takes all of these and uses what means something to it."""

    view: str = "front"  # MEAD: a view's name, or "all"
    labels: Path | None = None  # clips: CSV of labels; meld: its CSVs, or the folder that holds them
    numbering: str | None = None  # MEAD: the scheme by which a file's number names its sentence; None: it names none
    emotion_label: str = "intended"  # CREMA-D: "intended", or "voted" by the people who watched
    subset: str = "all"  # LRS2: "main", "pretrain" or "all"
    defects: bool = True  # leave out the clips that pipelines/cmet_pipelines/defects names


@dataclass
class Discovery:
    """What a reader found. Every file under the root is the video or the sound of a clip, or in `skipped`."""

    clips: list[Clip] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)  # lines for the user: the layout recognised, defaults taken

    def skip(self, path: str, reason: Reason, detail: str) -> None:
        """Records a file that is no clip."""
        self.skipped.append(Skipped(path, reason, detail))

    def exclude(self, clip: Clip, reason: Reason, detail: str) -> None:
        """Records a clip that is left out though its files are there."""
        self.skipped.append(Skipped(str(clip.video), reason, detail, clip))

    def finish(self) -> Discovery:
        """Sorts, and moves the second and later clips of one id into `skipped`."""
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
class Found:
    """One file in reach, on disk or inside a tar. `parts`: its path below the root; a tar counts as its folder."""

    name: str  # relative to the root, with `!member`
    parts: tuple[str, ...]
    source: MediaSource


def walk(root: Path, into: Discovery) -> Iterator[Found]:
    """Every file under `root` in sorted order. Hidden files and links that leave the root go into `into.skipped`.

    `root` must be resolved. Links to folders are not followed.
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
                yield Found(shown, relative.parts, MediaSource(str(path)))


def hidden(parts: tuple[str, ...]) -> str | None:
    """Why a file of this path below the root is passed by, or None."""
    if parts[-1].startswith("._"):
        return "an AppleDouble file, not media"
    if any(part.startswith(".") for part in parts):
        return "a hidden file"
    if any(part in HIDDEN_FOLDERS for part in parts[:-1]):
        return "a side file of the corpus, not a clip"
    return None


def read_text(source: MediaSource) -> str:
    """A small text file, on disk or in a tar; bytes that are no UTF-8 become U+FFFD. Raises ClipError."""
    with open_source(source) as opened:
        data = Path(opened).read_bytes() if isinstance(opened, str) else opened.read()
    return data.decode("utf-8-sig", errors="replace")
