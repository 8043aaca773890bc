"""Reads the files that the raters of a study saved, and refuses answers that the study cannot have.

A file comes from outside: everything in it is checked against the study's key, from which the pages of each rater
follow. A refused answer or file is named; the others are counted.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, Field, StrictInt, TypeAdapter, ValidationError

from cmet_eval.study.key import VERSION, StudyKey, plan_digest, read_key
from cmet_eval.study.plan import Design, plan
from talking_face.files import open_regular
from talking_face.names import printable
from talking_face.reasons import UserError

_LARGEST = 4 << 20  # bytes of a rater's file; 64 pages take 16 kB


class _Page(BaseModel):
    """The answers of one page in a rater's file."""

    videos: list[str]
    values: dict[str, object]  # question -> answer


class _RaterFile(BaseModel):
    """The JSON file that a rater saved."""

    study: str
    rater: StrictInt
    plan: str = ""  # digest of the plan that the rater followed; studies of version 2 do not have it
    answers: list[object]  # each is checked as a `_Page` of its own


@dataclass(frozen=True)
class Answer:
    """One answer of one rater."""

    rater: int
    question: str
    pair: str
    methods: tuple[str, ...]  # the methods shown, from left to right
    value: int  # the rating, or the index of the preferred method


@dataclass
class Answers:
    """The answers of a study.

    Attributes:
        key: the key of the study.
        counted: the answers that can be analysed.
        refused: for each refused answer, page or file, one line with the file, the rater, the question and the cause.
        missing: number of answers that the plan has and the files of the raters do not have.
        gaps: for each page with such answers, one line with the file, the rater, the page and the questions.
        silent: the numbers, from 1, of the raters without a counted answer.
    """

    key: StudyKey
    counted: list[Answer] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    missing: int = 0
    gaps: list[str] = field(default_factory=list)
    silent: list[int] = field(default_factory=list)


class _Refused(Exception):
    """A file, page or answer cannot be counted; the message is the cause."""


def read_answers(study: Path, files: Iterable[Path]) -> Answers:
    """The answers in the files of the raters.

    Two files of one rater that differ are both refused, and so are two different answers to one page. If they are
    equal, one is counted.

    Args:
        study: folder of the study.
        files: the files of the raters.

    Raises UserError if the key of the study is absent or damaged, or the study is not complete.
    """
    answers = Answers(read_key(study))
    if len(answers.key.videos) != len(answers.key.pairs) * len(answers.key.methods):
        raise UserError(f"{study} is not complete; run the same `study make` again")
    by_rater: dict[int, dict[Path, _RaterFile]] = {}
    for file in sorted(files):
        try:
            given = _read_file(file, answers.key)
        except _Refused as cause:
            answers.refused.append(f"{printable(file.name)}: {cause}")
            continue
        by_rater.setdefault(given.rater, {})[file] = given
    for rater, copies in sorted(by_rater.items()):
        first, *others = copies
        if all(copies[other].answers == copies[first].answers for other in others):
            _Rater(answers, rater, first).add(copies[first].answers)
            refused, words = others, f"the same answers are in {printable(first.name)}"
        else:
            refused, words = [first, *others], "another file of this rater has other answers; keep one of the two"
        answers.refused += [f"{printable(file.name)}: rater {rater + 1}: {words}" for file in refused]
    heard = {answer.rater for answer in answers.counted}
    answers.silent = [rater + 1 for rater in range(answers.key.raters) if rater not in heard]
    return answers


def _read_file(file: Path, key: StudyKey) -> _RaterFile:
    """The content of a rater's file. Raises _Refused if it is not a file of this study."""
    try:
        with open_regular(file) as opened:
            data = opened.read(_LARGEST + 1)
        if len(data) > _LARGEST:
            raise _Refused(f"it has over {_LARGEST >> 20} MB")
        given = _RaterFile.model_validate(json.loads(data.decode("utf-8")))
    except (ValueError, RecursionError):  # also JSON's and pydantic's errors
        raise _Refused("it is not the file of a rater's answers") from None
    except OSError as error:
        raise _Refused(f"it cannot be read ({error.strerror})") from None
    if given.study != key.study:
        raise _Refused(f"it belongs to another study ({printable(given.study[:40])})")
    if not 0 <= given.rater < key.raters:
        raise _Refused(f"there is no rater {str(given.rater + 1)[:40]}; the study has {key.raters}")
    if (given.plan or key.version >= VERSION) and given.plan != plan_digest(key, list(pages_of(key, given.rater))):
        raise _Refused(f"rater {given.rater + 1}: it answers another plan ({printable(given.plan[:40]) or 'none'})")
    return given


