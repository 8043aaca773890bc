"""The JSON records of a run: how one video was generated, and the scores of one video.

`read_generation` and `read_scores` check every field. If a record is absent, damaged or has other fields, they return
None. The run then computes the video or the scores again.
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

    seconds: float  # time from the creation of the method to the last frame
    reading: float  # part of `seconds` in which inputs were read from the shards
    warm: bool  # false for the first video that the method generates in a process
    hardware: str
    workers: int  # number of processes that could run at the same time; 0: unknown


@dataclass(frozen=True)
class GenerationRecord:
    """How one video was generated."""

    method: str
    revision: str
    n_frames: int
    key: str = ""  # digest of everything that the video depends on
    pair_id: str = ""
    codec: str = ""
    n_frames_wanted: int = 0
    notes: list[str] = field(default_factory=list)  # the method's notes on this video
    video_sha256: str = ""
    timing: Timing | None = None  # None in records that other versions of the suite wrote


@dataclass(frozen=True)
class StoredScore:
    """The score of one metric: a value, or the reason why there is no value."""

    metric: str  # key, `name:variant`
    value: float | None
    reason: str | None
    detail: str
    n: int  # number of units (frames) from which the value was computed
    stats: dict[str, float]


@dataclass(frozen=True)
class VideoScores:
    """The stored scores of one video."""

    key: str  # digest of everything that the scores depend on
    codec: str  # codec of the video file
    notes: list[str]  # changes of the video before scoring, for example resampling
    video_sha256: str
    scores: list[StoredScore]

    @property
    def by_metric(self) -> Mapping[str, StoredScore]:
        """Key of a metric -> its score."""
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
