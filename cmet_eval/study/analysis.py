"""Analyses the answers of a user study: means, confidence intervals over raters, and Krippendorff's alpha."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ValidationError

from cmet_eval.study.key import StudyKey, read_key
from talking_face.reasons import UserError


class _Page(BaseModel):
    """The answers of one page in a rater's file."""

    videos: list[str]
    values: dict[str, int]  # question -> answer


class _RaterFile(BaseModel):
    """The JSON file that a rater saved."""

    study: str
    rater: int
    answers: list[_Page]


@dataclass(frozen=True)
class Answer:
    """One answer of one rater."""

    rater: int
    question: str
    pair: str
    methods: tuple[str, ...]  # the methods shown, from left to right
    value: int  # the rating, or the index of the preferred method


@dataclass(frozen=True)
class Result:
    """One row of the analysis."""

    question: str
    method: str
    against: str | None  # the method that `method` is compared with; None for ratings
    mean: float  # mean of the raters' means
    half_width: float  # half the width of the 95 % t-interval over raters; NaN for one rater
    raters: int  # number of raters
    answers: int  # number of answers
    alpha: float  # Krippendorff's alpha of the question: the agreement between raters


def read_answers(study: Path, answers: Iterable[Path]) -> tuple[StudyKey, list[Answer]]:
    """The study's key and all answers.

    Raises:
        UserError: a file does not contain answers of this study, or two files are from the same rater.
    """
    key = read_key(study)
    found: list[Answer] = []
    seen: dict[int, Path] = {}
    for file in sorted(answers):
        try:
            given = _RaterFile.model_validate(json.loads(file.read_text("utf-8")))
        except (OSError, ValueError, ValidationError):
            raise UserError(f"{file} is not a rater's answers") from None
        if given.study != key.study:
            raise UserError(f"{file} belongs to another study ({given.study})")
        if given.rater in seen:
            raise UserError(f"{file} and {seen[given.rater]} are both rater {given.rater + 1}; keep one")
        seen[given.rater] = file
        found += _answers_of(given, key, file)
    if not found:
        raise UserError("no answers; name the JSON files that the raters saved")
    return key, found


def _answers_of(given: _RaterFile, key: StudyKey, file: Path) -> Iterator[Answer]:
    for page in given.answers:
        if any(video not in key.videos for video in page.videos):
            raise UserError(f"{file} names a video that the study does not have")
        shown = [key.videos[video] for video in page.videos]
        for question, value in page.values.items():
            yield Answer(given.rater, question, shown[0][0], tuple(method for _, method in shown), value)


def analyse(key: StudyKey, answers: Sequence[Answer]) -> list[Result]:
    """Analyses the answers as ratings or as preferences, according to the study's design."""
    by_design = analyse_ratings if key.design == "rating" else analyse_preferences
    return by_design(answers, key.methods)


def analyse_ratings(answers: Sequence[Answer], methods: Sequence[str]) -> list[Result]:
    """One row per question and method: mean of the raters' means, 95 % t-interval over raters, number of answers.

    Krippendorff's alpha (ordinal) is computed once per question, over all videos.
    """
    results = []
    for question, asked in _by_question(answers):
        alpha = krippendorff_alpha([(a.rater, (a.pair, a.methods[0]), a.value) for a in asked], "ordinal")
        for method in methods:
            by_rater: dict[int, list[float]] = {}
            for answer in asked:
                if answer.methods == (method,):
                    by_rater.setdefault(answer.rater, []).append(answer.value)
            results.append(_result(question, method, None, by_rater, alpha))
    return results


def analyse_preferences(answers: Sequence[Answer], methods: Sequence[str]) -> list[Result]:
    """One row per question and unordered pair of methods.

    A row contains the share of answers that prefer the first method, and the 95 % t-interval of this share over raters.
    Krippendorff's alpha (nominal) is computed once per question.
    """
    results = []
    codes = {method: i for i, method in enumerate(methods)}
    for question, asked in _by_question(answers):
        preferred = [(answer, answer.methods[answer.value]) for answer in asked]
        judged = [(a.rater, (a.pair, *sorted(a.methods)), codes[method]) for a, method in preferred]
        alpha = krippendorff_alpha(judged, "nominal")
        for first, second in itertools.combinations(methods, 2):
            by_rater: dict[int, list[float]] = {}
            for answer, method in preferred:
                if set(answer.methods) == {first, second}:
                    by_rater.setdefault(answer.rater, []).append(float(method == first))
            if by_rater:
                results.append(_result(question, first, second, by_rater, alpha))
    return results


def _by_question(answers: Sequence[Answer]) -> Iterator[tuple[str, list[Answer]]]:
    for question in dict.fromkeys(answer.question for answer in answers):
        yield question, [answer for answer in answers if answer.question == question]


def _result(
    question: str, method: str, against: str | None, values: Mapping[int, Sequence[float]], alpha: float
) -> Result:
    """One row: the mean of the raters' means, and half the width of the 95 % t-interval of this mean.

    The interval is computed over raters and not over answers, because the answers of one rater are similar.
    """
    from scipy import stats

    means = [float(np.mean(v)) for v in values.values()]
    n = len(means)
    half_width = float(stats.t.ppf(0.975, n - 1) * np.std(means, ddof=1) / math.sqrt(n)) if n > 1 else math.nan
    mean = float(np.mean(means)) if means else math.nan
    return Result(question, method, against, mean, half_width, n, sum(map(len, values.values())), alpha)


def krippendorff_alpha(judged: Sequence[tuple[int, Hashable, int]], level: Literal["nominal", "ordinal"]) -> float:
    """Krippendorff's alpha of judgements (rater, unit, value). A unit is a judged video or two compared videos.

    NaN if no unit was judged by two raters, or if all values are equal.
    """
    import krippendorff

    raters = sorted({rater for rater, _, _ in judged})
    units = {unit: i for i, unit in enumerate(sorted({unit for _, unit, _ in judged}, key=repr))}
    table = np.full((len(raters), len(units)), np.nan)
    for rater, unit, value in judged:
        table[raters.index(rater), units[unit]] = value
    if (np.isfinite(table).sum(axis=0) < 2).all() or len(np.unique(table[np.isfinite(table)])) < 2:
        return math.nan
    return float(krippendorff.alpha(reliability_data=table, level_of_measurement=level))


def to_markdown(results: Sequence[Result]) -> str:
    """The analysis as a Markdown table."""
    versus = results[0].against is not None
    lines = [
        f"| question | method |{' preferred to |' if versus else ''} mean | 95% | raters | answers | alpha |",
        f"|---|---|{'---|' if versus else ''}---|---|---|---|---|",
    ]
    for r in results:
        other = f" {r.against} |" if versus else ""
        interval = "-" if math.isnan(r.half_width) else f"±{r.half_width:.2f}"
        mean = "-" if math.isnan(r.mean) else f"{r.mean:.2f}"
        alpha = "-" if math.isnan(r.alpha) else f"{r.alpha:.2f}"
        counts = f"{r.raters} | {r.answers}"
        lines.append(f"| {r.question} | {r.method} |{other} {mean} | {interval} | {counts} | {alpha} |")
    return "\n".join(lines) + "\n"
