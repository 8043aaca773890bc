"""The key of a study, key.json, states which file shows which pair and method. Raters must not see this file."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from talking_face.files import write_json
from talking_face.reasons import UserError

Kind = Literal["rating", "pairwise"]
FILE = "key.json"


@dataclass(frozen=True)
class StudyKey:
    """The content of a study, and the secret from which the file names are computed."""

    version: int
    design: Kind
    setting: str
    pairs_digest: str
    methods: list[str]
    pairs: list[str]  # ids of the pairs
    raters: int
    per_rater: int  # videos, or pairs of videos, per rater
    seed: int
    salt: str  # the secret; file names are hashes that include the salt, so that raters cannot guess the method
    study: str  # the study's id, which is also stored in every rater's file
    videos: dict[str, tuple[str, str]] = field(default_factory=dict)  # file -> (pair_id, method)


def read_key(folder: Path) -> StudyKey:
    """The key in a study's folder. Raises UserError if key.json is absent or damaged."""
    path = folder / FILE
    try:
        return TypeAdapter(StudyKey).validate_json(path.read_text("utf-8"))
    except (OSError, ValidationError):
        raise UserError(f"{path} is absent or cannot be read; it was written with the study") from None


def write_key(folder: Path, key: StudyKey) -> None:
    """Writes the key into a study's folder."""
    write_json(folder / FILE, asdict(key))
