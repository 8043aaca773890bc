"""The generation record of a video: how one video was generated, in a sealed JSON file.

Every field is checked when a file is read. A run removes a damaged file, prints one line about it, and generates the
video again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import FiniteFloat, TypeAdapter

from cmet_eval.measuring.score_records import Count, Hash, Text, read_record, usable_record
from talking_face.names import Id, Label, Name


@dataclass(frozen=True)
class Timing:
    """How long the generation of one video took, and on which machine."""

    seconds: FiniteFloat  # time from the creation of the method to the last frame
    reading: FiniteFloat  # part of `seconds` in which inputs were read from the shards
    warm: bool  # false for the first video that the method generates in a process
    hardware: Text
    workers: Count  # number of processes that could run at the same time; 0: unknown


@dataclass(frozen=True)
class GenerationRecord:
    """How one video was generated."""

    method: Name
    revision: Label
    n_frames: Count
    key: Text  # digest of everything that the video depends on
    pair_id: Id
    codec: Text
    n_frames_wanted: Count
    video_sha256: Hash
    notes: list[Text] = field(default_factory=list)  # the method's notes on this video
    timing: Timing | None = None  # None in records that other versions of the suite wrote


def read_generation(path: Path) -> GenerationRecord | None:
    """The generation record in a file; None if the file is absent.

    Raises:
        Damaged: the file is not what was written, or has no valid record.
    """
    return read_record(path, _GENERATION)


def usable_generation(path: Path) -> GenerationRecord | None:
    """The generation record in a file; None if it is absent or damaged. A damaged file is removed with a message."""
    return usable_record(path, _GENERATION)


_GENERATION = TypeAdapter(GenerationRecord)
