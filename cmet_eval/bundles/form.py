"""Defines a bundle: its files, its limits, the fields of `bundle.json`, and the faults for which it is refused.

    bundle.json                    method, environment, tables, and the SHA-256 of every other file
    tables/01/pairs.csv            the pair list of the first table
    tables/01/videos.csv           the SHA-256 of every video
    tables/01/values.csv           one row per pair and metric: a value or a reason
    tables/01/sample/PAIR.mp4      the videos that the digest of the pair list chooses

All files except the videos are text, so a bundle is readable as a diff. No text of a bundle is used as a path: the
names of all files follow from the number of tables and from the pair lists.
"""

from __future__ import annotations

import json
import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, FiniteFloat

from cmet_leaderboards.row import TABLE_KEYS
from talking_face.names import Label, Name, printable
from talking_face.reasons import UserError
from talking_face.sealed import sealed

FORMAT = "cmet-eval-bundle-1"
MANIFEST = "bundle.json"
PAIRS, VIDEOS, VALUES, SAMPLE = "pairs.csv", "videos.csv", "values.csv", "sample"
TABLE_FILES = (PAIRS, VIDEOS, VALUES)
# Columns of a pair's row in videos.csv, and of a row in values.csv. `metric` is an index of the table's metrics.
VIDEO_COLUMNS = ("pair", "sha256", "suffix", "codec")
VALUE_COLUMNS = ("pair", "metric", "value", "reason", "detail", "n", "stats", "notes")
_IN_TABLE = "|".join([*map(re.escape, TABLE_FILES), rf"{SAMPLE}/[A-Za-z0-9_-][A-Za-z0-9._-]{{0,219}}"])
NAME_OF_FILE = re.compile(rf"{re.escape(MANIFEST)}|tables/[0-9]{{2}}/(?:{_IN_TABLE})")
SUFFIX = re.compile(r"[a-z0-9]{1,5}")  # of a video's file name

MOST_TABLES = 99
MOST_FILES = 20_000  # 5 % of 10,000 pairs in each of 40 tables
LARGEST_TEXT = 48_000_000  # bytes of a file of text; 1,143 pairs with 60 metrics have 20 MB
LARGEST_VIDEO = 256 << 20  # bytes; a minute at 1080p and 30 Mbit/s has 225 MB
LARGEST = 4_000_000_000  # bytes of all files together; a zip file of more than 4 GiB has another form
LONGEST_TEXT = 1000  # characters of one text
_TAG = re.compile(r"<\s*[A-Za-z/!?]")  # the beginning of an HTML tag or comment


class Fault(StrEnum):
    """The name of a fault. Each name is explained in docs/how_to/submit.md."""

    NOT_A_BUNDLE = "not-a-bundle"
    FUTURE_FORMAT = "future-format"
    OTHER_VERSION = "other-version"
    BAD_PATH = "bad-path"
    LINK = "link"
    TOO_MANY_FILES = "too-many-files"
    TOO_LARGE = "too-large"
    NOT_CANONICAL = "not-canonical"
    CHANGED_FILE = "changed-file"
    ABSENT_FILE = "absent-file"
    EXTRA_FILE = "extra-file"
    ABSENT_VIDEO = "absent-video"
    EXTRA_VIDEO = "extra-video"
    SWAPPED_VIDEO = "swapped-video"
    OTHER_SAMPLE = "other-sample"
    HTML = "html"
    LONG_TEXT = "long-text"
    BAD_FIELD = "bad-field"
    FOREIGN_METHOD = "foreign-method"
    DUPLICATE_METHOD = "duplicate-method"
    COPIED_VIDEOS = "copied-videos"
    EDITED_ENVIRONMENT = "edited-environment"
    FOREIGN_SETTING = "foreign-setting"
    FOREIGN_PAIRS = "foreign-pairs"
    TRAINING_CLIPS = "training-clips"
    OTHER_DATA = "other-data"
    NO_WEIGHTS = "no-weights"
    DUPLICATE_TABLE = "duplicate-table"
    DUPLICATE_PAIR = "duplicate-pair"
    UNKNOWN_PAIR = "unknown-pair"
    ABSENT_PAIR = "absent-pair"
    UNKNOWN_METRIC = "unknown-metric"
    DUPLICATE_METRIC = "duplicate-metric"
    EDITED_METRIC = "edited-metric"
    FOREIGN_METRIC = "foreign-metric"
    FOREIGN_SIGNATURE = "foreign-signature"
    NO_HASH = "no-hash"
    NOT_FINITE = "not-finite"
    OUT_OF_RANGE = "out-of-range"
    VALUE_OR_REASON = "value-or-reason"
    TRAINED_ON = "trained-on"
    EDITED_VALUE = "edited-value"


