"""A stand-in for `process_clip` that draws a clip from the bytes of its files, so that tests decode nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cmet_pipelines.shard_files import set_digests
from cmet_pipelines.shards import ShardSet
from cmet_pipelines.source_files import relative_path
from talking_face.clip import Clip
from talking_face.reasons import ClipError, Reason
from tests.cmet_eval.conftest import CODEC, make_record

__all__ = ["CODEC", "FONT", "draw", "read_frames_of"]

FONT = "/opt/home-of-SECRET/fonts/a.ttf"  # in the message of a dropped clip


def draw(clip: Clip, _: object, root: str, sha256: str, *__: object, **___: object) -> dict[str, Any]:
    """A record of six frames that depends on the bytes of the picture and of the sound.

    Raises ClipError for a picture of the bytes `bad`.
    """
    picture, sound = (Path(source.path).read_bytes() if source else b"" for source in (clip.video, clip.audio))
    if picture == b"bad":
        raise ClipError(Reason.NO_FACE, f"no face in {clip.video}, with fonts of {FONT}")
    labels = {name: getattr(clip, name) for name in ("clip_id", "speaker", "emotion", "take", "split")}
    labels |= {"source": relative_path(clip.video, root), "source_sha256": sha256}
    labels |= {"audio_source": relative_path(clip.audio, root) if clip.audio else None}
    record = make_record(sum(picture) + 7 * sum(sound), 6, **labels)
    set_digests(record)
    return record


def read_frames_of(folder: str) -> int:
    """A task: reads the frames of every clip of a shard set; the number of clips."""
    shards = ShardSet(folder)
    return sum(len(shards.frames(clip_id)) > 0 for clip_id in shards.clips["clip_id"])
