"""The answers of metrics to degraded clips, and their file values.csv. An answer is a metric's value on a clip."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.calibration.degradations import Step
from talking_face.files import write_text

# Names in the column `degradation`.
BASE = "none"  # the clip as this suite writes it
STAND_IN = "stand-in"  # a plausible output of a method, on which noise is measured
EVALUATOR = "evaluator"  # the noise of training an evaluator with another seed
NO_STEP = ""
SOUND_ONLY = "-sound"  # suffix of the group's name for clips whose sound was shifted and nothing else
NOT_MAKEABLE = "not-makeable"  # stored as the reason if a clip cannot be degraded in this way


@dataclass(frozen=True)
class Answer:
    """One metric's answer to one degraded clip: a value, or a reason and no number."""

    metric: str
    degradation: str  # a name of DEGRADATIONS, BASE, STAND_IN, or STAND_IN+NOISE such as "stand-in+move"
    step: str
    group: str  # kind of clips: "embedded" or "real", with or without the suffix SOUND_ONLY
    clip: str
    value: float | None
    reason: str
    offset: float | None  # signed, in frames; only for metrics that measure an offset


def label(step: Step) -> str:
    """The text of a step in the tables."""
    return step if isinstance(step, str) else f"{step:g}"


def groups(answers: Sequence[Answer]) -> list[str]:
    """The groups of clips whose pictures were degraded, sorted: all groups without the suffix SOUND_ONLY."""
    return sorted({a.group for a in answers if not a.group.endswith(SOUND_ONLY)})


def write_values(out: Path, answers: Sequence[Answer]) -> Path:
    """Writes values.csv in the folder `out`; returns its path."""
    values = [
        {
            "metric": a.metric,
            "degradation": a.degradation,
            "step": a.step,
            "group": a.group,
            "clip": a.clip,
            "value": "" if a.value is None else f"{a.value:.6g}",
            "reason": a.reason,
            "offset": "" if a.offset is None else f"{a.offset:g}",
        }
        for a in answers
    ]
    return write_csv(out / "values.csv", values)


def read_values(path: Path) -> list[Answer]:
    """The answers of a values.csv, so that tables and plots can be made again without the videos.

    Raises KeyError, ValueError or OSError if the file is not a values.csv.
    """
    with path.open(newline="", encoding="utf-8") as file:
        return [
            Answer(
                **{name: row[name] for name in ("metric", "degradation", "step", "group", "clip", "reason")},
                value=float(row["value"]) if row["value"] else None,
                offset=float(row["offset"]) if row["offset"] else None,
            )
            for row in csv.DictReader(file)
        ]


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Writes rows of the same columns as CSV; returns the path."""
    buffer = io.StringIO()
    if rows:
        table = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    write_text(path, buffer.getvalue())
    return path
