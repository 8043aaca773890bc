"""The JSON records of a run: how one video was generated, and the scores of one video.

Each file has a digest of its content, and every field is checked when a file is read. A run removes a damaged file,
prints one line about it, and computes the video or the scores again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError

from talking_face.names import Id, Label, Name, storable
from talking_face.reasons import Reason
from talking_face.sealed import Damaged, discard, read_sealed_json, write_sealed_json

T = TypeVar("T")
_REMEDY = "cmet-eval run or score makes it again"


def _check_text(text: str) -> str:
    if text != storable(text):
        raise ValueError("it is too long, has folders, or cannot be printed")
    return text


Text = Annotated[str, AfterValidator(_check_text)]  # a text that `storable` does not change
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256
Count = Annotated[int, Field(ge=0)]


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


@dataclass(frozen=True)
class StoredScore:
    """The score of one metric: a value, or the reason why there is no value."""

    metric: Label  # key, `name:variant`
    value: FiniteFloat | None
    reason: Reason | None
    detail: Text
    n: Count  # number of units (frames) from which the value was computed
    stats: dict[str, FiniteFloat]

    def __post_init__(self) -> None:
        if (self.value is None) == (self.reason is None):
            raise ValueError(f"a score has a value or a reason, got {self.value} and {self.reason}")


@dataclass(frozen=True)
class VideoScores:
    """The stored scores of one video."""

    key: Text  # digest of everything that the scores depend on
    codec: Text  # codec of the video file
    notes: list[Text]  # changes of the video before scoring, for example resampling
    video_sha256: Hash
    scores: list[StoredScore]

    @property
    def by_metric(self) -> Mapping[str, StoredScore]:
        """Key of a metric -> its score."""
        return {score.metric: score for score in self.scores}


def write_record(path: Path, record: GenerationRecord | VideoScores) -> None:
    """Writes a record as JSON with a digest by an atomic rename."""
    write_sealed_json(path, asdict(record))


def read_generation(path: Path) -> GenerationRecord | None:
    """The generation record in a file; None if the file is absent.

    Raises:
        Damaged: the file is not what was written, or has no valid record.
    """
    return _read(path, _GENERATION)


def usable_generation(path: Path) -> GenerationRecord | None:
    """The generation record in a file; None if it is absent or damaged. A damaged file is removed with a message."""
    return _usable(path, _GENERATION)


def usable_scores(path: Path) -> VideoScores | None:
    """The scores in a file; None if the file is absent or damaged. A damaged file is removed with a message."""
    return _usable(path, _SCORES)


_GENERATION = TypeAdapter(GenerationRecord)
_SCORES = TypeAdapter(VideoScores)


def _usable(path: Path, form: TypeAdapter[T]) -> T | None:
    try:
        return _read(path, form)
    except Damaged as error:
        discard(error)
        return None


def _read(path: Path, form: TypeAdapter[T]) -> T | None:
    try:
        return form.validate_python(read_sealed_json(path, _REMEDY))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Damaged(path, f"{where}: {first['msg']}", _REMEDY) from None
