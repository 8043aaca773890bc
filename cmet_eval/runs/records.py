"""The JSON records of a run: how one video was generated, and the scores of one video.

The readers check every field. For a record that is absent, unreadable or of another form they return None, so that it
is made again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from talking_face.files import read_json, write_json

T = TypeVar("T")


@dataclass(frozen=True)
class Timing:
    """How long the generation of one video took, and on which machine."""

    seconds: float  # time from the case to the frames
    reading: float  # part of `seconds` in which inputs were read from the shards
    warm: bool  # false for the first video of a process
    hardware: str
    workers: int  # number of processes that could run at the same time; 0: unknown


@dataclass(frozen=True)
class GenerationRecord:
    """How one video was generated."""

    method: str
    revision: str
    n_frames: int
    key: str = ""  # digest of everything the video depends on
    pair_id: str = ""
    codec: str = ""
    n_frames_wanted: int = 0
    notes: list[str] = field(default_factory=list)  # the method's notes on this video
    video_sha256: str = ""
    timing: Timing | None = None  # None in records that other versions of the suite wrote


@dataclass(frozen=True)
class StoredScore:
    """The score of one metric: a value, or a reason and no value."""

    metric: str  # key, `name:variant`
    value: float | None
    reason: str | None
    detail: str
    n: int  # number of units (frames) from which the value was computed
    stats: dict[str, float]


@dataclass(frozen=True)
class VideoScores:
    """The scores of one video, as they are stored."""

    key: str  # digest of everything the scores depend on
    codec: str  # codec of the video file
    notes: list[str]  # how the video was changed before scoring, such as resampling
    video_sha256: str
    scores: list[StoredScore]

    @property
    def by_metric(self) -> Mapping[str, StoredScore]:
        """The scores by the metrics' keys."""
        return {score.metric: score for score in self.scores}


def write_record(path: Path, record: GenerationRecord | VideoScores) -> None:
    """Writes a record as JSON by an atomic rename."""
    write_json(path, asdict(record))


def read_generation(path: Path) -> GenerationRecord | None:
    """The generation record in a file; None if the file has no valid record."""
    return _read(path, _GENERATION)


def read_scores(path: Path) -> VideoScores | None:
    """The scores in a file; None if the file has no valid scores."""
    return _read(path, _SCORES)


_GENERATION = TypeAdapter(GenerationRecord)
_SCORES = TypeAdapter(VideoScores)


def _read(path: Path, form: TypeAdapter[T]) -> T | None:
    try:
        return form.validate_python(read_json(path))
    except ValidationError:
        return None
