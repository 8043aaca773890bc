"""Analyses the answers of a user study: means, confidence intervals over raters, and Krippendorff's alpha."""

from __future__ import annotations

import itertools
import math
from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from cmet_eval.study.answers import Answer
from cmet_eval.study.key import StudyKey
from cmet_leaderboards.digits import fixed


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
        other = f" {_cell(r.against or '')} |" if versus else ""
        interval = "-" if math.isnan(r.half_width) else f"±{fixed(r.half_width, 2)}"
        mean = "-" if math.isnan(r.mean) else fixed(r.mean, 2)
        alpha = "-" if math.isnan(r.alpha) else fixed(r.alpha, 2)
        counts = f"{r.raters} | {r.answers}"
        lines.append(f"| {r.question} | {_cell(r.method)} |{other} {mean} | {interval} | {counts} | {alpha} |")
    return "\n".join(lines) + "\n"


def _cell(name: str) -> str:
    """A method's name in a Markdown table, where `|` would end the cell."""
    return name.replace("|", "\\|")