class _Rater:
    """Adds the answers of one rater's file to the answers of the study."""

    def __init__(self, answers: Answers, rater: int, file: Path) -> None:
        self.answers, self.rater, self.key = answers, rater, answers.key
        self.where = f"{printable(file.name)}: rater {rater + 1}"
        self.pages = pages_of(answers.key, rater)
        low, high = answers.key.scale
        self.scale = TypeAdapter(Annotated[int, Field(strict=True, ge=low, le=high)])

    def add(self, items: Sequence[object]) -> None:
        """Adds all pages of the file."""
        given: dict[tuple[str, ...], list[tuple[int, _Page]]] = {}
        for number, item in enumerate(items, 1):
            try:
                page = _Page.model_validate(item)
                if tuple(page.videos) not in self.pages:
                    raise _Refused("it has videos that this rater's plan does not have")
            except ValidationError:
                self.refuse(f"page {number}", "it is not an answer")
            except _Refused as cause:
                self.refuse(f"page {number}", str(cause))
            else:
                given.setdefault(tuple(page.videos), []).append((number, page))
        for videos, copies in given.items():
            (number, page), *others = copies
            if all(other.values == page.values for _, other in others):
                self.add_page(number, page.values, *self.pages[videos])
                repeated = [(other, f"it repeats page {number}") for other, _ in others]
            else:
                repeated = [(other, "the same videos have other answers on another page") for other, _ in copies]
            for other, words in repeated:
                self.refuse(f"page {other}", words)
        for place, videos in enumerate(self.pages, 1):
            if videos not in given:
                self.note_gap(place, self.key.questions)

    def add_page(self, number: int, values: Mapping[str, object], pair: str, methods: tuple[str, ...]) -> None:
        """Adds the answers of one page, of which each question is checked on its own."""
        for question, value in values.items():
            if question not in self.key.questions:
                self.refuse(f"page {number}, {printable(question[:40])!r}", "the study does not have this question")
                continue
            try:
                self.answers.counted.append(
                    Answer(self.rater, question, pair, methods, self.scale.validate_python(value))
                )
            except ValidationError:
                low, high = self.key.scale
                shown = repr(value)[:40] if isinstance(value, (int, float, str)) or value is None else "it"
                self.refuse(f"page {number}, {question}", f"{shown} is not a whole number from {low} to {high}")
        if lacking := [question for question in self.key.questions if question not in values]:
            self.note_gap(1 + list(self.pages.values()).index((pair, methods)), lacking)

    def note_gap(self, place: int, questions: Sequence[str]) -> None:
        """Notes answers that a page of the plan does not have."""
        self.answers.missing += len(questions)
        self.answers.gaps.append(f"{self.where}, page {place} of the plan: no answer to {', '.join(questions)}")

    def refuse(self, place: str, cause: str) -> None:
        """Notes a refused page or answer."""
        self.answers.refused.append(f"{self.where}, {place}: {cause}")


def pages_of(key: StudyKey, rater: int) -> dict[tuple[str, ...], tuple[str, tuple[str, ...]]]:
    """The pages of a rater's plan: the files of the videos, from left to right -> the pair and the methods."""
    files = {content: file for file, content in key.videos.items()}
    design = Design(key.design, key.raters, key.per_rater, len(key.pairs), key.seed)

    def pages() -> Iterator[tuple[tuple[str, ...], tuple[str, tuple[str, ...]]]]:
        for item in plan(len(key.pairs), len(key.methods), rater, design):
            pair, methods = key.pairs[item.pair], tuple(key.methods[m] for m in item.methods)
            yield tuple(files[pair, method] for method in methods), (pair, methods)

    return dict(pages())
