"""Defines a result row, the keys that the rows of one table share, and the names that a setting can have.

This module imports no PyArrow, so `measure` makes rows without it. `results` stores rows in Parquet files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from talking_face.names import check_name

# Rows that differ in one of these keys are never in the same table.
TABLE_KEYS = (
    "setting",
    "rules",
    "dataset",
    "origin",
    "data_digest",
    "data_signature",
    "pairs_digest",
    "profile",
    "suite_version",
)
BOARD_FILES = ("board", "index", "board.schema")  # names that a setting must not have: files of every board


@dataclass(frozen=True, kw_only=True)
class ResultRow:
    """The result of one metric for one pair of one method. The fields are the columns of the Parquet files."""

    setting: str
    method: str
    revision: str
    pair_id: str
    seed: int | None
    speaker: str | None
    reference_emotion: str | None
    target_emotion: str | None
    intensity: int | None
    ground_truth_clip: str | None
    metric: str  # name:variant
    signature: str  # the metric's signature
    higher_is_better: bool
    ideal: float | None = None  # the best value, for example 1, if it is neither the highest nor the lowest; else null
    unit: str
    value: float | None  # null if there is a reason
    reason: str | None  # talking_face.reasons.Reason
    detail: str
    n: int  # number of frames (or other units of the metric) in the value
    stats: Mapping[str, float]  # sums, from which pooled metrics are computed
    notes: str  # changes to the video: truncated, last frame repeated, resampled
    codec: str  # codec of the scored video file
    video_sha256: str | None
    dataset: str
    data_digest: str
    data_signature: str
    pairs_digest: str
    rules: str  # digest of the setting's rules
    profile: str  # evaluator profile: embedded | paper
    suite_version: str
    origin: str = "unknown"  # talking_face.origin.Origin: whether the data are drawn or recorded

    @classmethod
    def of(cls, stored: Mapping[str, Any]) -> ResultRow:
        """The row from a mapping with these keys. `stats` is a mapping or, as Arrow returns it, a list of pairs."""
        return cls(**{**stored, "stats": dict(stored["stats"] or ())})


def check_setting_name(text: str) -> str:
    """Checks that a text can be the name of a setting, and returns the text. The names in `BOARD_FILES` are refused.

    Raises ValueError for other text.
    """
    if check_name(text).lower() in BOARD_FILES:
        raise ValueError(f"{text!r} is the name of a file of every board; choose another name")
    return text
