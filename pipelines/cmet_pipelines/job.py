"""Plans one preprocessing job: finds and selects the clips, and defines the names of the shards."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from cmet_pipelines import clip_ids, lists, readers, splits
from cmet_pipelines.frames_codec import get_codec
from cmet_pipelines.processing import ProcessingSettings
from cmet_pipelines.readers import Discovery, ReaderOptions, Skipped
from cmet_pipelines.shard_files import clips_per_shard, plan
from cmet_pipelines.source_files import relative_path
from talking_face.clip import Clip
from talking_face.pretrained.model_files import ModelFiles
from talking_face.reasons import Reason, UserError
from talking_face.signature import digest

STAGING = ".staging"


@dataclass(frozen=True)
class Job:
    """The task of one run: the clips, the settings and the output folder."""

    dataset: str
    root: Path  # resolved folder of the dataset
    out: Path
    settings: ProcessingSettings
    content: dict[str, object]  # settings and options that change the content of the shards, JSON-ready
    clips: Sequence[Clip]
    skipped: Sequence[Skipped]
    preset: str  # name of the split
    notes: list[str]  # lines for the user
    files: ModelFiles  # the folders of the face networks' files

    @cached_property
    def by_id(self) -> dict[str, Clip]:
        """The clips by clip_id."""
        return {clip.clip_id: clip for clip in self.clips}

    @cached_property
    def key(self) -> str:
        """Hash of `content`, 8 hex digits. The file name of every shard begins with this hash."""
        return digest(self.content, 8)

    @cached_property
    def entries(self) -> dict[str, str]:
        """For every clip_id, a digest of the clip's labels and of the names of its picture and sound files.

        Transcripts, rows of label files and lists are labels here: their content is in the digest.
        """
        return {clip.clip_id: digest(clip_labels(clip) | self._names(clip), 16) for clip in self.clips}

    @cached_property
    def manifest(self) -> str:
        """Digest of the entries of all clips."""
        return digest(self.entries)

    @cached_property
    def shards(self) -> list[list[str]]:
        """The clip ids of each shard."""
        return plan(list(self.by_id), clips_per_shard(self.settings.size, get_codec(self.settings.codec)))

    @property
    def staging(self) -> Path:
        """Folder of the finished clips whose shard is not written yet. It does not depend on the selected clips."""
        return self.out / STAGING / self.key

    def shard_name(self, index: int) -> str:
        """File name of a shard."""
        return f"{self.key}-{self.manifest[:8]}-{index:05d}.parquet"

    def relative(self, clip: Clip) -> str:
        """The path of the clip's video, relative to the root."""
        return relative_path(clip.video, str(self.root))

    def _names(self, clip: Clip) -> dict[str, str | None]:
        sound = relative_path(clip.audio, str(self.root)) if clip.audio is not None else None
        return {"source": self.relative(clip), "audio_source": sound}


def plan_job(
    dataset: str,
    root: Path,
    out: Path,
    settings: ProcessingSettings,
    options: ReaderOptions,
    limit: int | None = None,
    *,
    files: ModelFiles,
) -> Job:
    """Finds the clips under `root`, assigns splits, and selects clips by `settings.clips` and by `limit`.

    Raises UserError for wrong arguments; the docstring of `cmet_pipelines.preprocess.preprocess` lists the cases.
    """
    found = readers.discover(dataset, root, options, defects=settings.defects)
    root = root.resolve()
    if Path(os.path.realpath(out)).is_relative_to(root):  # Path.resolve fails for a link that leads to itself
        raise UserError(f"{out} is inside {root}; write shards outside the dataset, which is never changed")
    preset = splits.resolve(settings.split, dataset, found.clips)
    clips = splits.assign(preset, found.clips)
    notes = [*found.notes, f"split: {preset}"]
    if settings.clips is not None:
        clips = _only_listed(settings.clips, clips, found, notes)
    if limit is not None and limit < len(clips):
        notes.append(f"only the first {limit} of {len(clips)} clips, as asked")
        clips = _leave_out(clips, clips[:limit], f"not of the first {limit} clips", found)
    readers.name_below(root, found)
    content = settings.content(dataset, options)
    return Job(dataset, root, out, settings, content, clips, found.skipped, preset, notes, files)


def _only_listed(name_or_file: str, clips: list[Clip], found: Discovery, notes: list[str]) -> list[Clip]:
    named, absent = lists.select(name_or_file, clips)
    taken = _leave_out(clips, named, f"not in {lists.shown(name_or_file)}", found)
    notes.append(f"only the {len(taken)} clips of {lists.shown(name_or_file)}, as asked")
    if absent:
        notes.append(f"{lists.shown(name_or_file)}: {clip_ids.absent_rows(absent)}")
    return taken


def _leave_out(clips: list[Clip], taken: list[Clip], why: str, found: Discovery) -> list[Clip]:
    """Returns `taken`, and adds the other clips to `found.skipped` with the reason `why`."""
    asked = {clip.clip_id for clip in taken}
    for clip in clips:
        if clip.clip_id not in asked:
            found.exclude(clip, Reason.NOT_ASKED, why)
    found.skipped.sort(key=lambda skip: (skip.path, skip.detail))
    return taken


def clip_labels(clip: Clip) -> dict[str, object]:
    """All labels of a clip, by name."""
    names = ("clip_id", "speaker", "emotion", "emotion_voted", "intensity", "take", "view")
    return {name: getattr(clip, name) for name in (*names, "sentence_id", "transcript", "split")}


def skipped_digest(skipped: Sequence[Skipped]) -> str:
    """Digest of the paths and reasons of the skipped files and of the clips that are left out."""
    return digest([[skip.path, skip.reason.value] for skip in skipped])
