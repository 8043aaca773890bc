"""The answers of metrics to degraded clips, and the file values.csv, which stores the answers.

An answer is the value of a metric on a degraded clip.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from cmet_eval.calibration.degradations import Step
from talking_face.files import write_text
from talking_face.reasons import UserError
from talking_face.user_files import CsvRow, number, read_csv

# Names in the column `degradation`.
BASE = "none"  # the clip without degradation, encoded as this suite encodes generated videos
STAND_IN = "stand-in"  # a plausible output of a method, on which noise is measured
EVALUATOR = "evaluator"  # noise that comes from training an evaluator with another seed
NO_STEP = ""
SOUND_ONLY = "-sound"  # suffix of the group's name for clips of which only the sound was shifted
NOT_MAKEABLE = "not-makeable"  # stored as the reason if the degradation is impossible for a clip
_NUMBERS = ("value", "offset")
_COLUMNS = ("metric", "degradation", "step", "group", "clip", "value", "reason", "offset")


@dataclass(frozen=True)
class Answer:
    """The answer of one metric to one degraded clip: a value, or the reason why there is no value."""

    metric: str
    degradation: str  # a name of DEGRADATIONS, BASE, STAND_IN, or STAND_IN+NOISE such as "stand-in+move"
    step: str
    group: str  # kind of clips: "embedded" or "real", with or without the suffix SOUND_ONLY
    clip: str
    value: float | None
    reason: str
    offset: float | None  # measured offset between sound and pictures, signed, in frames; None for other metrics


def label(step: Step) -> str:
    """The text of a step in the tables."""
    return step if isinstance(step, str) else f"{step:g}"


def groups(answers: Sequence[Answer]) -> list[str]:
    """The sorted groups of clips whose pictures were degraded. Groups with the suffix SOUND_ONLY are left out."""
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
    """Reads the answers in a values.csv, so that tables and plots can be created again without the videos.

    Raises:
        UserError: the file is not a values.csv. The message names the line.
    """
    rows = read_csv(path, "table of values", _COLUMNS)
    return [_answer(row, f"{path}, line {row.line}") for row in rows]


def _answer(row: CsvRow, where: str) -> Answer:
    texts = {name: row.cells[name] for name in ("metric", "degradation", "step", "group", "clip", "reason")}
    for name, text in texts.items():
        if (not text and name not in ("step", "reason")) or not text.isprintable():
            raise UserError(f"{where}: {name} is empty or cannot be printed")
    value, offset = (number(text, f"{where}: {name}") if (text := row.cells[name]) else None for name in _NUMBERS)
    if (value is None) != bool(texts["reason"]):
        raise UserError(f"{where}: the row needs a value or a reason, and not both")
    return Answer(**texts, value=value, offset=offset)


def write_csv(path: Path, rows: Sequence[Mapping[str, str]]) -> Path:
    """Writes rows with the same columns as a CSV file; returns the path."""
    buffer = io.StringIO()
    if rows:
        table = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)
    write_text(path, buffer.getvalue())
    return path
