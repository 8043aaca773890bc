"""The stored scores of one video: a sealed JSON file whose fields are checked when it is read.

A command removes a damaged file, prints one line about it, and computes the scores again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from pydantic import AfterValidator, Field, FiniteFloat, TypeAdapter, ValidationError

from talking_face.names import Label, storable
from talking_face.reasons import Reason
from talking_face.sealed import Damaged, discard, read_sealed_json, write_sealed_json

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

T = TypeVar("T")
_REMEDY = "the command that wrote it makes it again"


def _check_text(text: str) -> str:
    if text != storable(text):
        raise ValueError("it is too long, has folders, or cannot be printed")
    return text


Text = Annotated[str, AfterValidator(_check_text)]  # a text that `storable` does not change
Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]  # SHA-256
Count = Annotated[int, Field(ge=0)]


@dataclass(frozen=True)
class StoredScore:
    """The score of one metric: either a value or a reason code."""

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
class StoredFraming:
    """How the face of a video differs from its ground truth over the whole clip; see `cmet_metrics.registration`."""

    right: FiniteFloat  # distances between the eyes of the ground truth
    down: FiniteFloat
    scale: Annotated[float, Field(gt=0, allow_inf_nan=False)]  # generated head / real head


@dataclass(frozen=True)
class VideoScores:
    """The stored scores of one video."""

    key: Text  # digest of everything that the scores depend on
    codec: Text  # codec of the video file
    notes: list[Text]  # changes of the video before scoring, for example resampling
    video_sha256: Hash
    scores: list[StoredScore]
    framing: StoredFraming | None = None  # None: it was not measured

    @property
    def by_metric(self) -> Mapping[str, StoredScore]:
        """Key of a metric -> its score."""
        return {score.metric: score for score in self.scores}


def write_record(path: Path, record: DataclassInstance) -> None:
    """Writes a record as JSON with a digest by an atomic rename."""
    write_sealed_json(path, asdict(record))


def usable_scores(path: Path) -> VideoScores | None:
    """The scores in a file; None if the file is absent or damaged. A damaged file is removed with a message."""
    return usable_record(path, _SCORES)


def current_scores(path: Path, key: str) -> VideoScores | None:
    """The scores that an earlier run stored with the same key; None if there are no such scores.

    Also None if a weight file was absent, a metric crashed, or the memory was not enough in the earlier run: since
    then, the user can have added the file, repaired the metric, or stopped another program.
    """
    stored = usable_scores(path)
    if stored is None or stored.key != key:
        return None
    again = (Reason.MISSING_WEIGHTS, Reason.CRASHED, Reason.OUT_OF_MEMORY)
    return None if any(score.reason in again for score in stored.scores) else stored


def usable_record(path: Path, form: TypeAdapter[T]) -> T | None:
    """The record in a file; None if the file is absent or damaged. A damaged file is removed with a message."""
    try:
        return read_record(path, form)
    except Damaged as error:
        discard(error)
        return None


def read_record(path: Path, form: TypeAdapter[T]) -> T | None:
    """The record in a file; None if the file is absent.

    Raises:
        Damaged: the file is not what was written, or has no valid record.
    """
    try:
        return form.validate_python(read_sealed_json(path, _REMEDY))
    except FileNotFoundError:
        return None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise Damaged(path, f"{where}: {first['msg']}", _REMEDY) from None


_SCORES = TypeAdapter(VideoScores)