class Refused(UserError):
    """A bundle is refused. The message begins with the name of the fault and has one line."""

    def __init__(self, fault: Fault, text: str) -> None:
        super().__init__(f"{fault.value}: {printable(text)}")
        self.fault, self.text = fault, text

    def __reduce__(self) -> tuple[type[Refused], tuple[Fault, str]]:
        # By default, pickle passes only the message to the class, and `__init__` needs the two parts.
        return type(self), (self.fault, self.text)


def check_text(text: str, where: str, most: int = LONGEST_TEXT) -> str:
    """Returns the text. Raises Refused if it is too long, cannot be printed, or contains an HTML tag."""
    if len(text) > most:
        raise Refused(Fault.LONG_TEXT, f"{where} has {len(text)} characters; at most {most} are allowed")
    if not text.isprintable():
        raise Refused(Fault.BAD_FIELD, f"{where} has characters that cannot be printed: {text[:60]!r}")
    if _TAG.search(text):
        raise Refused(Fault.HTML, f"{where} contains an HTML tag: {text[:60]!r}")
    return text


def _key(value: dict[str, str]) -> dict[str, str]:
    if set(value) != set(TABLE_KEYS):
        raise ValueError(f"it has {', '.join(sorted(set(value) ^ set(TABLE_KEYS)))} too many or too few")
    return value


Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    """A part of `bundle.json`. Unknown fields are an error."""

    model_config = ConfigDict(extra="forbid", strict=True)


class MethodPart(_Part):
    """The record of the method, as `score` and `run` store it with the result rows."""

    name: Name
    revision: Label
    title: Label
    role: Literal["ceiling", "control", "floor", "method"]
    summary: str
    sees: list[Name]
    training_seed: Annotated[int, Field(ge=0, lt=2**63)] | None  # the leaderboard shows the mean over training seeds


class EnvironmentPart(_Part):
    """Where `cmet-eval submit` ran. The rows can have been scored on another machine."""

    suite: Label
    python: Annotated[str, Field(pattern=r"^3\.\d{1,2}\.\d{1,2}\S{0,10}$")]
    system: Label
    machine: Label
    packages: dict[Name, Label]

    def facts(self) -> dict[str, str]:
        """All facts in one mapping, for the records of the standing leaderboard."""
        own = {"cmet-eval": self.suite, "python": self.python, "system": self.system, "machine": self.machine}
        return {**own, **self.packages}


class MetricPart(_Part):
    """One column of a table: the facts that every row of a metric repeats."""

    metric: Label
    signature: Annotated[str, Field(min_length=1, max_length=LONGEST_TEXT)]
    higher_is_better: bool
    ideal: FiniteFloat | None
    unit: str


class TablePart(_Part):
    """One table of result rows: the fields that all its rows share, and its metrics."""

    key: Annotated[dict[str, str], AfterValidator(_key)]  # TABLE_KEYS
    command: str  # the command that reproduces the rows
    metrics: Annotated[list[MetricPart], Field(min_length=1)]


class Manifest(_Part):
    """The content of `bundle.json`, without its digest."""

    format: str
    method: MethodPart
    environment: EnvironmentPart
    tables: Annotated[list[TablePart], Field(min_length=1, max_length=MOST_TABLES)]
    files: dict[str, Sha256]  # path of each other file -> its SHA-256


def manifest_text(manifest: Manifest) -> str:
    """The text of `bundle.json`, with its digest."""
    return json.dumps(sealed(manifest.model_dump()), indent=1, ensure_ascii=False) + "\n"


def folder_of(number: int) -> str:
    """The folder of a table in a bundle. `number`: 0 for the first table."""
    return f"tables/{number + 1:02d}"


def is_video(path: str) -> bool:
    """Whether the path of a file of a bundle is that of a video."""
    return f"/{SAMPLE}/" in path


def shown(path: Path | str) -> str:
    """A path for a message: its last 80 characters, printable."""
    text = printable(str(path))
    return text if len(text) <= 80 else f"...{text[-77:]}"
