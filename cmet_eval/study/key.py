"""The key of a study, key.json, states which file shows which pair and method. Raters must not see this file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter, ValidationError

from talking_face.reasons import UserError
from talking_face.sealed import Damaged, read_sealed_json, write_sealed_json
from talking_face.signature import digest

Kind = Literal["rating", "pairwise"]
FILE = "key.json"
VERSION = 3


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
    questions: list[str]  # keys of the questions of each page
    scale: tuple[int, int]  # the lowest and the highest answer
    videos: dict[str, tuple[str, str]] = field(default_factory=dict)  # file -> (pair_id, method)
    # file -> SHA-256 of the method's video that it is a copy of; empty in studies of version 2
    originals: dict[str, str] = field(default_factory=dict)


def read_key(folder: Path) -> StudyKey:
    """The key in a study's folder.

    Raises:
        UserError: the file is absent or cannot be read.
        Damaged: the file is damaged, or of another version.
    """
    path = folder / FILE
    remedy = "restore your copy of it: without it, the answers cannot be analysed"
    try:
        key = TypeAdapter(StudyKey).validate_python(read_sealed_json(path, remedy))
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); `study make` writes it with the study") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise Damaged(path, f"{'.'.join(map(str, first['loc']))}: {first['msg']}", remedy) from None
    shown, planned = list(key.videos.values()), {(pair, method) for pair in key.pairs for method in key.methods}
    # A stopped `study make` leaves a key without videos.
    if shown and (len(set(shown)) != len(shown) or set(shown) != planned):
        raise Damaged(path, "its videos are not one video of each pair and method", remedy)
    return key


def plan_digest(key: StudyKey, pages: Sequence[Sequence[str]]) -> str:
    """The digest of a rater's plan, which the rater's file states.

    Args:
        key: the study's key.
        pages: the files of the videos of each page, in the order in which the rater sees them.
    """
    return digest([key.study, key.design, key.questions, list(key.scale), [list(page) for page in pages]])


def write_key(folder: Path, key: StudyKey) -> None:
    """Writes the key into a study's folder."""
    write_sealed_json(folder / FILE, asdict(key), durable=True)
